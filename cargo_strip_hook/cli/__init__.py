"""The command line: the only room that prints, and that maps errors to exit codes."""
