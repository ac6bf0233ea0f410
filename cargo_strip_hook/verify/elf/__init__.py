"""Checks of an ELF result; shares no code with the engine."""
