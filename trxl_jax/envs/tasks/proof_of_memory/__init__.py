"""Proof of Memory, for Gymnasium and for gymnax."""
