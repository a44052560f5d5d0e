"""A day's measurements on a machine with a GPU or TPU, in one command.

    python benchmarks/accelerator.py --minutes 25 --out DIR [--train mystery-path-grid] [--checkpoint FILE ...] [--tiny]

In this order, as long as there is time: the device; the reference vectors there, at each precision; one rollout and
update of every preset, with tasks on the device and on the host; steps per second for numbers of environments, of
seeds and precisions, with and without CUDA graphs; floors; whether an interrupted run ends with the digits of a whole
one; and training in the rest of the time, from the checkpoint of an earlier call if there is one.

All results are in DIR/accelerator.json and DIR/accelerator.md as soon as they are known, so that an end at any moment
loses nothing. A step that fails is a row with its error. Training leaves metrics.csv, curves.png and the newest
checkpoint as checkpoint.tar.gz.00 and following, files of at most 15 MB, which --checkpoint takes. Nothing is
installed or downloaded; `accelerator.md` beside this file says what to bring to a machine without a network.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from run_in_parts import pack, unpack

from trxl_jax.cli import run_command
from trxl_jax.errors import UserError
from trxl_jax.files import write_text_atomically
from trxl_jax.presets import PRESETS

_HERE = Path(__file__).parent
_TRAIN = [sys.executable, "-m", "trxl_jax.commands.train"]
_SPEED_PRESETS = ("mystery-path-grid", "mortar-mayhem-grid")
_GRAPHS = "--xla_gpu_enable_command_buffer=+WHILE --xla_gpu_graph_min_graph_size=1"
_TINY = ["--num_envs", "2", "--num_steps", "16", "--num_minibatches", "2", "--update_epochs", "1",
         "--trxl_num_layers", "1", "--trxl_dim", "16", "--trxl_num_heads", "2", "--trxl_memory_length",
         "8"]  # fmt: skip


class Report:
    """Rows by section, written to two files after every change.

    Args:
        directory: where the files are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.sections: dict[str, list[dict[str, Any]]] = {}

    def add(self, section: str, row: dict[str, Any]) -> None:
        """Adds a row, and prints it."""
        self.sections.setdefault(section, []).append(row)
        print(f"{section}: {json.dumps(row)}", flush=True)
        write_text_atomically(self._directory / "accelerator.json", json.dumps(self.sections, indent=1) + "\n")
        write_text_atomically(self._directory / "accelerator.md", self.text())

    def text(self) -> str:
        """All sections as Markdown tables."""
        parts = []
        for section, rows in self.sections.items():
            names = list(dict.fromkeys(name for row in rows for name in row))
            lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
            lines += [f"| {' | '.join(_cell(row.get(name, '')) for name in names)} |" for row in rows]
            parts.append(f"## {section}\n\n" + "\n".join(lines) + "\n")
        return "\n".join(parts)


def _cell(value: Any) -> str:
    text = f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else str(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 1000:
        text = f"{value:,.0f}"
    return " ".join(text.split()).replace("|", "\\|")


# Steps that run in a process of their own (--step): the accelerator's memory is then free for the next one.


def step_device() -> dict[str, Any]:
    """What the machine has."""
    import jax

    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "memory, GB": round(stats.get("bytes_limit", 0) / 1e9, 1),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def step_golden(precision: str) -> dict[str, Any]:
    """Largest error of logits and values against the reference vectors, relative to the largest magnitude of each."""
    import jax
    import numpy as np

    from tests.support.golden import FILES, Golden

    worst = {"logits": 0.0, "value": 0.0}
    with jax.default_matmul_precision(precision):
        for path in FILES:
            for replayed in Golden(path).replay():
                output, data = replayed["output"], replayed["data"]
                for name, found in (("logits", output.policy.logits), ("value", output.value)):
                    ours, theirs = np.asarray(found, np.float64), np.asarray(data[name], np.float64)
                    error = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-8)
                    worst[name] = max(worst[name], float(error))
    return {"precision": precision, "files": len(FILES), **worst}


