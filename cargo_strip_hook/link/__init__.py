"""The phases that link object files of any format, over one model."""
