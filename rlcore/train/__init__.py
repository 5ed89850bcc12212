"""The training loop, the run it trains, what a step is trained on and measured by, checkpoints."""
