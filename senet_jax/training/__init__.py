"""Training: a config, a state, a jitted step over a mesh, and the loop around them."""
