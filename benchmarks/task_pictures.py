"""Draws each of Memory Gym's tasks, rendered by the JAX version: the ground truth and, next to it, the observation.

python benchmarks/task_pictures.py [--steps 55] [--seed 3] [--out docs/images/memory_gym.png]
"""

import argparse
import sys
from pathlib import Path

import jax
import matplotlib

sys.path.insert(0, str(Path(__file__).parent.parent))

from trxl_jax.config import Config
from trxl_jax.envs.registry import JAX_PREFIX
from trxl_jax.envs.tasks import memory_gym
from trxl_jax.play.frame_layout import frame
from trxl_jax.play.single_env import make_single_env


def main() -> None:
    """Takes random actions in each task and writes the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=55)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/images/memory_gym.png"))
    options = parser.parse_args()
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 2, figsize=(9, 10), layout="constrained")
    for axis, name in zip(axes.flat, memory_gym.NAMES, strict=True):
        task = make_single_env(Config(env_id=JAX_PREFIX + name, num_envs=1, seed=options.seed), pictures=True)
        task.reset(0)
        key = jax.random.key(options.seed)
        for i in range(options.steps):
            nvec = jax.numpy.array(task.spec.action.nvec)
            action = jax.random.randint(jax.random.fold_in(key, i), nvec.shape, 0, nvec)
            if task.step(jax.device_get(action))[1]:
                break
        axis.imshow(frame(task.picture, task.pictures_of(task.obs)))
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    figure.savefig(options.out, dpi=80)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
