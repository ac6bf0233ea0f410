"""The results of a run, as text for people and as JSON for programs."""
