"""The checker of Mach-O results."""
