"""Plays episodes with a trained agent and shows them: `python enjoy.py RUN [--flags]`."""

import sys

from trxl_jax.commands.enjoy import cli

if __name__ == "__main__":
    sys.exit(cli())
