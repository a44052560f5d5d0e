"""Trains PPO with Transformer-XL: `python train.py [PRESET] [--flags]`."""

import sys

from trxl_jax.commands.train import cli

if __name__ == "__main__":
    sys.exit(cli())
