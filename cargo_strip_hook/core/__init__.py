"""What lies below everything: requests and results, errors, targets, processes, programs."""
