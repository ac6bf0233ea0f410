"""The command line: the one place that prints, and that maps errors to exit codes."""
