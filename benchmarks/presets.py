"""Measures every preset, on the host and on the device, and the original next to it.

    python benchmarks/presets.py [PRESET ...] [--rounds 2] [--iterations K] [--out benchmarks/presets]
        [--original DIR --original_python PYTHON --original_rounds 1 --original_minibatches K]

A preset has a row for its task on the host and, if there is one, another for its task on the device ("-device"); both
are compared with the same runs of the original. DIR is a checkout of CleanRL, PYTHON an interpreter whose environment
can run its `ppo_trxl.py`. Programs take turns: in each round first ours, on the host and on the device, then the
original, each in a process of its own. The first round of ours compiles everything; in the end one more process
of each kind compiles with the cache that they filled. Figures are medians over rounds; a row that is measured replaces
that of an earlier call. Writes OUT.json and OUT.md.

- *steps/s* are those of whole iterations after compiling, ours as `throughput.py` measures them, as many as make up
  16,384 steps unless K says otherwise. The original prints a line an iteration; with more than one, the time between
  lines counts, otherwise the speed that it prints.
- With --original_minibatches, the original ends after its first rollout and K + 1 minibatches (`original_part.py`); its
  speed is that rollout and all minibatches at the median time of the K. Such figures are marked with "~"; the peak of
  memory is that of the part.
- *floor* is that of `floors.py`, in steps per second.

The original takes no `env_kwargs` and has no other cores; presets with some are measured without it.
"""

import argparse
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from names import check_names

from trxl_jax.cli import run_command
from trxl_jax.config import Config
from trxl_jax.envs.registry import move_to_backend
from trxl_jax.errors import ConfigError, UserError
from trxl_jax.files import write_text_atomically
from trxl_jax.presets import PRESETS

DEVICE = "-device"
_STEPS = 16_384  # of a process, at least one iteration
_HERE = Path(__file__).parent
_OWN_FIELDS = ("env_id", "num_envs", "num_steps", "gamma", "gae_lambda", "num_minibatches", "update_epochs",
               "clip_coef", "vf_coef", "max_grad_norm", "init_lr", "final_lr", "anneal_steps", "init_ent_coef",
               "final_ent_coef", "trxl_num_layers", "trxl_num_heads", "trxl_dim", "trxl_memory_length",
               "reconstruction_coef", "seed")  # fmt: skip
_COLUMNS = ("preset", "original, steps/s", "ours, steps/s", "ratio", "floor, steps/s", "rollout, s", "update, s",
            "compiling, s", "from the cache, s", "original, peak", "ours, peak")  # fmt: skip


class Original(NamedTuple):
    """How the original is started.

    Fields:
        directory: a checkout of CleanRL.
        python: an interpreter with its requirements.
        minibatches: how many of the first update are timed; None runs whole iterations.
    """

    directory: Path
    python: str
    minibatches: int | None = None

    @property
    def script(self) -> Path:
        """The program itself."""
        return self.directory / "cleanrl" / "ppo_trxl" / "ppo_trxl.py"


def rows() -> dict[str, Config]:
    """The configuration of each row: all presets, and all that have a task on the device."""
    found = dict(PRESETS)
    for name, config in PRESETS.items():
        try:
            found[name + DEVICE] = move_to_backend(config, "device")
        except ConfigError:  # its task exists on the host only
            continue
    return found


def measure_ours(name: str, iterations: int, cache: Path) -> dict[str, float]:
    """Figures of a row in a process of its own; without iterations only the time of compiling."""
    flags = [name.removesuffix(DEVICE), *(["--backend", "device"] if name.endswith(DEVICE) else [])]
    command = [sys.executable, str(_HERE / "throughput.py"), *flags, "--iterations", str(iterations), "--json"]
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise UserError(f"{name}: {ran.stderr.strip()[-300:]}")
    figures = json.loads(ran.stdout.splitlines()[-1])
    compiling = {"compile_seconds": figures["compile_seconds"]["rollout and update"]}
    if not iterations:
        return compiling
    return compiling | {
        "steps_per_second": figures["steps_per_second"],
        "rollout_seconds": figures["rollout_seconds"],
        "update_seconds": figures["update_seconds"],
        "peak_bytes": figures["peak_rss_bytes"],
    }


