"""Studies: grids of configs and seeds, run until all of it is done, and reported."""
