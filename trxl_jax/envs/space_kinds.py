"""What kind of space one is, by the names of its classes: Gymnasium's, gymnax's and those of suites like it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

OWN_ID = "register the result as an id of your own (--env_id module:id) or pass it to trxl_jax.train as `env`"
"""What to do with an environment that was wrapped because the agent can't take its spaces."""


def kinds(space: Any) -> set[str]:
    """Names of a space's class and its bases: suites with gymnax's interface bring classes of their own."""
    return {kind.__name__ for kind in type(space).__mro__}


def describe(space: Any) -> str:
    """A space's kind with its shape and dtype, or with its parts."""
    kind = type(space).__name__
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        return f"{kind}({', '.join(f'{name}: {describe(part)}' for name, part in parts.items())})"
    if isinstance(parts, Sequence):
        return f"{kind}({', '.join(map(describe, parts))})"
    if "Discrete" in kinds(space):
        return f"{kind}({space.n})"
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    return (
        kind if shape is None else f"{kind}({'x'.join(map(str, shape)) or 'no axis'}, {np.dtype(dtype or np.float32)})"
    )