def measure_original(config: Config, iterations: int, original: Original) -> dict[str, float]:
    """Steps per second and peak memory of the original with the same settings."""
    flags = [f"--{name}={getattr(config, name)}" for name in _OWN_FIELDS]
    encoding = config.trxl_positional_encoding
    flags += [f"--trxl_positional_encoding={'' if encoding == 'none' else encoding}"]
    flags += ["--norm_adv" if config.norm_adv else "--no-norm_adv", "--no-cuda"]
    flags += [f"--total_timesteps={iterations * config.batch_size}"]
    if original.minibatches is None:
        output, times, peak_bytes = _run_original([original.python, str(original.script), *flags])
        printed = [re.match(r"\s*\d+ SPS=\s*(\d+)", line) for line in output]
        speeds = [(int(found[1]), when) for found, when in zip(printed, times, strict=True) if found]
        if not speeds:
            raise UserError(f"--original: no speed printed: {''.join(output[-3:]).strip()[-300:]}")
        between = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(speeds)]
        speed = config.batch_size / statistics.median(between) if between else speeds[0][0]
        return {"steps_per_second": speed, "peak_bytes": peak_bytes}
    part = [original.python, str(_HERE / "original_part.py"), str(original.minibatches), str(original.script), *flags]
    output, _, peak_bytes = _run_original(part)
    seconds = json.loads(output[-1])
    updating = config.update_epochs * config.num_minibatches * seconds["minibatch_seconds"]
    speed = config.batch_size / (seconds["rollout_seconds"] + updating)
    return {"steps_per_second": speed, "peak_bytes": peak_bytes, "minibatches": original.minibatches, **seconds}


def _run_original(command: Sequence[str]) -> tuple[list[str], list[float], int]:
    """Lines that the command printed, the time of each and its peak memory in bytes."""
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines, times = [], []
        for line in process.stdout:
            lines.append(line)
            times.append(time.perf_counter())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not lines:
        raise UserError(f"--original: {' '.join(command[:4])} failed: {''.join(lines[-3:]).strip()[-300:]}")
    return lines, times, usage.ru_maxrss * 1024


