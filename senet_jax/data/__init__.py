"""Images in, uint8 batches out; the position in the data is (seed, step) and nothing else."""
