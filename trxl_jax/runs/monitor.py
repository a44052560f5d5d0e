"""Evaluations and videos between updates. Nothing that training computes depends on them."""

from pathlib import Path
from typing import Any

from trxl_jax.config import Config
from trxl_jax.envs.base import Environment
from trxl_jax.envs.registry import make_env
from trxl_jax.errors import ConfigError
from trxl_jax.play.evaluation import make_evaluator
from trxl_jax.play.frame_layout import require_pictures
from trxl_jax.play.policy import Policy
from trxl_jax.play.show import film_episode
from trxl_jax.play.single_env import make_single_env
from trxl_jax.signals import StopSignals

UNWATCHED = {"eval_every": 0, "keep_best": False, "capture_video": False, "track": False}
"""Changes to a configuration after which nobody evaluates, films or follows the run."""

_MAX_VIDEO_STEPS = 2048  # of an episode that may never end


class Monitor:
    """Evaluates and films the agent in separate environments, with separate seeds and keys.

    Args:
        config: eval_every, eval_episodes, eval_max_steps, capture_video, video_every, and the task.
        env: an environment object to use instead of `config.env_id`, as for `make_env`.
        directory: of the videos.

    Raises:
        ConfigError: the task can't be made a second time, or has nothing to film.
    """

    def __init__(self, config: Config, env: Any, directory: Path) -> None:
        self._config = config
        self._directory = directory
        flag = "--eval_every" if config.eval_every else "--capture_video" if config.capture_video else None
        if flag and isinstance(env, Environment):
            raise ConfigError(f"{flag}: `env` is a batch of environments; pass a function that makes one, or an id")
        self._evaluator = self._env = None
        if config.eval_every:
            num_envs = min(config.num_envs, config.eval_episodes)
            playing = config.for_evaluation(num_envs, config.seed, config.eval_max_steps)
            self._evaluator = make_evaluator(make_env(playing, env), config.eval_episodes, seed=playing.seed)
        if config.capture_video:
            self._env = make_single_env(config.for_evaluation(1, config.seed), env, pictures=True)
            require_pictures(self._env, "--capture_video")

    def evaluate(self, policy: Policy, iteration: int, stop: StopSignals) -> dict[str, float]:
        """`eval/<name>_mean` over `eval_episodes` episodes; empty if none is due, or a signal arrived meanwhile."""
        if self._evaluator is None or iteration % self._config.eval_every:
            return {}
        evaluation = self._evaluator(policy, stop.__bool__)
        return {} if evaluation is None else {f"eval/{name}_mean": mean for name, mean in evaluation.means.items()}

    def film(self, policy: Policy, iteration: int, stop: StopSignals) -> Path | None:
        """The video of an episode, a different one each time; None if none is due or missing, or a signal arrived."""
        path = self._directory / f"step_{iteration * self._config.batch_size}.mp4"
        if self._env is None or iteration % self._config.video_every or path.exists():
            return None
        self._directory.mkdir(exist_ok=True)
        return path if film_episode(policy, self._env, iteration, path, _MAX_VIDEO_STEPS, stop.__bool__) else None

    def close(self) -> None:
        """Closes the environment that is filmed; the evaluation's environments are open only while it runs."""
        if self._env is not None:
            self._env.close()
