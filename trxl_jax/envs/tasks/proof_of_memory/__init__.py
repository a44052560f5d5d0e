"""Proof of Memory, the smallest task that needs memory, for Gymnasium (host) and gymnax (device)."""
