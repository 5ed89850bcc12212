"""The embedded rollout engine: batched decoding in the trainer's process."""
