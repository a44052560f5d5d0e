"""What a user types: train and enjoy."""
