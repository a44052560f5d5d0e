"""Environments as JAX functions, stepped on the device."""
