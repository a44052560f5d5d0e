"""Plots how time and memory grow with environments N, steps T, window W and width D, from runs of throughput.py.

    python benchmarks/growth.py [--out docs/images/growth.png] [--iterations 2]

Each point is a separate process in which one of the four is changed. The base is mortar-mayhem-grid with a quarter of
its rollout: N 16, T 256, W 119, D 384.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BASE = {"num_envs": 16, "num_steps": 256, "trxl_memory_length": 119, "trxl_dim": 384}
VALUES = {
    "num_envs": (4, 8, 16, 32),
    "num_steps": (64, 128, 256, 512),
    "trxl_memory_length": (32, 64, 119, 256),
    "trxl_dim": (96, 192, 384, 768),
}
SYMBOLS = {
    "num_envs": "environments N",
    "num_steps": "steps T",
    "trxl_memory_length": "window W",
    "trxl_dim": "width D",
}


def measure(sizes: dict[str, int], iterations: int) -> dict[str, float]:
    """Runs throughput.py for mortar-mayhem-grid with these sizes and returns its results."""
    flags = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    # trxl_num_positions: else the task's longest episode would limit the window.
    command = [sys.executable, str(Path(__file__).parent / "throughput.py"), "mortar-mayhem-grid", *flags]
    command += ["--trxl_num_positions", "1024", "--iterations", str(iterations), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measures and writes the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("growth.png"))
    parser.add_argument("--iterations", type=int, default=2)
    options = parser.parse_args()
    base = measure(BASE, options.iterations)
    figure, axes = plt.subplots(2, 4, figsize=(12, 5), sharey="row", layout="constrained")
    for column, (name, values) in zip(axes.T, VALUES.items(), strict=True):
        points = []
        for value in values:
            figures = base if value == BASE[name] else measure(BASE | {name: value}, options.iterations)
            steps = value * BASE["num_steps"] if name == "num_envs" else BASE["num_envs"] * (
                value if name == "num_steps" else BASE["num_steps"])  # fmt: skip
            points.append((1e3 * figures["rollout_seconds"] / steps, 1e3 * figures["update_seconds"] / steps,
                           figures["peak_rss_bytes"] / 1e9))  # fmt: skip
            print(f"{SYMBOLS[name]} {value}: rollout {points[-1][0]:.3f} and update {points[-1][1]:.3f} ms per step, "
                  f"{points[-1][2]:.2f} GB", flush=True)  # fmt: skip
        rollout, update, memory = zip(*points, strict=True)
        column[0].plot(values, update, "o-", label="update")
        column[0].plot(values, rollout, "s--", label="rollout")
        column[1].plot(values, memory, "o-", color="tab:gray")
        column[1].set_xlabel(SYMBOLS[name])
        for axis in column:
            axis.set_xscale("log", base=2)
            axis.set_xticks(values, [str(value) for value in values])
            axis.grid(alpha=0.3)
    for axis in axes[:, 0]:  # of all in its row, once every curve is there
        axis.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("ms per environment step")
    axes[1, 0].set_ylabel("peak memory, GB")
    axes[0, 0].legend()
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
