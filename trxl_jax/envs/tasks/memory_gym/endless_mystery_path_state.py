"""Parameters, layout and state of Endless-MysteryPath."""

from typing import Any

import gymnax.environments.environment as gymnax_environment
import jax
from flax import struct


@struct.dataclass(kw_only=True)
class EndlessMysteryPathParams(gymnax_environment.EnvParams):
    """Parameters of the task. All rewards include the option `reward_step`.

    Fields:
        max_steps_in_episode: i32[], as `max_steps`, or 0 if there is no limit.
        max_steps: i32[], steps after which an episode terminates; -1 for no limit.
        stamina: i32[], number of steps before the agent must reach a tile that restores stamina.
        bar_heights: i32[stamina + 1], height in pixels of the used part of the bar, by remaining stamina.
        progress_reward: f32[], reward for reaching a new tile of the path.
        fall_reward: f32[], reward for leaving the path.
        step_reward: f32[], reward of all other steps.
        speed: i32[], pixels per step.
    """

    max_steps_in_episode: Any
    max_steps: Any
    stamina: Any
    bar_heights: Any
    progress_reward: Any
    fall_reward: Any
    step_reward: Any
    speed: Any


@struct.dataclass
class EndlessMysteryPathLayout:
    """What a reset samples. A segment is a function of the key and its index, and generated when the agent enters it.

    Fields:
        key: key[], random key of the segments.
        start_row: i32[], row in which the path starts.
        recorded: u8[segments, 8, 7], recorded segments, like `places` in the state, to use instead of sampling; or
            None.
    """

    key: jax.Array
    start_row: jax.Array
    recorded: jax.Array | None = None


@struct.dataclass
class EndlessMysteryPathState(gymnax_environment.EnvState):
    """State of one episode.

    Fields:
        time: i32[], steps so far.
        key, start_row, recorded: as in the layout.
        places: u8[segments, 8, 7], indexed [segment, column, row]: position along the segment's path, starting at 1;
            0 off the path and in segments not generated yet.
        num_known: i32[], number of segments generated.
        next_row: i32[], row in which the next segment starts.
        centre: i32[2], centre of the agent in pixels, x and y, relative to the upper left corner of the path.
        direction: i32[], direction of the agent in multiples of 45 degrees counter-clockwise; 0 is up.
        scroll: i32[], horizontal shift of the background, -11..0 pixels.
        tile: i32[2], column and row of the path's tile on which the agent was last.
        rewarded: u8[8 * segments], bit y of entry x is set if tile (x, y) has given its reward.
        refreshed: u8[8 * segments], likewise for tiles that have restored stamina since the last fall.
        falls: i32[2], falls in columns max_x and max_x + 1: bit y + 1 is set if the agent fell in row y. Other columns
            aren't needed: a fall further left ends the episode, and one further right is impossible.
        stamina: i32[], remaining stamina in steps.
        max_x: i32[], rightmost column of the path that the agent has reached.
        fallen: bool[], whether the agent is off the path.
        num_fails: i32[], how often the agent has left the path.
        tiles_visited: i32[], number of rewarded tiles.
    """

    time: Any  # gymnax annotates int but uses arrays
    key: jax.Array
    start_row: jax.Array
    places: jax.Array
    num_known: jax.Array
    next_row: jax.Array
    centre: jax.Array
    direction: jax.Array
    scroll: jax.Array
    tile: jax.Array
    rewarded: jax.Array
    refreshed: jax.Array
    falls: jax.Array
    stamina: jax.Array
    max_x: jax.Array
    fallen: jax.Array
    num_fails: jax.Array
    tiles_visited: jax.Array
    recorded: jax.Array | None = None
