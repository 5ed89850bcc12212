"""What every command that samples opens: a policy, rollouts that are scored, evaluations, requests to stop."""
