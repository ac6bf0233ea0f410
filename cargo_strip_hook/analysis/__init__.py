"""What a library consists of, through the common model: no format is asked for by name."""
