"""Learning curves of many runs."""
