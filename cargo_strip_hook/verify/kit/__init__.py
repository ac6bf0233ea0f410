"""What the verifiers of all formats do alike."""
