"""Writes an agent's folder: what `load` needs, and what a reader wants to see first."""

import json
import shutil
from pathlib import Path

import numpy as np

from trxl_jax.config import Config
from trxl_jax.envs.results import EpisodeResult
from trxl_jax.errors import ConfigError, disk_errors
from trxl_jax.files import write_text_atomically
from trxl_jax.play.evaluation import evaluate
from trxl_jax.play.frame_layout import frame
from trxl_jax.play.policy import Policy
from trxl_jax.play.show import show_episodes
from trxl_jax.play.single_env import make_single_env
from trxl_jax.publish.card import Results, text
from trxl_jax.runs import checkpoint
from trxl_jax.runs.rows import read_rows

CURVE, METRICS, CARD = "curve.png", "metrics.csv", "README.md"
MAY_LACK = (CURVE, METRICS, "episode.gif", "episode.mp4")
"""Files that some publications have and others lack."""

_METRICS = ("episode/r_mean", "episode/l_mean", "losses/entropy", "losses/explained_variance")


def write_agent(folder: Path, policy: Policy, iteration: int) -> None:
    """Writes settings and parameters, from which `load(folder)` makes the same policy; removes an earlier publication.

    Raises:
        UserError: they can't be written, or the folder holds a run or checkpoints of another kind.
    """
    checkpoints = folder / "checkpoints"
    config, spec = policy.config.replace(run_dir=None), policy.agent.spec
    with disk_errors(folder, "--out"):
        _require_no_run(folder)
        if checkpoints.exists():
            shutil.rmtree(checkpoints)
            for name in MAY_LACK:
                (folder / name).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(folder / "config.json", config.to_json())
        write_text_atomically(folder / "spec.json", json.dumps(spec.to_json(), indent=2) + "\n")
    # As the first of the states in a run's checkpoints, so that the same function reads the parameters.
    checkpoint.save(checkpoints, iteration, ({"params": policy.params},), {"published": True}, keep=None)


def _require_no_run(folder: Path) -> None:
    checkpoints = folder / "checkpoints"
    if not checkpoints.exists() and not (folder / "config.json").exists():
        return
    found = [path for path in checkpoints.iterdir() if path.is_dir()] if checkpoints.is_dir() else []
    if not found or not all(checkpoint.is_published(path) for path in found):
        raise ConfigError(f"--out {folder}: it holds a run, or an unfinished publication; give another folder")


def write_results(folder: Path, results: Results, episodes: list[EpisodeResult]) -> None:
    """Writes the results of all episodes as JSON."""
    values = {
        "mean_return": results.mean,
        "interval_95": None if np.isnan(results.interval) else results.interval,
        "seed": results.seed,
        "deterministic": results.deterministic,
        "episodes": episodes,
    }
    with disk_errors(folder, "--out"):
        write_text_atomically(folder / "evaluation.json", json.dumps(values) + "\n")


def evaluated(
    policy: Policy, episodes: int, seed: int, *, deterministic: bool, allow_import: bool
) -> tuple[Results, list[EpisodeResult]]:
    """Plays new episodes; returns how well the agent plays, and the result of each."""
    evaluation = evaluate(policy, episodes, seed=seed, deterministic=deterministic, allow_import=allow_import)
    returns = np.array([result["r"] for result in evaluation.episodes])
    return Results(returns, evaluation.means, seed, deterministic), evaluation.episodes


def write_curve(folder: Path, run: Path) -> Path | None:
    """Draws a run's learning curve and writes its numbers; returns the picture, or None if there are no metrics.

    Raises:
        ConfigError: a library is missing.
    """
    if not read_rows(run / "metrics.jsonl").rows:
        return None
    try:
        import matplotlib as mpl

        from trxl_jax.plot import curves, figure
    except ModuleNotFoundError as error:
        raise ConfigError(f"curves need {error.name}: pip install matplotlib pandas scipy seaborn") from None
    mpl.use("Agg")
    runs = curves.read_runs([run], ["env_id"])
    metrics = [name for name in _METRICS if name in runs and runs[name].notna().any()]
    if _METRICS[0] not in metrics:
        return None
    with disk_errors(folder, "--out"):
        curves.write_csv(folder / METRICS, runs, metrics)
        figure.save(figure.draw(runs, metrics[:1]), folder / CURVE)
    return folder / CURVE


def write_video(folder: Path, policy: Policy, seed: int, *, deterministic: bool, video_format: str) -> Path | None:
    """Films the first episode of an evaluation; returns None if the task draws no pictures."""
    config: Config = policy.config.for_evaluation(1, seed)
    task = make_single_env(config, pictures=True)
    task.reset(0)
    if frame(task.picture, task.pictures_of(task.obs)) is None:
        return None
    with disk_errors(folder, "--out"):
        shown = show_episodes(
            policy,
            task,
            1,
            folder,
            max_steps=config.eval_max_steps or None,
            render={"video"},
            video_format=video_format,
            deterministic=deterministic,
        )
        [episode] = shown
        return episode.files[0].replace(folder / f"episode.{video_format}")


def write_card(
    folder: Path, config: Config, global_step: int, results: Results, repo: str, curve: Path | None, video: Path | None
) -> None:
    """Writes the model card."""
    with disk_errors(folder, "--out"):
        write_text_atomically(folder / CARD, text(config, global_step, results, repo, curve, video))
