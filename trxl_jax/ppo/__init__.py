"""One iteration of PPO: a rollout and the update on it."""
