"""Gymnasium environments, stepped on the host behind callbacks."""
