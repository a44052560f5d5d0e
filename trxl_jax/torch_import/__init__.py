"""Loads checkpoints of the original PyTorch implementation."""
