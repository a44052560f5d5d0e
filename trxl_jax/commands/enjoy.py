"""Plays episodes with a trained agent and shows them: `python enjoy.py RUN [--flags]`."""

import dataclasses
import json
import math
import os
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from trxl_jax.cli import command_line, parse_flags, run_command
from trxl_jax.config import JsonObject
from trxl_jax.errors import ConfigError, disk_errors, printable
from trxl_jax.signals import interrupts_raise

DESCRIPTION = """Plays episodes with a trained agent and prints their returns.

{prog} RUN --render video html"""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Command-line flags of `enjoy.py`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[RUN]")] = ""
    """a run directory, a checkpoint in it, or a checkpoint of the original in PyTorch (.nn or .cleanrl_model)"""
    name: str = ""
    """the same as RUN"""
    best: bool = False
    """play the run's best checkpoint (of a run with --keep_best) instead of its newest"""
    hub: bool = False
    """RUN is a file on the Hugging Face hub (needs the extra `hub`); without RUN, the agent that `publish` uploaded"""
    repo: str = "LilHairdy/cleanrl_memory_gym"
    """repository on the hub, or a local folder in its place"""
    episodes: int = 5
    """number of episodes to play"""
    seed: int = 1
    """seed of episodes and actions, below 2^31; training uses other seeds, so the agent has not seen these episodes"""
    deterministic: bool = False
    """take the most probable actions instead of sampling"""
    max_steps: int | None = None
    """stop longer episodes after this many steps (endless tasks); None: play each to its end"""
    backend: Literal["host", "device"] | None = None
    """where to run a task that exists for both (Memory Gym, MiniGrid-Memory, POPGym, T-Maze, Proof of Memory); None:
    where it was trained"""
    env_options: JsonObject = dataclasses.field(default_factory=dict)
    """JSON object: options of the task, in addition to those used in training"""
    allow_import: bool = False
    """import the module that the run's env_id names (module:id); only if you trust the run"""
    render: tuple[Literal["human", "video", "html", "none"], ...] = ("none",)
    """one or more of: a window (needs a display), a video or an HTML page (values, attention or state) per episode"""
    video_format: Literal["mp4", "gif"] = "mp4"
    """video format"""
    out: Path | None = None
    """directory for videos and pages; None: episodes/<path of the checkpoint>"""
    json: bool = False
    """print the results as one JSON object"""


def parse(flags: Sequence[str]) -> Arguments:
    """Parses and checks the flags.

    Raises:
        UserError: an unknown flag or an invalid value.
    """
    prog = command_line("enjoy")
    given = parse_flags(Arguments, Arguments(), flags, prog=prog, description=DESCRIPTION.format(prog=prog))
    if (given.run and given.name) or not (given.run or given.name or given.hub):
        raise ConfigError("give one run directory (RUN, or --name RUN), or with --hub a file on the hub")
    if given.hub and not (given.run or given.name) and given.repo == Arguments.repo:
        raise ConfigError(f"--hub: give a file of {given.repo}, or another --repo")
    if given.best and given.hub:
        raise ConfigError("--best: files on the hub have no best checkpoint; leave it out")
    if given.episodes < 1:
        raise ConfigError(f"--episodes {given.episodes}: must be at least 1")
    if given.max_steps is not None and given.max_steps < 1:
        raise ConfigError(f"--max_steps {given.max_steps}: must be at least 1")
    if not 0 <= given.seed < 2**31:
        raise ConfigError(f"--seed {given.seed}: must be from 0 to 2^31 - 1")
    return dataclasses.replace(given, run=given.run or given.name)


def main(flags: Sequence[str]) -> int:
    """Plays episodes and prints their results; returns 0."""
    driver = os.environ.get("SDL_VIDEODRIVER")  # read first: environments set it

    from trxl_jax.envs.registry import move_to_backend, require_no_import
    from trxl_jax.hub import download
    from trxl_jax.loading import find, load
    from trxl_jax.play.frame_layout import require_pictures
    from trxl_jax.play.show import show_episodes
    from trxl_jax.play.single_env import make_single_env  # imported here because JAX takes seconds to import

    given = parse(flags)
    if given.hub:
        source, policy = (
            Path(given.repo, given.run),
            load(download(given.repo, given.run), allow_import=given.allow_import),
        )
    else:
        source = find(Path(given.run, "best") if given.best else Path(given.run))
        policy = load(source, allow_import=given.allow_import)
    require_no_import(policy.config, allow_import=given.allow_import)
    config = policy.config.for_evaluation(1, given.seed)
    config = move_to_backend(config, given.backend) if given.backend else config
    config = config.replace(env_options=config.env_options | given.env_options)
    render = set(given.render) - {"none"}
    task = make_single_env(config, pictures=bool(render))
    if render & {"human", "video"}:
        require_pictures(task, f"--render {' '.join(sorted(render))}")
    out = given.out or _directory_for(source)
    results, files = [], []
    with interrupts_raise(), disk_errors(out, "--out"):
        if render & {"video", "html"}:
            out.mkdir(parents=True, exist_ok=True)
        shown = show_episodes(
            policy,
            task,
            given.episodes,
            out,
            render=render,
            video_format=given.video_format,
            deterministic=given.deterministic,
            max_steps=given.max_steps,
            driver=driver,
            model=str(source),
            command=f"{command_line('enjoy')} {shlex.join(flags)}",
        )
        for episode in shown:
            results.append(_statistics(episode.result))
            files += [str(path) for path in episode.files]
            if not given.json:
                print(printable(f"episode {len(results) - 1}: {_line(results[-1])}"), flush=True)
                for path in episode.files:
                    print(printable(f"  wrote {path}"), flush=True)
    summary = _summary(results)
    if given.json:
        print(json.dumps({"episodes": results, **summary, "files": files}))
    elif results:
        mean, spread = summary["mean_return"], summary["std_return"]
        print(f"{len(results)} episodes: mean return {mean:.4g}, standard deviation {spread:.4g}")
    return 0


def _directory_for(source: Path) -> Path:
    """`episodes/` with the path of an agent's file below it, so that no two agents share a directory."""
    path = Path(os.path.relpath(source))
    if ".." in path.parts:
        path = path.resolve()
    return Path("episodes", *[part for part in path.parts if part != path.anchor])


def _statistics(result: dict[str, float]) -> dict[str, float]:
    """An episode's statistics as printed: return, length and those of the task."""
    known = ("r", "l", "return", "length")
    # NaN (a fraction of zero items) can't be written as JSON.
    own = {name: value for name, value in result.items() if name not in known and math.isfinite(value)}
    return {"return": result["r"], "length": int(result["l"]), **own}


def _line(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _summary(results: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """Mean and population standard deviation of the returns; None if no episode was played."""
    returns = [result["return"] for result in results]
    if not returns:
        return {"mean_return": None, "std_return": None}
    return {"mean_return": statistics.fmean(returns), "std_return": statistics.pstdev(returns)}


def cli() -> int:
    """Entry point: runs the command with the process's arguments and returns the exit status."""
    return run_command(main, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(cli())
