"""Runs a function only for those environments of a batch that need it.

Under `vmap`, a `while_loop` runs for every environment until the slowest has finished. Here the environments that need
the result are gathered first and processed in small groups.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

GROUP_SIZE = 16
"""Environments per group; in a batch of 1,024, about as many need a new path in a step."""


def only_where_needed(work: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function conditional: the result takes an additional first argument `needed`, bool[].

    It returns `work(*args)` where `needed` is true, and zeros elsewhere. Under `vmap` the cost is proportional to the
    number of environments that need it, in groups of `GROUP_SIZE`; if there are none, `work` doesn't run.

    Args:
        work: pure function of one environment's arrays that closes over no traced values.
    """
    replaced = replaced_where_needed(work)

    def one(needed: jax.Array, *args: Any) -> Any:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(work, *args))
        return replaced(needed, zeros, *args)

    return one


def replaced_where_needed(work: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function conditional: the result takes two additional first arguments, `needed`, bool[], and `old`.

    It returns `work(*args)` where `needed` is true, and `old`, a pytree of the same arrays, elsewhere. The costs are
    those of `only_where_needed`.

    Args:
        work: as for `only_where_needed`.
    """

    @custom_vmap
    def one(needed: jax.Array, old: Any, *args: Any) -> Any:
        return jax.lax.while_loop(lambda x: x[0], lambda x: (jnp.bool_(False), work(*args)), (needed, old))[1]

    @one.def_vmap
    def batch(size: int, batched: list[Any], needed: jax.Array, old: Any, *args: Any) -> tuple[Any, Any]:
        needed, old, *args = jax.tree.map(
            lambda x, has_batch: x if has_batch else jnp.broadcast_to(x, (size, *jnp.shape(x))),
            (needed, old, *args),
            (*batched,),
        )
        group_size = min(GROUP_SIZE, size)

        def group(carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            waiting, results = carry
            # Unused places of the last group repeat an environment; their results are dropped.
            (chosen,) = jnp.nonzero(waiting, size=group_size, fill_value=size)
            worked = jax.vmap(work)(*jax.tree.map(lambda x: x.at[chosen].get(mode="clip"), args))
            results = jax.tree.map(lambda x, values: x.at[chosen].set(values, mode="drop"), results, worked)
            return waiting.at[chosen].set(False, mode="drop"), results

        results = jax.lax.while_loop(lambda carry: carry[0].any(), group, (needed, old))[1]
        return results, jax.tree.map(lambda _: True, results)

    return lambda needed, old, *args: one(jnp.asarray(needed), old, *args)
