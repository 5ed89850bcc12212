"""How trajectories become the micro-batches of a forward pass."""
