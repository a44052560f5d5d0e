"""A memory of one's own, a stack of the newest encoded observations: `python examples/own_core.py`.

A core whose past is a state needs two methods: the state at an episode's start, and what a step makes of it. Acting,
learning through segments, checkpoints, evaluation, videos and the HTML page then work with it. `--core
examples.own_core:make_frame_stack` names it to every command, for example

    python train.py proof-of-memory --core examples.own_core:make_frame_stack \
        --segment_length 16 --run_dir runs/own
    python enjoy.py runs/own --render html --allow_import
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from trxl_jax import PRESETS, Config, evaluate, load, train
from trxl_jax.agent.cores.recurrent import RecurrentCore
from trxl_jax.agent.initializers import dense
from trxl_jax.agent.numerics import Numerics
from trxl_jax.cli import run_command


class Frames(NamedTuple):
    """The K newest encoded observations.

    Fields:
        frames: f32[N, K, D], oldest first; zeros before the episode's first step.
    """

    frames: jax.Array


class FrameStack(RecurrentCore):
    """A dense layer of the K newest encoded observations, this step's included.

    Fields:
        length: K.
        numerics: platform and precision.
    """

    length: int
    numerics: Numerics

    @nn.nowrap
    def initial_state(self, num_envs: int) -> Frames:
        """No frames, f32[N, K, D]."""
        return Frames(jnp.zeros((num_envs, self.length, self.dim)))

    @nn.compact
    def step_state(self, state: Frames, x: jax.Array) -> tuple[Frames, jax.Array]:
        """Takes f32[B, D] into the stack; what a dense layer makes of all of it, f32[B, D]."""
        frames = jnp.concatenate([state.frames[:, 1:], x[:, None]], axis=1)
        flat = frames.reshape(len(x), -1)
        return Frames(frames), nn.relu(dense(self.dim, flat.shape[1], self.numerics)(flat))


def make_frame_stack(config: Config, numerics: Numerics) -> FrameStack:
    """What `--core examples.own_core:make_frame_stack` calls."""
    return FrameStack(dim=config.trxl_dim, length=8, numerics=numerics)


def main(flags: Sequence[str]) -> int:
    """Trains it on Proof of Memory, in `runs/own_core` or the directory that is given, loads and evaluates it."""
    run_dir = flags[0] if flags else "runs/own_core"
    core = "examples.own_core:make_frame_stack"
    train(PRESETS["proof-of-memory"].replace(env_id="gymnax/ProofofMemory-v0", core=core, run_dir=run_dir))
    policy = load(run_dir, allow_import=True)  # this module, which the run's files name
    means = evaluate(policy, allow_import=True).means
    print(f"mean return of 100 episodes: {means['r']:.2f} (with memory at best 1.2)")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
