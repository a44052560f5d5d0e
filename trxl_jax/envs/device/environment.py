"""gymnax environments, vmapped into a batch that steps on the device."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trxl_jax.envs.action_masks import MASK, add_mask, nvec_to_mask, split_space, with_mask
from trxl_jax.envs.base import ENDLESS_MAX_EPISODE_STEPS, EnvSpec, TimeStep
from trxl_jax.envs.native_actions import NativeActions
from trxl_jax.envs.observations import read_observation_space
from trxl_jax.envs.results import EpisodeResult, results_from_stats
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.envs.tasks.layouts import LayoutEnvironment
from trxl_jax.errors import ConfigError


class DeviceEnvState(NamedTuple):
    """State of N gymnax environments.

    Fields:
        inner: the environments' own states, each leaf with a leading N.
        key: key[N], the source of each environment's randomness.
        episode_return: f32[N], sum of rewards so far.
        episode_length: i32[N], steps so far.
    """

    inner: Any
    key: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array


class DeviceEnvironment:
    """N copies of a gymnax environment as pure functions of arrays.

    Args:
        env: a gymnax environment. Its `step` may return six values (gymnax 1.x), or five or four as in older releases
            (obs, state, reward, done[, info]), in which case every end counts as a termination.
        params: its parameters; None for its defaults. The field `max_steps_in_episode`, if there is one, is the limit
            that the environment enforces, or 0 where it enforces none.
        num_envs: N.
        max_episode_steps: length at which an episode is truncated, at least 1; None: the environment's own limit.
        num_positions: E; None: the episodes' limit.
        send_final_obs: return the last observation of ended episodes too.
        mask_key: name of the mask of valid actions in the observations, or of a method (state, params) that returns it;
            None: there is none.

    Raises:
        ConfigError: spaces that the agent can't take, or no final observation where one is asked for.

    In addition to gymnax's interface an environment may offer `result_names`, entries of its infos that are results of
    an episode in its last step; `render_debug(state, params)`, a picture for people; `fps`; and `x_first`, whether
    observations have their columns first.
    """

    on_host = False
    failure: BaseException | None = None

    def __init__(
        self,
        env: Any,
        params: Any = None,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        num_positions: int | None = None,
        send_final_obs: bool = False,
        mask_key: str | None = None,
    ) -> None:
        self._env = env
        self._params = env.default_params if params is None else params
        self.num_envs = num_envs
        self._send_final_obs = send_final_obs
        self._result_names: tuple[str, ...] = getattr(env, "result_names", ())
        self.draws = hasattr(env, "render_debug")
        self.fps: float | None = getattr(env, "fps", None)
        self.x_first: bool = getattr(env, "x_first", False)
        own: int | None = getattr(self._params, "max_steps_in_episode", None) or None
        limit = min(filter(None, (max_episode_steps, own)), default=None)
        self._limit = None if limit == own else limit
        self.native_actions = NativeActions.read(env.action_space(self._params), env.name)
        action = self.native_actions.space
        own_space, self._mask_key, self._mask_is_observed = env.observation_space(self._params), mask_key, False
        if mask_key is not None:
            own_space, self._mask_is_observed = split_space(own_space, mask_key)
            if not self._mask_is_observed and not callable(getattr(env, mask_key, None)):
                raise ConfigError(f"--action_mask_key {mask_key}: {env.name} has no such observation or method")
        self._reader = read_observation_space(env.name, own_space)
        space = (
            self._reader.space
            if mask_key is None
            else with_mask(self._reader.space, sum(nvec_to_mask(action, mask_key, env.name)), mask_key)
        )
        self.spec = EnvSpec(space, action, int(num_positions or limit or ENDLESS_MAX_EPISODE_STEPS))
        if send_final_obs and self._num_step_values() != 6:
            raise ConfigError(f"--bootstrap_truncated: {env.name} does not return its final observations")

    def reset(self, key: jax.Array) -> tuple[DeviceEnvState, Any]:
        """Starts an episode in each environment; see `Environment.reset`."""
        state_key, reset_key = jax.random.split(key)
        obs, inner = jax.vmap(self._env.reset, (0, None))(jax.random.split(reset_key, self.num_envs), self._params)
        state = DeviceEnvState(
            inner=inner,
            key=jax.random.split(state_key, self.num_envs),
            episode_return=jnp.zeros(self.num_envs, jnp.float32),
            episode_length=jnp.zeros(self.num_envs, jnp.int32),
        )
        return state, self._observe(obs, inner)

    def step(self, env_state: DeviceEnvState, action: jax.Array) -> tuple[DeviceEnvState, TimeStep]:
        """Steps each environment; see `Environment.step`."""
        action = self.native_actions.unpack(action)
        keys = jax.vmap(jax.random.split)(env_state.key)
        values = jax.vmap(self._env.step, (0, 0, 0, None))(keys[:, 1], env_state.inner, action, self._params)
        obs, inner, reward = values[:3]
        info = values[-1] if len(values) > 4 else {}
        terminated = values[3].astype(bool)
        truncated = values[4].astype(bool) if len(values) == 6 else jnp.zeros_like(terminated)
        others = {name: info[name].astype(jnp.float32) for name in self._result_names}
        if self._limit is not None:
            cut = (env_state.episode_length + 1 == self._limit) & ~(terminated | truncated)
            truncated, others = truncated | cut, others | {"cut": cut.astype(jnp.float32)}
            obs, inner = self._restart(cut, keys[:, 1], obs, inner)

        reward = reward.astype(jnp.float32)
        done = terminated | truncated
        episode = EpisodeStats(
            done=done,
            episode_return=env_state.episode_return + reward,
            episode_length=env_state.episode_length + 1,
            others=others or None,
        )
        next_state = DeviceEnvState(
            inner=inner,
            key=keys[:, 0],
            episode_return=jnp.where(done, 0.0, episode.episode_return),
            episode_length=jnp.where(done, 0, episode.episode_length),
        )
        final_obs = self._observe(info["final_observation"], None) if self._send_final_obs else None
        return next_state, TimeStep(
            obs=self._observe(obs, inner),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            final_obs=final_obs,
            episode=episode,
        )

    @property
    def observes_states(self) -> bool:
        """Whether observations are functions of the environments' own states: then they need not be stored."""
        return isinstance(self._env, LayoutEnvironment) and self._mask_key is None

    def observe_states(self, inner: Any) -> Any:
        """Observations [n, *obs_shape] in states whose leaves have a leading n; if `observes_states`."""
        return self._observe(jax.vmap(self._env.render, (0, None))(inner, self._params), inner)

    def draw(self, env_state: DeviceEnvState) -> jax.Array:
        """Pictures of the whole task for people, u8[N, height, width, 3] with rows first; only if `draws`."""
        return jax.vmap(self._env.render_debug, (0, None))(env_state.inner, self._params)

    def pop_episode_results(self, episode: EpisodeStats) -> list[EpisodeResult]:
        """Results of the episodes that ended in `episode`, statistics [T, N]."""
        return results_from_stats(episode)

    def snapshot(self) -> dict[str, Any]:
        """Empty: the state's arrays are the whole state."""
        return {}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Nothing to restore."""

    def close(self) -> None:
        """Nothing to free."""

    def _observe(self, obs: Any, inner: Any) -> Any:
        """Observations [N, *obs_shape] of the environments' own and, for the mask, of their states."""
        arrays = self._reader.convert(obs)
        if self._mask_key is None:
            return arrays
        size = self.spec.obs.arrays[MASK].size
        if self._mask_is_observed:
            parts = jax.tree.leaves(obs[self._mask_key])
        elif inner is None:  # of an episode that has ended: no action follows
            parts = [jnp.ones((self.num_envs, size))]
        else:
            parts = jax.tree.leaves(jax.vmap(getattr(self._env, self._mask_key), (0, None))(inner, self._params))
        mask = jnp.concatenate([part.reshape(self.num_envs, -1) for part in parts], axis=1) != 0
        return add_mask(arrays, mask.astype(jnp.uint8))

    def _restart(self, cut: jax.Array, key: jax.Array, obs: Any, inner: Any) -> tuple[Any, Any]:
        """Observations and states in which the environments where bool[N] `cut` start a new episode."""

        def restart() -> tuple[Any, Any]:
            keys = jax.vmap(jax.random.fold_in, (0, None))(key, 1)
            fresh = jax.vmap(self._env.reset, (0, None))(keys, self._params)
            choose = jax.vmap(jax.lax.select)
            return jax.tree.map(lambda new, old: choose(cut, new.astype(old.dtype), old), fresh, (obs, inner))

        return jax.lax.cond(cut.any(), restart, lambda: (obs, inner))

    def _num_step_values(self) -> int:
        def one_step(key: jax.Array) -> tuple[Any, ...]:
            _, state = self._env.reset(key, self._params)
            action = self.native_actions.unpack(self.spec.action.zeros())
            return tuple(self._env.step(key, state, action, self._params))

        return len(jax.eval_shape(one_step, jax.random.key(0)))
