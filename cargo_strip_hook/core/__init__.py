"""What all rooms use: requests and results, errors, targets, processes, external programs."""
