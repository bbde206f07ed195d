"""Training: one loop for every network, on any number of workers, resumable exactly."""