def step_speed(flags: Sequence[str], iterations: int) -> dict[str, Any]:
    """Steps per second of a whole iteration, of all seeds together, and memory."""
    import jax

    from trxl_jax import init_states, make_agent, make_env
    from trxl_jax.commands.train import parse
    from trxl_jax.ppo.train_step import compile_seeds_step, compile_train_step

    configs = parse(flags).configs
    env = make_env(configs[0])
    config = configs[0].fitted_to(env.spec.max_episode_steps)
    agent = make_agent(config, env.spec)
    init_keys, keys = zip(*(jax.random.split(jax.random.key(config.seed)) for config in configs), strict=True)
    states = [init_states(config, env, agent, key) for key in init_keys]
    started = time.perf_counter()
    if len(configs) == 1:
        one = compile_train_step(config, env, agent, states[0], keys[0])

        def advance(states: list[tuple[Any, Any]]) -> Any:
            return [one(*states[0], keys[0])[:2]]
    else:
        group = compile_seeds_step(config, env, agent, states, list(keys))

        def advance(states: list[tuple[Any, Any]]) -> Any:
            return [result[:2] for result in group(states, list(keys))]

    compiled = time.perf_counter() - started
    seconds = []
    for _ in range(iterations + 1):
        started = time.perf_counter()
        states = jax.block_until_ready(advance(states))
        seconds.append(time.perf_counter() - started)
    stats = jax.devices()[0].memory_stats() or {}
    median = statistics.median(seconds[1:])
    return {
        "steps/s": len(configs) * config.batch_size / median,
        "iteration, s": median,
        "compiling, s": compiled,
        "peak, GB": stats.get("peak_bytes_in_use", 0) / 1e9,
    }


def _child(name: str, *arguments: str, seconds: float, env: dict[str, str] | None = None) -> dict[str, Any]:
    """The result of a step in a process of its own, or its error."""
    command = [sys.executable, str(Path(__file__).resolve()), "--step", name, *arguments]
    return _result(command, seconds, env)


