"""Shared by all commands that sample: policy, scored rollouts, evaluations, and requests to stop."""
