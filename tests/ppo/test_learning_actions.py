"""Each kind of action is learned: probes whose best action depends on what is seen, on the host and on the device."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import trxl_jax
from tests.support import device_probes, probes
from trxl_jax import Config
from trxl_jax.envs.device.environment import DeviceEnvironment
from trxl_jax.envs.registry import make_single
from trxl_jax.runs.trainer import train

pytestmark = pytest.mark.optimised

SPACES: dict[str, Any] = {
    "box": spaces.Box(-1, 1, (2, 1)),
    "unbounded box without an axis": spaces.Box(-np.inf, np.inf, (), np.float64),
    "zero-width box": spaces.Box(np.float32([0.3, -1]), np.float32([0.3, 1])),
    "discrete from 5": spaces.Discrete(3, start=5),
    "multi discrete of a shape": spaces.MultiDiscrete([[2, 3], [3, 2]]),
    "multi binary": spaces.MultiBinary((2, 2)),
    "mixed": spaces.Dict(
        {"steer": spaces.Box(-1, 1), "gear": spaces.Tuple([spaces.Discrete(3, start=-1), spaces.Box(0, 1)])}
    ),
}
CONFIG = Config(
    num_envs=16, num_steps=32, num_minibatches=4, update_epochs=4, total_timesteps=15_360, init_lr=3e-3, final_lr=3e-4,
    init_ent_coef=0.001, final_ent_coef=0.0, gamma=0.5, clip_coef=0.2, norm_adv=True, core="none",
    trxl_dim=32,
)  # fmt: skip
EVERY_DAY = {"host": {"mixed"}, "device": {"box"}}


@pytest.mark.parametrize(
    ("side", "kind"),
    [
        pytest.param(side, kind, marks=[] if kind in EVERY_DAY[side] else [pytest.mark.slow])
        for side in EVERY_DAY
        for kind in SPACES
    ],
)
def test_the_best_action_is_learned(side: str, kind: str, tmp_path: Path) -> None:
    env = partial(probes.Cued, SPACES[kind]) if side == "host" else device_probes.Cued(SPACES[kind])
    run_dir = tmp_path / "run"
    train(CONFIG.replace(run_dir=str(run_dir)), env=env)
    policy = trxl_jax.load(run_dir)
    result = trxl_jax.evaluate(policy, 50, env=env, deterministic=True)
    assert result.means["r"] >= 0.9 * 8


def test_pendulum_is_the_same_task_on_host_and_device() -> None:
    """Where theirs begin at the same angle; the device computes with 32 bits."""
    host = make_single("Pendulum-v1")
    host.reset(seed=0)
    device = trxl_jax.make_env(Config(env_id="gymnax/Pendulum-v1", num_envs=1))
    assert isinstance(device, DeviceEnvironment)
    state, _ = device.reset(jax.random.key(0))
    host.unwrapped.state = np.array([state.inner.theta[0], state.inner.theta_dot[0]], np.float64)
    step = jax.jit(device.step)
    for action in np.random.default_rng(0).normal(0, 2, (100, 1)).astype(np.float32):
        theirs, reward, *_ = host.step(action.clip(-2, 2))
        state, outcome = step(state, jnp.asarray(action[None]))
        np.testing.assert_allclose(outcome.obs[0], theirs, atol=2e-3)
        assert outcome.reward[0] == pytest.approx(reward, abs=2e-2)
    host_spec = trxl_jax.make_env(Config(env_id="Pendulum-v1", num_envs=1)).spec
    assert host_spec.action == device.spec.action
