"""How large a transformer may be to train at 5,000 steps/s on this machine, task by task.

    python benchmarks/sizes.py [TASK ...] [--iterations 3] [--out benchmarks/sizes]

Takes the settings of the studies in `experiments/`, and measures larger and larger transformers as `throughput.py`
does, each in a process of its own, up to the first below 5,000 steps/s. Writes OUT.json and OUT.md; a task that is
measured replaces figures of an earlier call. Rollout and update are microseconds per step of the environments.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from names import check_names
from presets import machine

from trxl_jax.cli import run_command
from trxl_jax.commands.train import parse
from trxl_jax.errors import UserError
from trxl_jax.files import write_text_atomically

_HERE = Path(__file__).parent
TASKS = {
    "RepeatPreviousMedium": ("popgym", "popgym", "--env_id popgym/RepeatPreviousMedium-v0"),
    "CountRecallEasy": ("popgym", "popgym", "--env_id popgym/CountRecallEasy-v0"),
    "MiniGrid-MemoryS9, symbols": ("minigrid", "memory-s9", ""),
    "MiniGrid-MemoryS9, pictures": ("minigrid", "pictures", ""),
    "Mortar Mayhem, three commands, pictures": ("memory_gym", "mortar-mayhem-pictures", ""),
}
"""Each task's file of experiments, its table there, and flags beside that table's."""
SIZES = ((1, 64), (1, 128), (2, 128), (2, 256), (3, 384))
"""Layers and width."""
ENOUGH = 5_000
"""Steps per second."""


def flags(task: str, layers: int, width: int) -> list[str]:
    """Those of train.py for a task and a size."""
    file, experiment, more = TASKS[task]
    tables = tomllib.loads((_HERE / "experiments" / f"{file}.toml").read_text())
    size = ["--trxl_num_layers", str(layers), "--trxl_dim", str(width)]
    return [*shlex.split(tables[experiment]["train"]), *shlex.split(more), *size]


def measure(task: str, iterations: int) -> list[dict[str, Any]]:
    """Figures of each size, up to the first that is too slow."""
    found: list[dict[str, Any]] = []
    for layers, width in SIZES:
        given = flags(task, layers, width)
        command = [sys.executable, str(_HERE / "throughput.py"), *given, "--iterations", str(iterations), "--json"]
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if process.returncode:
            raise UserError(f"throughput.py failed, see its line above; alone: {shlex.join(command)}")
        figures = json.loads(process.stdout)
        steps = parse(given).config.batch_size
        found.append(
            {
                "layers": layers,
                "width": width,
                "steps_per_second": figures["steps_per_second"],
                "rollout_us": figures["rollout_seconds"] / steps * 1e6,
                "update_us": figures["update_seconds"] / steps * 1e6,
            }
        )
        print(f"{task}, {layers} x {width}: {figures['steps_per_second']:,.0f} steps/s", flush=True)
        if figures["steps_per_second"] < ENOUGH:
            break
    return found


def table(measured: dict[str, Any]) -> str:
    """The figures in Markdown; the largest size that is fast enough is bold."""
    lines = ["| task | layers x width | steps/s | rollout, us a step | update, us a step |", "|---|---|---|---|---|"]
    for task in TASKS:
        sizes = measured.get(task, {"sizes": []})["sizes"]
        fast = [size for size in sizes if size["steps_per_second"] >= ENOUGH]
        for size in sizes:
            name = f"{size['layers']} x {size['width']}"
            speed = f"{size['steps_per_second']:,.0f}"
            if fast and size == fast[-1]:
                name, speed = f"**{name}**", f"**{speed}**"
            lines.append(f"| {task} | {name} | {speed} | {size['rollout_us']:.0f} | {size['update_us']:.0f} |")
    return "\n".join(lines) + "\n"


def main(given: Sequence[str]) -> int:
    """Measures tasks and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="*", default=list(TASKS), metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--iterations", type=int, default=3, metavar="N", help="that are timed (default: 3)")
    parser.add_argument("--out", type=Path, default=_HERE / "sizes", metavar="PATH", help="without a suffix")
    options = parser.parse_args(given)
    check_names("task", options.tasks, TASKS)
    path = options.out.with_suffix(".json")
    measured = json.loads(path.read_text()) if path.exists() else {}
    for task in options.tasks:
        measured[task] = {"sizes": measure(task, options.iterations), "machine": machine()}
        write_text_atomically(path, json.dumps(measured, indent=1) + "\n")
        write_text_atomically(options.out.with_suffix(".md"), table(measured))
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
