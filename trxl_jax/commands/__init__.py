"""The command-line programs: train and enjoy."""
