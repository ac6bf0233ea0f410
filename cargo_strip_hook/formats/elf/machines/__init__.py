"""One table for each architecture; `machine.machine` loads the one that is needed."""