def _result(command: Sequence[str], seconds: float, env: dict[str, str] | None = None) -> dict[str, Any]:
    """The JSON object in the last line of a command's output, or its error."""
    try:
        ran = subprocess.run(
            command, env=os.environ | (env or {}), capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return {"error": f"more than {seconds:.0f} s"}
    if ran.returncode:
        return {"error": ([*ran.stderr.strip().splitlines(), "no message"][-1] if ran.stderr else "no message")[-300:]}
    return dict(json.loads(ran.stdout.strip().splitlines()[-1]))


class Day:
    """The steps of a call, each as long as there is time.

    Args:
        report: takes the rows.
        deadline: `time.monotonic()` at which measuring ends.
        tiny: whether everything has tiny sizes, for a test on a CPU.
    """

    def __init__(self, report: Report, deadline: float, *, tiny: bool) -> None:
        self._report, self._deadline, self._tiny = report, deadline, tiny

    def left(self) -> float:
        """Seconds that are left."""
        return self._deadline - time.monotonic()

    def _row(self, section: str, named: dict[str, Any], measure: Callable[[float], dict[str, Any]]) -> None:
        if self.left() < (1 if self._tiny else 30):
            return
        self._report.add(section, named | measure(max(self.left(), 1)))

    def device(self) -> None:
        """What the machine has."""
        self._row("device", {}, lambda seconds: _child("device", seconds=seconds))

    def golden(self) -> None:
        """The reference vectors at each precision."""
        for precision in ("highest",) if self._tiny else ("highest", "high", "default", "bfloat16"):
            self._row("reference vectors", {}, lambda seconds, p=precision: _child("golden", p, seconds=seconds))  # type: ignore[misc]

    def presets(self, names: Sequence[str]) -> None:
        """One rollout and update of every preset, on the device and on the host."""
        for name in names:
            for backend in ("device", "host"):
                flags = [name, "--backend", backend, *(_TINY if self._tiny else [])]
                command = [sys.executable, str(_HERE / "throughput.py"), *flags, "--iterations", "1", "--json"]

                def measure(seconds: float, command: Sequence[str] = command) -> dict[str, Any]:
                    found = _result(command, seconds)
                    if "error" in found:
                        return found
                    compiling = found["compile_seconds"]["rollout and update"]
                    names = ("steps_per_second", "rollout_seconds", "update_seconds")
                    return {key.replace("_", " "): found[key] for key in names} | {"compiling, s": compiling}

                self._row("presets", {"preset": name, "tasks": backend}, measure)

    def speed(self) -> None:
        """Numbers of environments and seeds, precisions, CUDA graphs."""
        sizes = [(2, 1), (2, 2)] if self._tiny else [(n, k) for n in (32, 256, 1024, 4096) for k in (1, 3)]
        for name in _SPEED_PRESETS[: 1 if self._tiny else None]:
            for num_envs, num_seeds in sizes:
                for dtype in ("float32",) if self._tiny else ("float32", "bfloat16"):
                    for graphs in (False,) if self._tiny or num_envs > 256 else (False, True):
                        flags = [
                            name,
                            "--backend",
                            "device",
                            *(_TINY if self._tiny else []),
                            "--num_envs",
                            str(num_envs),
                        ]
                        flags += ["--num_seeds", str(num_seeds), "--compute_dtype", dtype]
                        env = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {_GRAPHS}"} if graphs else {}

                        def measure(
                            seconds: float, flags: Sequence[str] = flags, env: dict[str, str] = env
                        ) -> dict[str, Any]:
                            return _child("speed", *flags, seconds=min(seconds, 240), env=env)

                        named = {
                            "preset": name,
                            "N": num_envs,
                            "seeds": num_seeds,
                            "dtype": dtype,
                            "CUDA graphs": graphs,
                        }
                        self._row("speed", named, measure)

    def floors(self) -> None:
        """Lower bounds from operations and bytes, at this device's measured rates."""
        for name in () if self._tiny else _SPEED_PRESETS:
            command = [sys.executable, str(_HERE / "floors.py"), f"{name}-device", "--json"]
            self._row("floors", {}, lambda seconds, c=command: _result(c, seconds))  # type: ignore[misc]

    def resume(self, directory: Path) -> None:
        """Whether a run in two parts has the metrics of a whole one."""

        def measure(seconds: float) -> dict[str, Any]:
            shutil.rmtree(directory, ignore_errors=True)
            task = ["proof-of-memory", "--backend", "device"]
            whole, parts = directory / "whole", directory / "parts"
            for run, steps in ((whole, 8192), (parts, 4096), (parts, 8192)):
                command = [*_TRAIN, *task, "--total_timesteps", str(steps), "--run_dir", str(run), "--resume", "auto"]
                ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
                if ran.returncode:
                    return {"error": ran.stderr.strip()[-300:]}
            ours, theirs = (_metrics(run) for run in (whole, parts))
            return {"updates": len(ours), "the same digits": ours == theirs}

        self._row("a run in two parts", {}, measure)

    def train(self, out: Path, preset: str, checkpoint: Sequence[Path]) -> None:
        """Trains in the rest of the time, and packs what a later call needs."""
        run = out / "run"
        if checkpoint:
            unpack(checkpoint, run)
        sizes = [*_TINY, "--total_timesteps", "1024"] if self._tiny else []
        command = [*_TRAIN, preset, "--backend", "device", *sizes, "--run_dir", str(run), "--resume", "auto"]
        command += ["--save_every", "20", "--keep", "1"]
        if self.left() < (1 if self._tiny else 60):
            return
        with (out / "train.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                process.wait(timeout=max(self.left() - (0 if self._tiny else 30), 1))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                process.wait()
        rows = _metrics(run)
        last = rows[-1] if rows else {}
        names = ("global_step", "episode/r_mean", "episode/l_mean")
        self._report.add(
            "training", {"preset": preset, "status": process.returncode} | {n: last.get(n, "") for n in names}
        )
        pack(run, out / "checkpoint.tar.gz")
        plot = [sys.executable, "-m", "trxl_jax.plot", str(run), "--out", str(out / "curves.png")]
        subprocess.run([*plot, "--csv", str(out / "metrics.csv")], capture_output=True, check=False)


def _metrics(run: Path) -> list[dict[str, Any]]:
    """A run's rows without wall-clock figures."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [
        {name: value for name, value in row.items() if name not in ("charts/SPS", "episode/t_mean")} for row in rows
    ]


def _step(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "device": step_device,
        "golden": lambda: step_golden(arguments[0]),
        "speed": lambda: step_speed(arguments, 2),
    }
    return steps[name]()


def main(flags: Sequence[str]) -> int:
    """Measures, and writes the files."""
    if list(flags[:1]) == ["--step"]:
        print(json.dumps(_step(flags[1], flags[2:])))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25, help="time for everything (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--train", choices=_SPEED_PRESETS, default=_SPEED_PRESETS[0], help="preset (%(default)s)")
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", default=[], help="files checkpoint.tar.gz.* to go on from"
    )
    parser.add_argument(
        "--share", type=float, default=0.6, help="of the time, for what comes before training (%(default)s)"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, for a test on a CPU")
    given = parser.parse_args(flags)
    if given.minutes <= 0 or not 0 <= given.share <= 1:
        raise UserError("--minutes must be above 0, and --share between 0 and 1")
    given.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * given.minutes
    report = Report(given.out)
    measuring = Day(report, time.monotonic() + 60 * given.minutes * given.share, tiny=given.tiny)
    measuring.device()
    measuring.golden()
    measuring.resume(given.out / "resume")
    measuring.floors()
    measuring.presets(["proof-of-memory"] if given.tiny else list(PRESETS))
    measuring.speed()
    Day(report, end, tiny=given.tiny).train(given.out, given.train, given.checkpoint)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
