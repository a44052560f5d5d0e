"""Environments that misbehave: what a run says, and that it ends."""

import gc
import multiprocessing.forkserver
import queue
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.command import environment
from tests.support.device_probes import Counting
from tests.support.hostile import (
    Drifting,
    Forking,
    HangingOutside,
    KeepsFolder,
    OneBuffer,
    Raising,
    Signalled,
    Strange,
)
from tests.support.paths import ROOT
from tests.support.probes import Counter, OutOfSpace
from tests.support.time_limits import time_limit
from trxl_jax.agent.actor_critic import make_agent
from trxl_jax.config import Config
from trxl_jax.envs.base import original_errors
from trxl_jax.envs.host import history, worker
from trxl_jax.envs.host.environment import HostEnvironment
from trxl_jax.envs.host.episode import EpisodeRules, make_wrapped
from trxl_jax.envs.host.processes import WorkerEnvs, start_fork_server
from trxl_jax.envs.host.worker import STOP_SIGNALS
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import ConfigError, EnvironmentFailure, UserError, warn_once
from trxl_jax.play.single_env import HostSingleEnv

ASYNCHRONOUS = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def play(env: Any, steps: int) -> list[Any]:
    """Steps with action 1, without compiling anything; returns NumPy arrays."""
    with original_errors(env):
        state, _ = env.reset(jax.random.key(0))
        action = jnp.ones((env.num_envs, 1), jnp.int32)
        played = []
        for _ in range(steps):
            state, step = env.step(state, action)
            played.append(jax.device_get(step))
    return played


def test_workers_and_their_server_outlive_signals_from_their_first_instruction() -> None:
    start_fork_server()
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    blocked = next(line for line in Path(f"/proc/{server}/status").read_text().splitlines() if "SigBlk" in line)
    assert all(int(blocked.split()[1], 16) >> (number - 1) & 1 for number in STOP_SIGNALS)
    env = HostEnvironment(Signalled(), 2, asynchronous=True)
    assert play(env, 3)[-1].episode.episode_return.tolist() == [3, 3]
    env.close()


