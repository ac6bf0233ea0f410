"""One library from start to end: the plan, the work, and what became of it."""
