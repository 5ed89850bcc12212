"""vLLM servers as a rollout engine: starting, watching and asking them, and publishing weights to them."""
