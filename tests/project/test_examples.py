"""The examples do what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import throughput
from examples import sweep
from trxl_jax.cli import run_command

pytestmark = pytest.mark.optimised

SMALL = {"trxl_num_layers": 1, "trxl_dim": 16, "update_epochs": 2}


@pytest.mark.slow
def test_a_lane_of_a_sweep_is_its_solo_run() -> None:
    config = sweep.CONFIG.replace(total_timesteps=3 * sweep.CONFIG.batch_size, **SMALL)
    lanes = jax.jit(jax.vmap(lambda init_lr, seed: sweep.train_lane(init_lr, seed, config)))
    rates, seeds = jnp.array([1e-3, 3e-4, 1e-3]), jnp.array([1, 1, 2])
    returns = lanes(rates, seeds)
    # Whatever runs beside it, a lane is the same bit for bit ...
    np.testing.assert_array_equal(lanes(rates[:2], seeds[:2]), returns[:2])
    # ... and, until rounding errors have grown, what it is by itself.
    alone = jax.jit(lambda init_lr, seed: sweep.train_lane(init_lr, seed, config))
    for i in range(2):
        np.testing.assert_allclose(alone(rates[i], seeds[i]), returns[i], rtol=1e-4)
    assert not np.allclose(returns[0], returns[1])


def test_a_sweep_checks_what_it_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, word in (["--init_lr", "-1"], "--init_lr -1.0"), (["--seeds", "1", "-2"], "--seed -2"):
        assert run_command(sweep.main, flags) == 2
        assert word in capsys.readouterr().err


def test_the_help_of_throughput_has_its_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        throughput.main(["--help"])
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--iterations N", "--json", "--trxl_dim"))


@pytest.mark.slow
def test_the_sweep_prints_a_row_for_each_learning_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "CONFIG", sweep.CONFIG.replace(**SMALL))
    assert sweep.main(["--init_lr", "1e-3", "3e-4", "--seeds", "1", "--total_timesteps", "6144"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[-2:]] == ["0.001", "0.0003"]
