"""Named experiments, each trained with several seeds."""
