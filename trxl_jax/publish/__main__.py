"""Publishes a trained agent: `python -m trxl_jax.publish RUN --repo USER/NAME`."""

import dataclasses
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from trxl_jax.cli import command_line, parse_flags, run_command
from trxl_jax.errors import ConfigError

_SEEDS = 2**31
DESCRIPTION = """Evaluates a trained agent, writes a folder with its parameters, a model card, a learning curve and a
video, and uploads it to the Hugging Face hub if a repository is given.

{prog} RUN --repo USER/NAME"""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of this command."""

    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN")] = None
    """a run's directory, or a checkpoint in it"""
    repo: str = ""
    """repository on the hub, USER/NAME, to which the folder is uploaded (needs the extra `hub`); none: only the folder
    is written"""
    private: bool = False
    """a new repository is private"""
    out: Path | None = None
    """the folder; None: published/<name of the run>"""
    best: bool = False
    """publish the run's best checkpoint (of a run with --keep_best) instead of its newest"""
    episodes: int = 100
    """episodes of the evaluation"""
    seed: int | None = None
    """seed of the evaluation, below 2^31, other than the run's, with which --eval_every played its episodes; None: 1,
    or 2 if the run's is 1"""
    deterministic: bool = False
    """take the most probable actions instead of sampling"""
    video: Literal["gif", "mp4", "none"] = "gif"
    """format of the video of an episode"""
    allow_import: bool = False
    """import the module that the run's env_id names (module:id); only if you trust the run"""


def parse(flags: Sequence[str]) -> Arguments:
    """Reads and checks the flags.

    Raises:
        UserError: an unknown flag or a value that is not allowed.
    """
    prog = command_line("publish")
    given = parse_flags(Arguments, Arguments(), flags, prog=prog, description=DESCRIPTION.format(prog=prog))
    if given.run is None:
        raise ConfigError("give the directory of a run")
    if given.run.is_file():
        raise ConfigError(f"{given.run}: a file of the original is published already; give the directory of a run")
    if given.repo and given.repo.count("/") != 1:
        raise ConfigError(f"--repo {given.repo}: must be USER/NAME")
    if given.episodes < 1:
        raise ConfigError(f"--episodes {given.episodes}: must be at least 1")
    if given.seed is not None and not 0 <= given.seed < _SEEDS:
        raise ConfigError(f"--seed {given.seed}: must be from 0 to 2^31 - 1")
    return given


def main(flags: Sequence[str]) -> int:
    """Writes the folder, uploads it if asked to, and returns 0."""
    given = parse(flags)
    # Imported here because JAX takes seconds to import.
    from trxl_jax.hub import upload
    from trxl_jax.loading import find, load
    from trxl_jax.publish import folder as own

    assert given.run is not None
    source = find(given.run / "best" if given.best else given.run)
    if not source.name.isdecimal():
        raise ConfigError(f"{source}: it is no checkpoint; give the directory of a run, or a numbered checkpoint in it")
    run_dir, iteration = source.parent.parent, int(source.name)
    out = given.out or Path("published", run_dir.resolve().name)
    if out.resolve() == run_dir.resolve():
        raise ConfigError(f"--out {out}: it is the run itself; give another folder")
    policy = load(source, allow_import=given.allow_import)
    seed = _evaluation_seed(given.seed, policy.config.seed)
    own.write_agent(out, policy, iteration)
    print(f"playing {given.episodes} episodes", flush=True)
    results, episodes = own.evaluated(
        policy, given.episodes, seed, deterministic=given.deterministic, allow_import=given.allow_import
    )
    own.write_results(out, results, episodes)
    curve = own.write_curve(out, run_dir)
    video = None
    if given.video != "none":
        video = own.write_video(out, policy, seed, deterministic=given.deterministic, video_format=given.video)
        if video is None:
            print("no video: the task draws no pictures")
    steps = iteration * policy.config.batch_size
    own.write_card(out, policy.config, steps, results, given.repo or str(out), curve, video)
    interval = "" if math.isnan(results.interval) else f" ± {results.interval:.2g}"
    print(f"mean return {results.mean:.4g}{interval}; wrote {out}")
    if given.repo:
        address = upload(out, given.repo, private=given.private, delete=(*own.MAY_LACK, "checkpoints/*"))
        print(f"uploaded to {address}")
    else:
        allow = " --allow_import" if policy.config.names_module else ""
        again = f"{command_line('publish')} {shlex.join(flags)} --repo USER/NAME"
        print(f"play it: {command_line('enjoy')} {shlex.quote(str(out))}{allow}; upload it: {again}")
    return 0


def _evaluation_seed(given: int | None, trained: int) -> int:
    """Seed of episodes that the run never played: those of its own seed may have chosen its best checkpoint.

    Raises:
        ConfigError: the given one is the run's.
    """
    own = trained % _SEEDS
    if given == own:
        raise ConfigError(f"--seed {given}: the run played these episodes itself (--eval_every); give another seed")
    return (2 if own == 1 else 1) if given is None else given


def cli() -> int:
    """Runs the command with the process's own flags."""
    return run_command(main, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(cli())
