"""An episode as one HTML file: what the agent saw, did and attended to, without any network."""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from trxl_jax.play.episode_page.packing import pack_array, pack_attention, pack_frames
from trxl_jax.play.episode_page.tasks import branches, frames_are_x_first, observation_names
from trxl_jax.play.trace import EpisodeTrace

__all__ = ["write_page"]

# One module script, in this order; the last one starts the page.
_SCRIPTS = ("data.js", "frames.js", "heatmap.js", "plots.js", "panels.js", "player.js", "input.js")


def write_page(
    path: Path,
    trace: EpisodeTrace,
    *,
    model: str = "",
    command: str = "",
    title: str | None = None,
    details: Mapping[str, str] | None = None,
) -> None:
    """Writes one self-contained file; the same trace gives the same bytes.

    Args:
        path: where to; a file that is there is replaced.
        trace: the episode.
        model: one line that names the agent, such as its run and checkpoint.
        command: what to type to play this episode again; without it the page has no such part.
        title: of the browser's tab; None: task, episode and seed.
        details: further lines about the agent, by name.

    Raises:
        OSError: the file can't be written.
    """
    record = _record(trace) | {"model": model, "command": command, "details": dict(details or {})}
    sources = files(__package__)
    style = sources.joinpath("page.css").read_text("utf-8")
    script = "\n".join(sources.joinpath(name).read_text("utf-8") for name in _SCRIPTS)
    parts = {
        "policy": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "title": html.escape(title or f"{trace.env_id}, episode {trace.episode}, seed {trace.seed}"),
        "style": style,
        "script": script,
        # Inside a script element only `<` could end it, or start a comment.
        "record": json.dumps(record, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = sources.joinpath("page.html").read_text("utf-8")
    # One pass, so that nothing is replaced in what was put in.
    page = re.sub(r"\{\{(\w+)\}\}", lambda name: parts[name[1]], page)
    Path(path).write_text(page, "utf-8", newline="\n")


def _record(trace: EpisodeTrace) -> dict[str, Any]:
    """What the page is told of a trace, as JSON."""
    _, layers, heads, _ = trace.attention.shape
    return {
        "env_id": trace.env_id,
        "seed": int(trace.seed),
        "episode": int(trace.episode),
        "results": {name: _finite(value) for name, value in _facts(trace.results).items()},
        "steps": trace.num_steps,
        "layers": layers,
        "heads": heads,
        "branches": [{"name": name, "choices": names} for name, names in branches(trace.env_id, trace.action_nvec)],
        "actions": pack_array(trace.actions, "i4"),
        "probabilities": pack_array(trace.probabilities, "f4"),
        "entropies": pack_array(trace.entropies, "f4"),
        "values": pack_array(trace.values, "f4"),
        "rewards": pack_array(trace.rewards, "f4"),
        "attention": pack_attention(trace.attention),
        "pictures": None if trace.pictures is None else pack_frames(trace.pictures),
        **_observations(trace),
    }


def _facts(results: Mapping[str, float]) -> dict[str, float]:
    """Return and length first, then what the task adds to them; the seconds it took tell nothing of the episode."""
    ours = {name: value for name, value in results.items() if name in ("r", "l")}
    same = {"return": ours.get("r"), "reward": ours.get("r"), "length": ours.get("l")}
    own = {name: value for name, value in results.items() if name not in ("r", "l", "t")}
    return ours | {name: value for name, value in own.items() if same.get(name) != value}


def _observations(trace: EpisodeTrace) -> dict[str, Any]:
    """Either `frames` or `vectors`: RGB pictures are frames, whatever else is a vector of numbers."""
    seen = trace.observations
    if seen.dtype == np.uint8 and seen.ndim == 4 and seen.shape[-1] == 3:
        upright = seen.swapaxes(1, 2) if frames_are_x_first(trace.env_id) else seen
        return {"frames": pack_frames(upright), "vectors": None}
    seen = seen.reshape(trace.num_steps, -1)
    names = observation_names(trace.env_id, seen.shape[1])
    return {"frames": None, "vectors": {"names": names, "numbers": pack_array(seen, "f4")}}


def _finite(value: float) -> float | str:
    """JSON knows no NaN."""
    return float(value) if math.isfinite(value) else str(float(value))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
