"""Senseless values of flags: one line, before anything is built."""

import dataclasses
import random
from pathlib import Path

from tests.hostile.damage import attempt
from trxl_jax.commands.train import parse
from trxl_jax.config import Config

VALUES = [
    *("", "0", "-1", "1", "3", "2.5", "1e6", "1e308", "1e400", "nan", "inf", "-inf", "0x10", "1_000"),
    *("2147483648", "4294967296", "9223372036854775808", "99999999999999999999999"),
    *("true", "None", "null", "[]", "{}", '{"a": 1}', "[" * 2000),
    *(
        "\x1b[31mred",
        "\udce9",
        "名前",
        "a/b",
        "..",
        "~",
        "module:id",
        ":",
        "gymnax/",
        "jax/",
        "custom/x",
        "x" * 100_000,
    ),
    *("$(date)", "'", '"', "\n", "*", "?"),
]
BATCH = 20


def play_round(rng: random.Random, directory: Path) -> str:
    """Parses `BATCH` command lines with one to three random values each; returns how many were refused."""
    names = [field.name for field in dataclasses.fields(Config)]
    refused = 0
    for _ in range(BATCH):
        line = [part for name in rng.sample(names, rng.randint(1, 3)) for part in (f"--{name}", rng.choice(VALUES))]
        refused += attempt(lambda line=line: parse(line), f"{[part[:40] for part in line]}") is None  # type: ignore[misc]
    return f"{refused} of {BATCH} command lines refused"
