"""MysteryPath-Grid-v0 and MysteryPath-v0: find an invisible path across the screen."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from trxl_jax.envs.tasks.memory_gym.environment import FREE_NVEC, next_rotation
from trxl_jax.envs.tasks.memory_gym.environment import direction as movement
from trxl_jax.envs.tasks.memory_gym.grid import GridTask
from trxl_jax.envs.tasks.memory_gym.mystery_path_drawing import TILE
from trxl_jax.envs.tasks.memory_gym.mystery_path_environment import (
    RADIUS,
    MysteryPathEnvironment,
    MysteryPathParams,
    MysteryPathState,
)
from trxl_jax.envs.tasks.memory_gym.path_search import GRID_SIZE
from trxl_jax.envs.tasks.memory_gym.sprites import SCREEN


class MysteryPathGrid(GridTask, MysteryPathEnvironment):
    """MysteryPath-Grid-v0: the agent turns by 90 degrees and moves by whole tiles."""

    task = "MysteryPath-Grid-v0"
    fps = 3
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_steps": 128,
        "agent_scale": 0.25,
        "cardinal_origin_choice": [0, 1, 2, 3],
        "show_origin": False,
        "show_goal": False,
        "visual_feedback": True,
        "reward_goal": 1.0,
        "reward_fall_off": 0.0,
        "reward_path_progress": 0.0,
        "reward_step": 0.0,
    }

    def move(
        self, centre: jax.Array, direction: jax.Array, action: jax.Array, params: MysteryPathParams
    ) -> tuple[jax.Array, jax.Array]:
        """Actions i32[]: 0 none, 1 turn left, 2 turn right, 3 one tile forward, within the screen."""
        direction = (direction + jnp.where(action == 1, 2, 0) - jnp.where(action == 2, 2, 0)) % 8
        forward = jnp.stack(
            [
                (direction == 6).astype(jnp.int32) - (direction == 2),
                (direction == 4).astype(jnp.int32) - (direction == 0),
            ]
        )
        moved = jnp.clip(centre + TILE * forward, RADIUS, SCREEN - RADIUS)
        return jnp.where(action == 3, moved, centre), direction

    @property
    def symbol_sizes(self) -> tuple[int, ...]:
        """Numbers of values of the agent's column, row and direction, the cross, and each shown end's place."""
        shown = self._show_goal + self._show_origin
        return GRID_SIZE, GRID_SIZE, 4, 2, *(GRID_SIZE,) * (2 * shown)

    def symbols(self, state: MysteryPathState, params: MysteryPathParams) -> jax.Array:
        """Values i32[4], i32[6] or i32[8] of what `symbol_sizes` lists; the goal comes before the origin."""
        ends = [tile for _, tile in self.shown_ends(state)]
        agent = jnp.stack([state.direction // 2, self.crossed(state).astype(jnp.int32)])
        return jnp.concatenate([state.centre // TILE, agent, *ends]).astype(jnp.int32)


class MysteryPath(MysteryPathEnvironment):
    """MysteryPath-v0: the agent moves freely."""

    task = "MysteryPath-v0"
    nvec = FREE_NVEC
    fps = 25
    defaults: ClassVar[Mapping[str, Any]] = {
        **MysteryPathGrid.defaults,
        "max_steps": 512,
        "agent_speed": 3.0,
        "reward_path_progress": 0.1,
    }

    def move(
        self, centre: jax.Array, direction: jax.Array, action: jax.Array, params: MysteryPathParams
    ) -> tuple[jax.Array, jax.Array]:
        """Actions i32[2]: (0 none, 1 left, 2 right) and (0 none, 1 up, 2 down); the agent stays within the screen."""
        towards = movement(action)
        pixels = jnp.where((towards != 0).all(), params.diagonal, params.straight)
        moved = jnp.clip(centre + pixels * towards, RADIUS, SCREEN - RADIUS)
        return moved, next_rotation(direction, action)
