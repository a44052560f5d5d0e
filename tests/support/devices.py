"""Trains the same run on several numbers of virtual devices: `python -m tests.support.devices DIR CONFIG COUNT ...`.

CONFIG is JSON, fields of `Config`; the run on K devices is in DIR/K. With `COUNT:STEPS` it is trained for so many steps
only; a directory that holds a run is continued.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.command import environment

SMALL: dict[str, Any] = {
    "num_envs": 8, "num_steps": 16, "num_minibatches": 2, "update_epochs": 2, "trxl_num_layers": 2, "trxl_num_heads": 2,
    "trxl_dim": 16, "trxl_memory_length": 6, "env_groups": 4, "total_timesteps": 8 * 16 * 4, "anneal_steps": 1024,
}  # fmt: skip


def train_on(directory: Path, config: dict[str, Any], *counts: Any) -> None:
    """Runs this module with enough virtual devices, and with XLA's optimisations, as users do."""
    most = max(int(str(count).partition(":")[0]) for count in counts)
    flags = f"--xla_force_host_platform_device_count={most}"
    command = [sys.executable, "-m", "tests.support.devices", str(directory), json.dumps(SMALL | config)]
    env = environment(XLA_FLAGS=flags, JAX_DISABLE_MOST_OPTIMIZATIONS="0")
    ran = subprocess.run([*command, *map(str, counts)], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]


def main(directory: Path, config: dict[str, Any], counts: list[str]) -> None:
    """Trains one after the other."""
    from trxl_jax import Config, train

    for count in counts:
        devices, _, steps = count.partition(":")
        run = Config(
            **config | {"run_dir": str(directory / devices)} | ({"total_timesteps": int(steps)} if steps else {})
        )
        train(run, resume="auto", num_devices=int(devices))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:])
