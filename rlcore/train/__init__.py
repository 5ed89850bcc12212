"""The training loop, the run, the trajectories and measurements of a step, and checkpoints."""
