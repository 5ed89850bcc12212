"""rlcore: multi-turn reinforcement learning that teaches language models to correct themselves."""
