"""The model card: what was trained, how well it plays, and how to load it."""

import json
import math
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trxl_jax.config import Config


class Results(NamedTuple):
    """How well an agent plays.

    Fields:
        returns: f64[M], of the episodes of an evaluation.
        means: means of the task's own numbers over them.
        seed: of the evaluation.
        deterministic: whether the most probable actions were taken.
    """

    returns: np.ndarray
    means: dict[str, float]
    seed: int
    deterministic: bool

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def interval(self) -> float:
        """Half of the 95% interval of the mean, by the normal distribution; NaN for one episode."""
        count = len(self.returns)
        return float(1.96 * self.returns.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan


def text(config: Config, global_step: int, results: Results, repo: str, curve: Path | None, video: Path | None) -> str:
    """The card in Markdown, with the header that the hub reads.

    Args:
        config: the run's configuration.
        global_step: environment steps done.
        results: how well the agent plays.
        repo: the repository's name, or the folder's.
        curve: file of the learning curve in the folder, or None.
        video: file of a video in the folder, or None.
    """
    core = {"trxl": "Transformer-XL", "gtrxl": "GTrXL"}.get(config.core, config.core)
    # JSON is YAML.
    header = [f"{name}: {json.dumps(value)}" for name, value in _header(config, core, results).items()]
    lines = ["---", *header, "---", "", f"# {config.env_id}: PPO with {core} as memory", ""]
    lines += [f"Trained with trxl_jax for {global_step:,} environment steps, seed {config.seed}.", ""]
    lines += _evaluation(results)
    if curve:
        lines += [f"![Learning curve: mean return against environment steps]({curve.name})", ""]
    if video:
        lines += [f"{'!' * (video.suffix == '.gif')}[An episode]({video.name})", ""]
    return "\n".join([*lines, *_how_to_play(repo, config), *_settings(config)]) + "\n"


def _header(config: Config, core: str, results: Results) -> dict[str, Any]:
    task, score = config.env_id, _score(results).replace("±", "+/-")
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": task, "type": task},
        "metrics": [{"type": "mean_reward", "value": score, "name": "mean_reward"}],
    }
    return {
        "library_name": "trxl_jax",
        "tags": ["reinforcement-learning", "deep-reinforcement-learning", "memory", "jax", task],
        "model-index": [{"name": f"PPO, {core}", "results": [result]}],
    }


def _score(results: Results) -> str:
    return f"{results.mean:.3f}" + ("" if math.isnan(results.interval) else f" ± {results.interval:.3f}")


def _evaluation(results: Results) -> list[str]:
    names = {"l": "length"}
    rows = [("episodes", str(len(results.returns))), ("mean return, 95% interval", _score(results))]
    rows += [(f"mean {names.get(name, name)}", f"{x:.4g}") for name, x in results.means.items() if name != "r"]
    actions = "most probable actions" if results.deterministic else "sampled actions"
    note = (
        f"New episodes with {actions}, evaluation seed {results.seed}; the run played none of them, neither to train "
    )
    note += "nor to choose its best checkpoint."
    return ["| evaluation | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), "", note, ""]


def _how_to_play(repo: str, config: Config) -> list[str]:
    flag, argument = (" --allow_import", ", allow_import=True") if config.names_module else ("", "")
    return [
        "## Play it",
        "",
        "```bash",
        f"trxl-enjoy --hub --repo {shlex.quote(repo)} --render video html{flag}  # or: python enjoy.py --hub ...",
        "```",
        "",
        "```python",
        "from trxl_jax import evaluate, load",
        "from trxl_jax.hub import download",
        "",
        f"policy = load(download({json.dumps(repo, ensure_ascii=False)}){argument})",
        f"print(evaluate(policy, episodes=20{argument}).means)",
        "```",
        "",
    ]


def _settings(config: Config) -> list[str]:
    own = {name: value for name, value in vars(config).items() if value != getattr(Config(), name)}
    own.pop("run_dir", None)
    introduction = "All are in `config.json`; these differ from the defaults of `trxl-train`:"
    return ["## Settings", "", introduction, "", "```json", json.dumps(own, indent=1), "```"]
