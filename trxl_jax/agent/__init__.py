"""The agent: encoder, memory, heads."""
