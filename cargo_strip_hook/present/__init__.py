"""What a run amounts to, as text for people and as JSON for programs."""
