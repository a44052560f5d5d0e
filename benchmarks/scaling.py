"""What devices exchange in an iteration, counted in programs compiled for virtual devices, and arithmetic from that.

    python benchmarks/scaling.py [PRESET] [--devices 1 2 4 8] [--out benchmarks/scaling] [--flags of train.py]

Without arguments: mortar-mayhem-grid with `--backend device`, one group of environments a device. The programs are
compiled for this machine's CPU and not run: a CPU's virtual devices share its cores, so that their speed says nothing.
Writes OUT.json and OUT.md.

- *collectives*: of one iteration, all rounds of its loops; *a minibatch*: those of one minibatch.
- *sent*: bytes that each device sends in an iteration, (K - 1) / K of what a collective moves.
- Arithmetic, not measured: sent bytes over a link's bandwidth plus a latency for each collective, for 8 H100s by NVLink
  and 256 chips of a TPU v5e, see `MACHINES`.
"""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {"JAX_PLATFORMS": "cpu"}  # read when JAX starts
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from compiled_programs import Block, read_program

from trxl_jax import make_agent
from trxl_jax.cli import run_command
from trxl_jax.commands.train import parse
from trxl_jax.config import Config
from trxl_jax.envs.groups import GroupedEnvironment, make_layout
from trxl_jax.errors import UserError
from trxl_jax.files import write_text_atomically
from trxl_jax.ppo.many_devices import init_all_states, lower_step, shardings

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


class Machine(NamedTuple):
    """Links between devices, as their makers state them.

    Fields:
        name: what it is.
        devices: how many.
        bandwidth: bytes that a device sends in a second.
        latency: seconds of a small collective, assumed.
    """

    name: str
    devices: int
    bandwidth: float
    latency: float


MACHINES = (
    Machine("8 H100 SXM, NVLink", 8, 450e9, 20e-6),  # 900 GB/s in both directions together
    Machine("TPU v5e-256", 256, 200e9, 50e-6),  # 1,600 Gb/s a chip
)


class Traffic(NamedTuple):
    """What one run of a block of a program exchanges.

    Fields:
        collectives: how many.
        moved: bytes of what they move; each of K devices sends (K - 1) / K of them.
    """

    collectives: int
    moved: int


def traffic(block: Block) -> Traffic:
    """Of a block with all rounds of its loops; a loop of unknown length counts one."""
    count, moved = len(block.collectives), sum(map(_moved, block.collectives))
    for inner in block.inner:
        of_inner, rounds = traffic(inner), inner.rounds or 1
        count += rounds * of_inner.collectives
        moved += rounds * of_inner.moved
    return Traffic(count, moved)


def _moved(line: str) -> int:
    """Bytes of an instruction's result, which for these collectives is as large as all that they move to a device."""
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", line.partition("=")[2].partition("(%")[0])
    return sum(_BYTES[kind] * math.prod(int(n) for n in size.split(",") if n) for kind, size in shapes)


def measure(config: Config, num_devices: int) -> dict[str, Any]:
    """Compiles an iteration for a number of devices, one group each."""
    config = config.replace(env_groups=num_devices)
    env = GroupedEnvironment(config, None, make_layout(config, num_devices))
    if env.on_host:
        raise UserError(f"{config.env_id} is stepped on the host; add --backend device")
    config = config.fitted_to(env.spec.max_episode_steps)
    agent = make_agent(config, env.spec)
    everywhere, by_group = shardings(env.layout)

    def on(sharding: Any, tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    key = jax.eval_shape(jax.random.key, 0)
    train_state, rollouts = jax.eval_shape(lambda key: init_all_states(env, agent, key), key)
    states = on(everywhere, train_state), on(by_group, rollouts)
    compiled: Any = lower_step(config, env, agent, states, on(everywhere, key)).compile()
    program = read_program(compiled.as_text())
    epochs = program.largest(config.update_epochs)
    minibatch = epochs and epochs.largest(config.num_minibatches)
    whole = traffic(program)
    return {
        "devices": num_devices,
        "collectives": whole.collectives,
        "collectives_of_minibatch": traffic(minibatch).collectives if minibatch else None,
        "moved_bytes": whole.moved,
        "sent_bytes": round(whole.moved * (num_devices - 1) / num_devices),
        "parameter_bytes": sum(4 * leaf.size for leaf in jax.tree.leaves(train_state.params["params"])),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def table(measured: dict[str, Any]) -> str:
    """Counts and arithmetic in Markdown."""
    lines = ["| devices | collectives | a minibatch | sent by each | temporaries of each |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['devices']} | {row['collectives']} | {row['collectives_of_minibatch']} "
        f"| {row['sent_bytes'] / 1e6:,.1f} MB | {row['temporary_bytes'] / 1e6:,.0f} MB |"
        for row in measured["rows"]
    ]
    largest = measured["rows"][-1]
    lines += ["", "| arithmetic | bytes over bandwidth | latencies | together |", "|---|---|---|---|"]
    for machine in MACHINES:
        sent = largest["moved_bytes"] * (machine.devices - 1) / machine.devices / machine.bandwidth * 1e3
        waited = largest["collectives"] * machine.latency * 1e3
        lines.append(f"| {machine.name} | {sent:.1f} ms | {waited:.1f} ms | {sent + waited:.1f} ms |")
    return "\n".join(lines) + "\n"


def main(flags: Sequence[str]) -> int:
    """Compiles, prints and writes."""
    own = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    own.add_argument("preset", nargs="?", default="mortar-mayhem-grid")
    own.add_argument("--devices", nargs="+", type=int, default=[1, 2, 4, 8])
    own.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""), help="files without suffix")
    presets = list(takewhile(lambda flag: not flag.startswith("-"), flags))
    given, rest = own.parse_known_args(flags)
    config = parse([given.preset, *([] if presets and rest else ["--backend", "device"]), *rest]).config
    rows = []
    for count in sorted(given.devices):
        rows.append(measure(config, count))
        print(f"{count} devices: {rows[-1]['collectives']} collectives", flush=True)
    measured = {"preset": given.preset, "num_envs": config.num_envs, "num_steps": config.num_steps, "rows": rows}
    write_text_atomically(given.out.with_suffix(".json"), json.dumps(measured, indent=1) + "\n")
    write_text_atomically(given.out.with_suffix(".md"), table(measured))
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
