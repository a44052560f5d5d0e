"""Files of the PyTorch original."""