ERRORS = [SystemExit(0), SystemExit("good\nbye"), Strange(), GeneratorExit("x")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("where", ["constructor", "reset", "step"])
def test_whatever_an_environment_raises_is_one_line(error: BaseException, where: str) -> None:
    with pytest.raises(EnvironmentFailure, match=type(error).__name__) as raised:
        play(HostEnvironment(partial(Raising, error, where), 2), 5)
    assert "\n" not in str(raised.value)
    assert "index 0" in str(raised.value)


def test_what_ends_a_worker_is_one_line_too(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    level = gymnasium.logger.WARN
    monkeypatch.setattr(gymnasium.logger, "min_level", level)
    env = HostEnvironment(partial(Raising, SystemExit(0), "step"), 2, asynchronous=True)
    with pytest.raises(EnvironmentFailure, match=r"\(index ., seed .*, step 2\): SystemExit: 0"):
        play(env, 5)
    env.close()
    assert capfd.readouterr().err == ""
    assert not recwarn.list
    assert gymnasium.logger.min_level == level


@ASYNCHRONOUS
@pytest.mark.parametrize(("where", "kind"), [("constructor", ConfigError), ("step", EnvironmentFailure)])
def test_when_one_fails_the_others_are_closed_and_nothing_else_is_said(
    where: str,
    kind: type[UserError],
    asynchronous: bool,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    env = HostEnvironment(partial(KeepsFolder, tmp_path, where), 4, asynchronous=asynchronous, timeout=60)
    with pytest.raises(kind, match="the third one is refused"):
        play(env, 1)
    env.close()
    assert not list(tmp_path.iterdir())
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_an_environment_whose_spaces_are_refused_is_closed(tmp_path: Path) -> None:
    def make() -> KeepsFolder:
        env = KeepsFolder(tmp_path, "")
        env.action_space = gymnasium.spaces.Text(5)
        return env

    with pytest.raises(ConfigError, match="actions Text"):
        HostEnvironment(make, 1)
    assert not list(tmp_path.iterdir())


def test_many_environments_may_together_take_longer_than_the_watch_waits() -> None:
    script = (
        "from functools import partial; import jax; from tests.support.hostile import Slow\n"
        "from trxl_jax.envs.host import environment\n"
        "environment.LockWatch = partial(environment.LockWatch, grace=2.5)\n"
        "env = environment.HostEnvironment(partial(Slow, 0.4), 12, timeout=0.5)\n"
        "env.reset(jax.random.key(0)); env.close(); print('made')"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT, timeout=time_limit(60)
    )
    assert (process.stdout, process.returncode) == ("made\n", 0), process.stderr


def refuse() -> Counter:
    raise EnvironmentFailure("no such level")


@pytest.mark.parametrize("make", [Counter, refuse])
def test_a_worker_whose_run_has_ended_says_nothing(
    make: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel closes the run's end of a worker's pipe a moment before it ends the worker."""
    monkeypatch.setattr(worker, "_follow", lambda parent: None)
    pipe, run_end = multiprocessing.Pipe()
    run_end.close()
    worker.run_worker(0, make, pipe, run_end, None, queue.SimpleQueue(), None)
    assert capfd.readouterr().err == ""


@ASYNCHRONOUS
def test_close_that_raises_hides_nothing(asynchronous: bool, capfd: pytest.CaptureFixture[str]) -> None:
    warn_once.cache_clear()
    env = HostEnvironment(partial(Raising, SystemExit("bad"), "close"), 2, asynchronous=asynchronous)
    play(env, 1)
    assert capfd.readouterr().err == "warning: environment Raising failed in close: SystemExit: bad\n"
    env.close()


@ASYNCHRONOUS
@pytest.mark.parametrize("where", ["constructor", "close"])
def test_hanging_outside_of_a_step_ends(
    where: str, asynchronous: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HangingOutside, "made", 0)
    warn_once.cache_clear()
    started = time.monotonic()
    env = HostEnvironment(
        partial(HangingOutside, where), 2, asynchronous=asynchronous, timeout=3 if asynchronous else 1
    )
    if where == "constructor":
        with pytest.raises(EnvironmentFailure, match=r"HangingOutside hangs while it is made \(index .\): no answer"):
            play(env, 1)
    else:
        play(env, 1)
    processes = [] if not asynchronous else env._groups[0]._envs.processes
    env.close()
    named = f"environment HangingOutside (index {0 if asynchronous else 1}) hangs in close"
    assert (named in capfd.readouterr().err) == (where == "close")
    assert time.monotonic() - started < time_limit(15)
    assert not any(process.is_alive() for process in processes)


def test_an_environment_that_hangs_when_it_is_inspected_is_named() -> None:
    def hang() -> Counter:
        while True:
            time.sleep(0.05)

    with pytest.raises(EnvironmentFailure, match="hangs while it is made"):
        HostEnvironment(hang, 2, timeout=0.2)


def test_a_process_whose_lock_is_held_is_ended() -> None:
    script = (
        "from trxl_jax.envs.host.lock_watch import LockWatch; from tests.support.hostile import hold_lock\n"
        "watch = LockWatch(0.4, grace=0.2); watch.call(lambda: hold_lock(0.2)); watch.go_on()\n"
        "hold_lock(1.5)\n"
        "print('alive', flush=True); watch.call(lambda: hold_lock(100))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT, timeout=time_limit(30)
    )
    assert process.returncode == -signal.SIGKILL
    assert process.stdout == "alive\n"
    assert process.stderr.startswith("error: an environment holds Python's lock")
    assert process.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_script_that_forgets_to_close_ends() -> None:
    script = (
        "import jax; from trxl_jax import Config, make_env\n"
        "if __name__ == '__main__':\n"
        "    env = make_env(Config(env_id='ProofofMemory-v0', num_envs=2, async_envs=True))\n"
        "    env.reset(jax.random.key(0))"
    )
    process = subprocess.run([sys.executable, "-c", script], check=False, timeout=time_limit(60), cwd=ROOT)
    assert process.returncode == 0


def test_dropped_workers_end() -> None:
    made: list[WorkerEnvs] = []
    WorkerEnvs([partial(make_wrapped, Counter, EpisodeRules(), i) for i in range(2)], started=made.append)
    processes = made.pop().processes
    gc.collect()
    deadline = time.monotonic() + time_limit(10)
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(process.is_alive() for process in processes)


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_process_that_an_environment_forks_does_not_go_on_as_the_run() -> None:
    env = HostEnvironment(Forking, 1)
    play(env, 3)
    assert Forking.ended == 1


def test_settings_of_jax_are_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sets64Bits(Counter):
        def step(self, action: Any) -> tuple:
            jax.config.update("jax_enable_x64", True)
            return super().step(action)

    env = HostEnvironment(Sets64Bits, 1)
    try:
        with pytest.raises(ConfigError, match="jax_enable_x64"):
            play(env, 2)
    finally:
        jax.config.update("jax_enable_x64", False)
    config = Config(env_id="ProofofMemory-v0")
    with jax.enable_x64(True), pytest.raises(ConfigError, match="JAX_ENABLE_X64"):
        make_agent(config, env.spec)
    with jax.disable_jit(), pytest.raises(ConfigError, match="JAX_DISABLE_JIT"):
        make_agent(config, env.spec)


def test_an_environment_that_draws_into_one_buffer_shows_each_picture() -> None:
    env = HostEnvironment(OneBuffer, 2, send_final_obs=True)
    for before, after in zip(played := play(env, 12), played[1:], strict=False):
        assert (before.obs != after.obs).any()
        for i in np.flatnonzero(after.episode.done):
            assert (after.final_obs[i] != after.obs[i]).any()
    assert any(step.episode.done.any() for step in played)
    single = HostSingleEnv("", env.spec, OneBuffer, EpisodeRules())
    single.reset(0)
    first = [single.obs, single.picture]
    kept = [np.array(picture) for picture in first]
    single.step(np.array([0]))
    np.testing.assert_array_equal(first, kept)


def test_a_factory_must_make_a_new_environment_each_time() -> None:
    for kind in (Counter, OneBuffer):  # in one group, and in one group each
        the_one = kind()
        for factory in (lambda one=the_one: one, lambda one=the_one: gymnasium.wrappers.OrderEnforcing(one)):
            env = HostEnvironment(factory, 2)
            with pytest.raises(EnvironmentFailure, match="same environment twice"):
                play(env, 1)


def test_leaving_the_bounds_is_one_warning_and_what_cannot_be_used_is_an_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    warn_once.cache_clear()
    env = HostEnvironment(OutOfSpace, 2)
    assert play(env, 6)[-1].obs.tolist() == [[6], [6]]
    (message,) = capfd.readouterr().err.splitlines()
    assert "OutOfSpace (index 0): element 0 of an observation is 3, its space says -1 to 2" in message

    class Wrong(Counter):
        def __init__(self, obs: Any, reward: Any = 0.0) -> None:
            super().__init__()
            self.answer = obs, reward, False, False, {}

        def step(self, action: Any) -> tuple:
            return self.answer

    for obs, reward, words in (
        (np.array([np.inf]), 0.0, "element 0 of the observation is inf"),
        (np.array([1e300]), 0.0, "element 0 of the observation is 1e"),
        (np.zeros(2), 0.0, r"shape \(2,\)"),
        (np.array(["x"]), 0.0, "<U1"),
        (np.zeros(1), 1e300, "reward 1e"),
        (np.zeros(1), None, "the reward is no number but None"),
    ):
        with pytest.raises(EnvironmentFailure, match=words):
            play(HostEnvironment(partial(Wrong, obs, reward), 1), 1)


def test_episode_seeds_fit_into_signed_integers_of_c() -> None:
    new = [EpisodeRules(7).episode_seed(0, episode) for episode in range(100)]
    old = [EpisodeRules(7, seed_bits=32).episode_seed(0, episode) for episode in range(100)]
    assert max(new) < 2**31 <= max(old)
    assert all(ours == theirs for ours, theirs in zip(new, old, strict=True) if theirs < 2**31)
    assert Config.from_json("{}").seed_bits == 32  # of a run that version 0.1.0 wrote
    assert Config.from_json(Config().to_json()).seed_bits == 31


@pytest.mark.parametrize("task", [partial(Counter, 10**6), Counting()], ids=["host", "device"])
def test_max_episode_steps_truncates(task: Any) -> None:
    sizes: dict[str, Any] = {"num_envs": 2, "num_steps": 8, "num_minibatches": 2, "total_timesteps": 100}
    config = Config(max_episode_steps=4, bootstrap_truncated=True, **sizes)
    env = make_env(config, task)
    assert env.spec.max_episode_steps == 4
    assert make_env(config.replace(trxl_num_positions=7), task).spec.max_episode_steps == 7
    state, _ = env.reset(jax.random.key(0))
    step = jax.jit(env.step)
    for t in range(1, 9):
        state, taken = step(state, jnp.ones((2, 1), jnp.int32))
        ended = t % 4 == 0
        assert taken.truncated.tolist() == [ended] * 2
        assert taken.obs.tolist() == [[t % 4]] * 2
        if ended:
            assert taken.episode.episode_length.tolist() == [4, 4]
            assert taken.final_obs.tolist() == [[4], [4]]
            results = env.pop_episode_results(jax.tree.map(lambda x: x[None], taken.episode))
            assert [result["cut"] for result in results] == [1, 1]
    env.close()
    longer = make_env(config.replace(max_episode_steps=50), Counting())
    assert longer.spec.max_episode_steps == 5  # the task's own


@ASYNCHRONOUS
def test_an_environment_with_a_state_of_its_own_is_not_put_back(asynchronous: bool) -> None:
    env = HostEnvironment(Drifting, 2, asynchronous=asynchronous)
    play(env, 3)
    good = env.snapshot()
    assert env.restore(good) is not None  # in their first episodes all is as it was
    assert env.snapshot()["digests"] == good["digests"]
    play(env, 9)
    later = env.snapshot()
    assert env.restore(later) is None
    assert env.restore({name: value for name, value in later.items() if name != "digests"}) is not None  # version 0.1.0
    env.close()


def test_the_history_of_an_endless_episode_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_REPLAY", 8)
    env = HostEnvironment(partial(Counter, 10**6), 2)
    play(env, 8)
    snapshot = env.snapshot()
    assert [len(taken) for taken in snapshot["actions"]] == [8, 8]
    assert env.restore(snapshot) is not None
    for steps in (9, 40):
        play(env, steps)
        assert env.snapshot()["actions"] == []
        assert env._groups[0]._history._past.shape[0] <= 8
        assert env._groups[0]._history.steps(0) == steps
    assert env.restore(env.snapshot()) is None


def test_user_errors_of_a_factory_are_kept() -> None:
    def refuse() -> Counter:
        raise ConfigError("no such level")

    with pytest.raises(UserError, match="no such level"):
        HostEnvironment(refuse, 1)


@pytest.mark.slow
def test_a_process_with_workers_that_is_ended_at_once_leaves_no_warning() -> None:
    """A signal ends a command that is starting without Python's usual end, which would unregister semaphores."""
    code = """
import os
import jax
from trxl_jax import Config, make_env
env = make_env(Config(env_id="ProofofMemory-v0", num_envs=2, num_steps=8, async_envs=True))
jax.jit(env.reset)(jax.random.key(0))
os._exit(130)
"""
    ended = subprocess.run([sys.executable, "-c", code], env=environment(), check=False, capture_output=True, text=True)
    assert ended.returncode == 130
    assert ended.stderr == ""
