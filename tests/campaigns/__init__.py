"""Many inputs, made from a number: what they are made of, and how they are run."""
