"""Digests of episodes: whether observations and rewards are those of the first time. Doesn't use JAX."""

from functools import cache
from typing import Any

import numpy as np

from trxl_jax.envs.observations import arrays_of

_STEP_FACTOR = np.uint64(6364136223846793005)
_REWARD_FACTOR = np.uint64(2862933555777941757)


def new_digest(obs: Any) -> np.ndarray:
    """Digests u64[n] of episodes that begin with the observations [n, *obs_shape]."""
    first, *others = map(_digest, arrays_of(obs).values())
    for digest in others:
        first = first * _STEP_FACTOR + digest
    return first


def extend_digest(digest: np.ndarray, obs: Any, reward: np.ndarray) -> np.ndarray:
    """Digests u64[n] after one more step, with its observations [n, *obs_shape] and rewards f32[n].

    Equal episodes have equal digests; two different ones have equal digests with a probability of 2^-32 or less.
    """
    return digest * _STEP_FACTOR + new_digest(obs) + reward.view(np.uint32) * _REWARD_FACTOR


def _digest(array: np.ndarray) -> np.ndarray:
    rows = array.reshape(len(array), -1)
    size = rows.shape[1] * rows.dtype.itemsize
    if size % 4:
        rows = np.pad(rows.view(np.uint8), ((0, 0), (0, -size % 4)))
    words = rows.view(np.uint64 if rows[0].nbytes % 8 == 0 else np.uint32)
    return (words @ _factors(words.shape[1]).astype(words.dtype)).astype(np.uint64)


@cache
def _factors(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**64, count, np.uint64) | np.uint64(1)
