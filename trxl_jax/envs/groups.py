"""Groups of environments, and how they lie on devices; `ppo/groups.py` says why there are groups."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from trxl_jax.config import Config
from trxl_jax.envs.base import Environment, EnvSpec
from trxl_jax.envs.registry import make_env
from trxl_jax.envs.results import EpisodeResult
from trxl_jax.envs.stats import EpisodeStats
from trxl_jax.errors import ConfigError


class Layout(NamedTuple):
    """Which device has which groups of environments: each as many, in order.

    Fields:
        num_groups: of all devices of all processes.
        devices: of all processes, in the order of groups.
    """

    num_groups: int
    devices: tuple[Any, ...]

    @property
    def groups_per_device(self) -> int:
        """Groups on each device."""
        return self.num_groups // len(self.devices)

    @property
    def local_groups(self) -> range:
        """Numbers of the groups on this process's devices."""
        mine = [i for i, device in enumerate(self.devices) if device.process_index == jax.process_index()]
        return range(mine[0] * self.groups_per_device, (mine[-1] + 1) * self.groups_per_device)


def make_layout(config: Config, num_devices: int | None = None) -> Layout:
    """The layout for a configuration.

    Args:
        config: num_envs and env_groups matter; 0 groups are one for each device.
        num_devices: how many of the devices to use; None: all that there are, or as many as `env_groups` allows.

    Raises:
        ConfigError: there are fewer devices, or environments can't be divided among them.
    """
    found = jax.devices()
    if num_devices is not None and not 1 <= num_devices <= len(found):
        kind = f"there {'is' if len(found) == 1 else 'are'} {len(found)} ({found[0].platform})"
        remedy = "; set XLA_FLAGS=--xla_force_host_platform_device_count=K for K virtual ones"
        raise ConfigError(f"--devices {num_devices}: {kind}{remedy * (found[0].platform == 'cpu')}")
    if num_devices is not None and jax.process_count() > 1 and num_devices != len(found):
        raise ConfigError(f"--devices {num_devices}: {jax.process_count()} processes use all {len(found)} devices")
    groups = config.env_groups
    if num_devices is None:
        fewer = range(len(found), 0, -1) if groups and jax.process_count() == 1 else [len(found)]
        num_devices = next((count for count in fewer if groups % count == 0), len(found))
    if groups % num_devices:
        raise ConfigError(f"--devices {num_devices}: must divide --env_groups {groups}")
    groups = groups or num_devices
    if config.num_envs % groups:
        flag, remedy = ("env_groups", "") if config.env_groups else ("devices", ", or give --devices")
        raise ConfigError(f"--num_envs {config.num_envs}: must be a multiple of --{flag} {groups}; change it{remedy}")
    _check_minibatches(config, groups)
    return Layout(groups, tuple(found[:num_devices]))


def _check_minibatches(config: Config, groups: int) -> None:
    segments = config.batch_size // groups // config.segment_length
    if segments % config.num_minibatches:
        raise ConfigError(
            f"--num_minibatches {config.num_minibatches}: must divide the {segments} segments of each of {groups} "
            "groups of environments; change it, --num_envs or --env_groups"
        )


class GroupedEnvironment:
    """N environments in groups, of which this process has those of its devices.

    Like an `Environment`, except that each group is reset and stepped by itself.

    On the device a group's environments are pure functions, the same for all. On the host each group has environments
    of its own, and their seeds are those that they would have without groups.

    Args:
        config: as for `make_env`.
        env: an environment object to use instead of `config.env_id`, as for `make_env`.
        layout: of the groups.
        gather: of several processes: from JSON of this one to a list of that of all.

    Fields:
        layout: of the groups.
        groups: an environment for each of this process's groups, N / num_groups each.
    """

    def __init__(
        self, config: Config, env: Any, layout: Layout, gather: Callable[[Any], list[Any]] = lambda value: [value]
    ) -> None:
        if isinstance(env, Environment):
            raise ConfigError(
                "--env_groups: `env` is a batch of environments; pass a function that makes one, or an id"
            )
        self.layout = layout
        self.num_envs = config.num_envs
        self._gather = gather
        size = config.num_envs // layout.num_groups
        part = config.replace(num_envs=size)
        local = layout.local_groups
        first = make_env(part, env, first_env=local[0] * size)
        others = local[1:]
        rest = (
            [make_env(part, env, first_env=group * size) for group in others]
            if first.on_host
            else [first] * len(others)
        )
        self.groups: list[Environment] = [first, *rest]
        self.spec: EnvSpec = first.spec
        self.on_host = first.on_host

    @property
    def failure(self) -> BaseException | None:
        """The first exception that a host environment raised."""
        return next((env.failure for env in self.groups if env.failure is not None), None)

    def pop_episode_results(self, episode: EpisodeStats) -> list[EpisodeResult]:
        """As `Environment` says, given statistics [T, N]; on the host those of the first group first."""
        if not self.on_host:
            return self.groups[0].pop_episode_results(episode)
        mine = [result for env in self.groups for result in env.pop_episode_results(episode)]
        return [result for results in self._gather(mine) for result in results]

    def snapshot(self) -> dict[str, Any]:
        """The snapshots of this process's groups."""
        if not self.on_host:
            return self.groups[0].snapshot()
        return {"groups": [jax.tree.map(_plain, env.snapshot()) for env in self.groups]}

    def gather_snapshots(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        """The snapshots of all processes' groups, from that of this process's; all processes must call it."""
        if not self.on_host:
            return snapshot
        return {"groups": [of_group for part in self._gather(snapshot["groups"]) for of_group in part]}

    def restore(self, snapshot: dict[str, Any]) -> Any:
        """Restores this process's groups from the snapshots of all; observations of each, or None if one has none."""
        if not self.on_host:
            return self.groups[0].restore(snapshot)
        local = self.layout.local_groups
        obs = [env.restore(snapshot["groups"][i]) for i, env in zip(local, self.groups, strict=True)]
        succeeded = all(shown is not None for shown in obs)
        return tuple(obs) if all(self._gather(succeeded)) else None

    def close(self) -> None:
        """Closes all groups."""
        for env in self.groups:
            env.close()


AnyEnvironment = Environment | GroupedEnvironment
"""What a run trains with."""


def _plain(leaf: Any) -> Any:
    return leaf.tolist() if hasattr(leaf, "tolist") else leaf
