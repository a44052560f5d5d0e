"""What both collectors of steps (plain and double-buffered) return; `collect_rollout` makes a `Rollout` of it."""

from typing import Any, NamedTuple

import jax

from trxl_jax.ppo.acting import ActorState, ActorStep, StepResult
from trxl_jax.ppo.observations import RolloutObservations


class CollectedSteps(NamedTuple):
    """The result of T steps.

    Fields:
        env_state: the environments' own state.
        state: what is carried after the last step.
        observations: those before each step.
        actions: each [T, N, ...].
        results: each [T, N, ...].
        last_value: f32[N], of the observations after the last step.
    """

    env_state: Any
    state: ActorState
    observations: RolloutObservations
    actions: ActorStep
    results: StepResult
    last_value: jax.Array
