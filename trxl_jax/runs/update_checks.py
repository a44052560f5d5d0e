"""What must be true of every update, else the run ends."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trxl_jax.config import Config
from trxl_jax.errors import Divergence, EnvironmentFailure
from trxl_jax.ppo.train_step import EMPTY_MASKS
from trxl_jax.ppo.update import Metrics


def check_update(metrics: Metrics, params: Any, iteration: int, config: Config) -> None:
    """Checks the result of an update.

    Args:
        metrics: the update's.
        params: the agent's variables after it.
        iteration: its number, from 1.
        config: for the messages.

    Raises:
        EnvironmentFailure: a step had no valid action. (On the host environments are asked in each step.)
        Divergence: the loss, its gradient or a parameter is not finite.
    """
    empty = int(metrics.get(EMPTY_MASKS, 0))
    if empty:
        raise EnvironmentFailure(
            f"environment {config.env_id} allowed no action in {empty} of {config.batch_size} steps of update "
            f"{iteration}; a mask must have a valid action in each step"
        )
    for name in ("losses/loss", "losses/grad_norm"):
        if not np.isfinite(metrics[name]):
            found = f"{name} is {float(metrics[name])}"
            raise Divergence(f"{found} in update {iteration}: training has diverged; lower --init_lr")
    if not _all_finite(params):
        raise Divergence(f"parameters are not finite after update {iteration}: training has diverged; lower --init_lr")


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()
