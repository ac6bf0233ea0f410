"""The checker of COFF results."""