def measure(
    preset: str, rounds: int, iterations: int | None, original: Original | None, original_rounds: int
) -> dict[str, dict[str, Any]]:
    """The figures of the rows of a preset."""
    iterations = iterations or max(1, _STEPS // rows()[preset].batch_size)
    names = [name for name in (preset, preset + DEVICE) if name in rows()]
    ours: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    theirs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as cache:
        for i in range(rounds):
            for name in names:
                ours[name].append(measure_ours(name, iterations, Path(cache) / name))
                print(f"{name}, round {i + 1}: {ours[name][-1]['steps_per_second']:,.0f} steps/s", flush=True)
            if original is not None and i < original_rounds and not rows()[preset].env_kwargs:
                theirs.append(measure_original(rows()[preset], iterations, original))
                print(f"{preset}, round {i + 1}, original: {theirs[-1]['steps_per_second']:,.0f} steps/s", flush=True)
        cached = {name: measure_ours(name, 0, Path(cache) / name)["compile_seconds"] for name in names}
    return {name: _row(name, ours[name], theirs, iterations, cached[name]) for name in names}


def _row(
    name: str,
    ours: Sequence[dict[str, float]],
    theirs: Sequence[dict[str, float]],
    iterations: int,
    cached_compile_seconds: float,
) -> dict[str, Any]:
    row: dict[str, Any] = {"rounds": len(ours), "iterations": iterations, "ours": _medians(ours)}
    row["ours"]["compile_seconds"] = ours[0]["compile_seconds"]
    row["ours"]["cached_compile_seconds"] = cached_compile_seconds
    if theirs:
        row["original"] = _medians(theirs) | {"rounds": len(theirs)}
        row["ratio"] = row["ours"]["steps_per_second"] / row["original"]["steps_per_second"]
    floor = _floor(name)
    if floor < row["ours"]["steps_per_second"]:
        print(f"{name}: its lower bound was measured while others used the machine; run again", file=sys.stderr)
    return row | {"floor": floor, "date": time.strftime("%Y-%m-%d"), "machine": machine()}


def table(measured: dict[str, Any]) -> str:
    """The rows that were measured as a Markdown table, in the order of the presets."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for name in rows():
        if name not in measured:
            continue
        row = measured[name]
        ours, theirs = row.get("ours", {}), row.get("original", {})
        cells = (
            _original_speed(theirs),
            _number(ours.get("steps_per_second")),
            f"{row['ratio']:.1f}x" if "ratio" in row else "",
            _number(row.get("floor")),
            *(_number(ours.get(key), 2) for key in ("rollout_seconds", "update_seconds")),
            *(_number(ours.get(key)) for key in ("compile_seconds", "cached_compile_seconds")),
            *(f"{side['peak_bytes'] / 1e9:.2f} GB" if side else "" for side in (theirs, ours)),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def summary(measured: dict[str, Any]) -> str:
    """A shorter Markdown table, one line a preset, for the README."""
    columns = ("preset", "original", "host", "", "device", "", "peak memory: original", "host")
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name in PRESETS:
        if name not in measured:
            continue
        host, device = measured[name], measured.get(name + DEVICE, {})
        original = host.get("original", {})
        cells = (
            _original_speed(original),
            *(
                cell
                for row in (host, device)
                for cell in (
                    _number(row.get("ours", {}).get("steps_per_second")),
                    f"{row['ratio']:.1f}x" if "ratio" in row else "",
                )
            ),
            *(f"{side['peak_bytes'] / 1e9:.2f} GB" if side else "" for side in (original, host.get("ours", {}))),
        )
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _medians(figures: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {name: statistics.median(each[name] for each in figures) for name in figures[0]}


def _original_speed(figures: dict[str, Any]) -> str:
    mark = "~" if "minibatches" in figures else ""
    return mark + _number(figures.get("steps_per_second"))


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _floor(name: str) -> float:
    """Steps per second by `floors.py`, in a process of its own: it measures rates."""
    command = [sys.executable, str(_HERE / "floors.py"), name, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(ran.stdout.splitlines()[-1])["steps_per_second"])


def machine() -> str:
    """Cores and processor."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return f"{len(os.sched_getaffinity(0))} cores, {model.partition(':')[2].strip() or platform.machine()}"


def main(flags: Sequence[str]) -> int:
    """Measures rows and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET", help="default: all")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each kind (%(default)s)")
    parser.add_argument("--iterations", type=int, help="timed iterations of each process")
    parser.add_argument("--out", type=Path, default=_HERE / "presets", help="files without suffix (%(default)s)")
    parser.add_argument("--original", type=Path, metavar="DIR", help="a checkout of CleanRL")
    parser.add_argument("--original_python", default=sys.executable, metavar="PYTHON", help="runs the original")
    parser.add_argument("--original_rounds", type=int, default=1, help="rounds with the original (%(default)s)")
    parser.add_argument("--original_minibatches", type=int, metavar="K", help="a part of the original's iteration")
    given = parser.parse_args(flags)
    check_names("preset", given.presets, PRESETS)
    original = None
    if given.original:
        original = Original(given.original.absolute(), given.original_python, given.original_minibatches)
    path = given.out.with_suffix(".json")
    measured = json.loads(path.read_text()) if path.exists() else {}
    for preset in given.presets or PRESETS:
        measured |= measure(preset, given.rounds, given.iterations, original, given.original_rounds)
        write_text_atomically(path, json.dumps(measured, indent=1) + "\n")
        write_text_atomically(given.out.with_suffix(".md"), table(measured))
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
