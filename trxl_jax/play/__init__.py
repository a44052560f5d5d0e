"""A trained agent at work: playing, evaluating, showing."""
