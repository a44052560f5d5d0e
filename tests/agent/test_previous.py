"""The action and the reward of the step before keep their precision, whatever that of other products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trxl_jax.agent.numerics import Numerics
from trxl_jax.agent.previous import Previous, PreviousEncoder, PreviousInputs
from trxl_jax.envs.actions import BoxActions


@pytest.mark.parametrize("which", ["action", "reward"])
def test_large_numbers_stay_apart_with_bfloat16(which: str) -> None:
    """In bfloat16 1000, 1001 and 1002 are one number."""
    inputs = PreviousInputs(action=which == "action", reward=which == "reward")
    space = BoxActions((-np.inf,), (np.inf,))
    values = jnp.array([1000.0, 1001.0, 1002.0])
    previous, steps = Previous(values[:, None], values), jnp.ones(3, jnp.int32)

    def encoded(numerics: Numerics) -> jax.Array:
        encoder = PreviousEncoder(inputs, space, 8, numerics)
        output = encoder.init_with_output(jax.random.key(0), previous, steps)[0]
        assert output.dtype == jnp.float32
        return output

    ours = encoded(Numerics("gpu", np.dtype(jnp.bfloat16)))
    assert (jnp.abs(jnp.diff(ours, axis=0)).max(axis=1) > 0).all()
    np.testing.assert_array_equal(ours, encoded(Numerics("gpu")))
