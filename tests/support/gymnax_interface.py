"""How a wrapper of gymnax sees a task on the device: types and shapes, without running it."""

from typing import Any

import jax
from gymnax.wrappers import LogWrapper


def shapes_of_steps(task: Any, params: Any, steps: int = 3) -> tuple[Any, Any, Any]:
    """Observation and state after some random steps under gymnax's `LogWrapper`, and what the steps returned, stacked.

    A scan requires the same types of states from `reset` and `step`.
    """
    wrapped = LogWrapper(task)

    def play(key: jax.Array) -> Any:
        def step(carry: Any, key: jax.Array) -> tuple[Any, Any]:
            action = task.action_space(params).sample(key)
            obs, state, *rest = wrapped.step(key, carry[1], action, params)
            return (obs, state), rest

        (obs, state), outputs = jax.lax.scan(step, wrapped.reset(key, params), jax.random.split(key, steps))
        return obs, state.env_state, outputs

    return jax.eval_shape(play, jax.random.key(0))
