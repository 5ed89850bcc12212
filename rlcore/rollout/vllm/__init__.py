"""vLLM as the rollout engine: in the trainer's process, or as servers. Importing this room does not import vLLM."""
