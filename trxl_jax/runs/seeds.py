"""Which runs may train side by side: the same in all but the seed, on the device, with flags that several can share."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trxl_jax.config import AUTO, RESUMABLE_FIELDS, Config, load_config
from trxl_jax.envs.base import Environment
from trxl_jax.envs.registry import find_env, on_backend
from trxl_jax.errors import ConfigError, brief

MOST_SEEDS = 256

Resume = str | Path | Sequence[str | Path] | None
"""Directories of runs to continue, one for each; "auto"; or None."""


def with_seeds(config: Config, num_seeds: int) -> list[Config]:
    """Configurations of runs with the seeds `seed`, `seed` + 1, and so on.

    If there are several, a `run_dir` DIR becomes DIR__<seed>, as experiments name directories.

    Raises:
        ConfigError: there are too many or too large ones.
    """
    if not 1 <= num_seeds <= MOST_SEEDS:
        raise ConfigError(f"--num_seeds {num_seeds}: must be between 1 and {MOST_SEEDS:,}")
    if num_seeds == 1:
        return [config]
    seeds = range(config.seed, config.seed + num_seeds)
    base = config.run_dir
    return [config.replace(seed=seed, run_dir=None if base is None else f"{base}__{seed}") for seed in seeds]


def of_directories(config: Config, directories: Sequence[Path], with_flags: Callable[[Config], Config]) -> list[Config]:
    """Configurations of runs to continue: those of the first directory with the seed and `run_dir` of each.

    Args:
        config: of the first, with the changes that count for all.
        directories: of the runs.
        with_flags: a configuration with the changes that the command line asks for.

    Raises:
        ConfigError: one of the others holds no configuration, or one that these changes leave different.
    """
    first, *others = [load_config(directory / "config.json") for directory in directories]
    own = {"seed": config.seed, "run_dir": config.run_dir}
    for directory, other in zip(directories[1:], others, strict=True):
        if other.replace(seed=first.seed, run_dir=first.run_dir) != first:
            _require_same(config, directories[0], with_flags(other).replace(**own), directory)
    return [config, *(config.replace(seed=other.seed, run_dir=other.run_dir) for other in others)]


def _require_same(config: Config, directory: Path, other: Config, other_directory: Path) -> None:
    names = [name for name, value in vars(config).items() if value != getattr(other, name)]
    if not names:
        return
    here, there = (" and ".join(f"--{name} {brief(getattr(of, name))}" for name in names) for of in (config, other))
    remedy = "resume them one by one"
    if RESUMABLE_FIELDS.issuperset(names):
        remedy += f", or give {' and '.join(f'--{name}' for name in names)} for all of them"
    raise ConfigError(
        f"--resume: runs side by side differ only in their seeds, but {directory} has {here}, and {other_directory} "
        f"has {there}; {remedy}"
    )


def resumed_directories(resume: Resume, count: int) -> list[str | Path | None]:
    """What `own_directory` is to resume for each of `count` runs.

    Raises:
        ConfigError: it names another number of directories.
    """
    if resume is None or str(resume) == AUTO:
        return [AUTO if resume else None] * count
    directories: list[str | Path | None] = [resume] if isinstance(resume, str | Path) else list(resume)
    if len(directories) != count:
        raise ConfigError(f"--resume names {len(directories)} directories for {count} runs; name one for each")
    return directories


def require_seeds(configs: Sequence[Config], directories: Sequence[str | Path | None], env: Any) -> None:
    """Checks that runs may train side by side; a single one always may.

    Args:
        configs: of the runs.
        directories: of the runs to continue, as `resumed_directories` gives them.
        env: an environment object to use instead of their `env_id`; see `make_env`.

    Raises:
        ConfigError: why they can't.
    """
    first, *others = configs
    if not others:
        return
    for other in others:
        for name, value in vars(other).items():
            if value != getattr(first, name) and name not in ("seed", "run_dir"):
                raise ConfigError(
                    f"--{name} {brief(value)}: runs side by side differ only in their seeds, and another one has "
                    f"{brief(getattr(first, name))}; train them one by one"
                )
    for name, reason in (("debug", "checks the programs of one run"), ("track", "follows one run a process")):
        if getattr(first, name):
            raise ConfigError(f"--{name} {reason}; leave it out, or train the {len(configs)} seeds one by one")
    _require_distinct("seed", [config.seed for config in configs])
    named = [
        config.run_dir if directory in (None, AUTO) else directory
        for config, directory in zip(configs, directories, strict=True)
    ]
    _require_distinct("run_dir", [Path(name).resolve() for name in named if name is not None])
    on_host = env.on_host if isinstance(env, Environment) else not isinstance(find_env(first, env), tuple)
    if on_host:
        raise ConfigError(
            f"--num_seeds {len(configs)}: {first.env_id} is stepped on the host, and only tasks on the device train "
            f"side by side; {_remedy(first.env_id)}"
        )


def _require_distinct(name: str, values: Sequence[Any]) -> None:
    for value, count in Counter(values).items():
        if count > 1:
            raise ConfigError(f"--{name} {value}: {count} runs side by side have it; give each its own")


def _remedy(env_id: str) -> str:
    with suppress(ConfigError):
        return f"add --backend device, where it is {on_backend(env_id, 'device')}"
    return "train the seeds one by one"
