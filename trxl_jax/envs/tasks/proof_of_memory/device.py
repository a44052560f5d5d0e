"""Proof of Memory for gymnax; `host.py` describes the task."""

from typing import Any

import gymnax.environments.environment as gymnax_environment
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces as gymnax_spaces
from jax.typing import ArrayLike

from trxl_jax.envs.tasks.proof_of_memory.host import (
    EDGE,
    ENV_ID,
    GOAL_REWARD,
    MAX_EPISODE_STEPS,
    NUM_SHOW_STEPS,
    POSITIONS,
    START_CELLS,
    STEP_REWARD,
)


@struct.dataclass
class ProofOfMemoryState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        cell: i32[], the agent's cell, -5..5.
        left_goal: i32[], 1 if the good goal is on the left, else -1.
    """

    time: Any  # gymnax annotates int but uses arrays
    cell: jax.Array
    left_goal: jax.Array


@struct.dataclass
class ProofOfMemoryParams(gymnax_environment.EnvParams):
    """Parameters of the task.

    Fields:
        max_steps_in_episode: steps after which an episode is truncated.
    """

    max_steps_in_episode: int = MAX_EPISODE_STEPS


class ProofOfMemory(gymnax_environment.Environment[ProofOfMemoryState, ProofOfMemoryParams]):
    """The gymnax environment; see `ProofOfMemoryEnv`."""

    @property
    def default_params(self) -> ProofOfMemoryParams:
        """At most 16 steps per episode."""
        return ProofOfMemoryParams()

    def reset_env(self, key: jax.Array, params: ProofOfMemoryParams) -> tuple[jax.Array, ProofOfMemoryState]:
        """Samples the start cell and the side of the good goal; returns the observation f32[3] and the state."""
        cell_key, goal_key = jax.random.split(key)
        cell = jax.random.choice(cell_key, jnp.array(START_CELLS, jnp.int32))
        left_goal = jnp.where(jax.random.bernoulli(goal_key), 1, -1).astype(jnp.int32)
        state = ProofOfMemoryState(time=jnp.int32(0), cell=cell, left_goal=left_goal)
        return _observe(state, True), state

    def step_env(
        self, key: jax.Array, state: ProofOfMemoryState, action: ArrayLike, params: ProofOfMemoryParams
    ) -> tuple[jax.Array, ProofOfMemoryState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """Moves one cell, except while the goals are shown.

        Args:
            key: unused.
            state: the state.
            action: i32[], 0 left, 1 right.
            params: the parameters.

        Returns:
            observation f32[3], state, reward f32[], terminated bool[], empty info.
        """
        frozen = jnp.asarray(state.time) < NUM_SHOW_STEPS
        cell = state.cell + jnp.where(frozen, 0, jnp.where(jnp.asarray(action) == 1, 1, -1))
        state = state.replace(time=state.time + 1, cell=cell)
        goal = jnp.where(cell < 0, state.left_goal, -state.left_goal)
        terminated = jnp.abs(cell) == EDGE
        reward = jnp.where(terminated, goal * GOAL_REWARD, jnp.where(frozen, 0.0, STEP_REWARD))
        return _observe(state, frozen), state, reward, terminated, {}

    def action_space(self, params: ProofOfMemoryParams | None = None) -> gymnax_spaces.Discrete:
        """Actions: 0 left, 1 right."""
        return gymnax_spaces.Discrete(2)

    def observation_space(self, params: ProofOfMemoryParams) -> gymnax_spaces.Box:
        """Observations f32[3]: [left goal, position, right goal]."""
        return gymnax_spaces.Box(-1.0, 1.0, (3,), jnp.float32)

    @property
    def name(self) -> str:
        """Id of the task."""
        return ENV_ID

    @property
    def num_actions(self) -> int:
        """Number of actions: 2."""
        return 2


def _observe(state: ProofOfMemoryState, goals_shown: ArrayLike) -> jax.Array:
    goal = jnp.where(goals_shown, state.left_goal, 0)
    return jnp.stack([goal, jnp.asarray(POSITIONS)[state.cell + EDGE], -goal]).astype(jnp.float32)
