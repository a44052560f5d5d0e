"""PPO with Transformer-XL as episodic memory, in JAX and Flax."""
