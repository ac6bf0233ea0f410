"""Make the static libraries of cargo-c small and self-contained."""

__version__ = "0.1.0"
