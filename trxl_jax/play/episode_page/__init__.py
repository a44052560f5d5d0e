"""Writes a played episode as one HTML file: observations, actions, values, attention or state over time.

The file works offline: it loads nothing from the network.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from trxl_jax.play.episode_page.packing import pack_array, pack_attention, pack_frames
from trxl_jax.play.episode_page.tasks import branches, frames_are_x_first, observation_names
from trxl_jax.play.obs_pictures import others_of, pictures_of, side_by_side
from trxl_jax.play.record import EpisodeRecord, NumberActions

__all__ = ["write_page"]

# Concatenated into one module script in this order; the last file starts the page.
_SCRIPTS = ("data.js", "frames.js", "heatmap.js", "plots.js", "panels.js", "player.js", "input.js")
_MARK = re.compile(r"\s*(?://|<!--) #(if|else|end)\b *(\w*)")


def write_page(
    path: Path,
    record: EpisodeRecord,
    *,
    model: str = "",
    command: str = "",
    title: str | None = None,
    details: Mapping[str, str] | None = None,
    previous: str | None = None,
    following: str | None = None,
) -> None:
    """Writes a self-contained HTML file. The output is deterministic: equal records give equal bytes.

    Args:
        path: file to write; an existing file is replaced.
        record: the record of the episode.
        model: one line that names the agent, such as its run and checkpoint.
        command: command line that replays the episode; if empty, the page doesn't show one.
        title: title of the browser tab; None: task, episode and seed.
        details: further lines about the agent, by label.
        previous: file name of the page of the episode before, in the same directory.
        following: file name of the page of the next episode.

    Raises:
        OSError: the file can't be written.
    """
    texts = {"model": model, "command": command, "details": dict(details or {})}
    page_data = _record(record) | texts | {"previous": previous, "following": following}
    shown = _shown_blocks(record)
    style = _source("page.css", shown)
    script = "\n".join(_source(name, shown) for name in _SCRIPTS)
    values = {
        "policy": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "title": html.escape(title or f"{record.env_id}, episode {record.episode}, seed {record.seed}"),
        "style": style,
        "script": script,
        # Escaping `<` is enough: nothing else can end a script element or start a comment in it.
        "record": json.dumps(page_data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    # A single pass, so that placeholders inside inserted text are not replaced.
    page = re.sub(r"\{\{(\w+)\}\}", lambda name: values[name[1]], _source("page.html", shown))
    Path(path).write_text(page, "utf-8", newline="\n")


def _shown_blocks(record: EpisodeRecord) -> set[str]:
    """The names of the blocks that the record's page has, see `_source`."""
    shown = {"state"} if record.state_norm is not None else set()
    shown |= {"numbers"} if record.numbers is not None else set()
    if record.attention is not None:
        sums = record.attention.sum(axis=-1)
        # What is missing is the weight of the step itself; rows without any weight are of steps that see nothing else.
        shown |= {"attention", "self"} if ((sums > 0) & (sums < 0.999)).any() else {"attention"}
    return shown


def _source(name: str, shown: set[str]) -> str:
    """A source file with those of its blocks that are shown.

    Lines that are comments mark blocks: `#if NAME` begins one, `#else` what stands there without it, `#end` ends both.
    """
    kept, lines = [True], []
    for line in files(__package__).joinpath(name).read_text("utf-8").splitlines(keepends=True):
        mark = _MARK.match(line)
        if mark is None:
            lines += [line] * all(kept)
        elif mark[1] == "if":
            kept.append(mark[2] in shown)
        elif mark[1] == "else":
            kept[-1] = not kept[-1]
        else:
            kept.pop()
    return "".join(lines)


def _record(record: EpisodeRecord) -> dict[str, Any]:
    """The data of the page as a JSON-serialisable dict; `data.js` reads it."""
    attention, state_norm = record.attention, record.state_norm
    return {
        "env_id": record.env_id,
        "seed": int(record.seed),
        "episode": int(record.episode),
        "results": {name: _finite(value) for name, value in _shown_results(record.results).items()},
        "steps": record.num_steps,
        **({} if attention is None else {"layers": attention.shape[1], "heads": attention.shape[2]}),
        "branches": [
            {"name": name, "choices": names}
            for name, names in branches(record.env_id, record.action_nvec, record.action_names, record.branch_names)
        ],
        "actions": pack_array(record.actions, "i4"),
        "probabilities": pack_array(record.probabilities, "f4"),
        **({} if record.numbers is None else {"numbers": _numbers(record.numbers)}),
        "entropies": pack_array(record.entropies, "f4"),
        "values": pack_array(record.values, "f4"),
        "rewards": pack_array(record.rewards, "f4"),
        **({} if attention is None else {"attention": pack_attention(attention)}),
        **({} if state_norm is None else {"state_norms": pack_array(state_norm, "f4")}),
        "pictures": None if record.pictures is None else pack_frames(record.pictures),
        **_observations(record),
    }


def _numbers(numbers: NumberActions) -> dict[str, Any]:
    def bounds(values: Sequence[float]) -> list[float | None]:
        return [value if math.isfinite(value) else None for value in values]

    arrays = {name: pack_array(getattr(numbers, name), "f4") for name in ("taken", "mean", "std")}
    return {"names": numbers.names, "low": bounds(numbers.low), "high": bounds(numbers.high), **arrays}


def _shown_results(results: Mapping[str, float]) -> dict[str, float]:
    """Statistics to show: return r and length l, then those of the task unless they repeat these."""
    common = {name: value for name, value in results.items() if name in ("r", "l")}
    aliases = {"return": common.get("r"), "reward": common.get("r"), "length": common.get("l")}
    of_task = {name: value for name, value in results.items() if name not in ("r", "l")}
    return common | {name: value for name, value in of_task.items() if aliases.get(name) != value}


def _observations(record: EpisodeRecord) -> dict[str, Any]:
    """Observations as `frames` (pictures side by side) and `vectors` (everything else, flattened), or null."""
    space = record.observation_space
    pictures = pictures_of(space, record.observations, x_first=frames_are_x_first(record.env_id))
    others = others_of(space, record.observations)
    names = [
        f"{array} {name}".strip()
        for array, values in others.items()
        for name in (observation_names(record.env_id, values.shape[1]) if values.shape[1] > 1 or not array else [""])
    ]
    vectors = np.concatenate(list(others.values()), axis=1) if others else None
    return {
        "frames": pack_frames(side_by_side(pictures)) if pictures else None,
        "vectors": None if vectors is None else {"names": names, "numbers": pack_array(vectors, "f4")},
    }


def _finite(value: float) -> float | str:
    """Converts numbers that are not finite to strings, since JSON has no NaN."""
    return float(value) if math.isfinite(value) else str(float(value))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
