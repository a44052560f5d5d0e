"""Work that few of a batch's environments need in a step, done for these alone.

`vmap` would run a search in every environment until the slowest is through. Those that need it are gathered first, a
few at a time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

LANES = 16
"""Environments that work at the same time; about as many of 1,024 need a search in a step."""


def only_where_needed(work: Callable[..., Any]) -> Callable[..., Any]:
    """A function of (bool[], *args) that does the work where the first is true and gives zeros elsewhere.

    Under `vmap` its cost is that of the environments in need, in groups of LANES; where none is, nothing runs.

    Args:
        work: a pure function of arrays for one environment, which closes over no traced values.
    """

    @custom_vmap
    def one(needed: jax.Array, *args: Any) -> Any:
        results = _zeros(jax.eval_shape(work, *args))
        return jax.lax.while_loop(lambda x: x[0], lambda x: (jnp.bool_(False), work(*args)), (needed, results))[1]

    @one.def_vmap
    def batch(size: int, batched: list[Any], needed: jax.Array, *args: Any) -> tuple[Any, Any]:
        needed, *args = jax.tree.map(
            lambda x, has_batch: x if has_batch else jnp.broadcast_to(x, (size, *jnp.shape(x))),
            (needed, *args),
            (*batched,),
        )
        lanes = min(LANES, size)

        def group(carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            waiting, results = carry
            # What is left of the last group repeats an environment, whose result is then dropped.
            (chosen,) = jnp.nonzero(waiting, size=lanes, fill_value=size)
            worked = jax.vmap(work)(*jax.tree.map(lambda x: x.at[chosen].get(mode="clip"), args))
            results = jax.tree.map(lambda x, values: x.at[chosen].set(values, mode="drop"), results, worked)
            return waiting.at[chosen].set(False, mode="drop"), results

        results = _zeros(jax.eval_shape(jax.vmap(work), *args))
        results = jax.lax.while_loop(lambda carry: carry[0].any(), group, (needed, results))[1]
        return results, jax.tree.map(lambda _: True, results)

    return lambda needed, *args: one(jnp.asarray(needed), *args)


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
