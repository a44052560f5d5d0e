"""Plays episodes and shows them: in a window, as videos and as HTML pages."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from trxl_jax.config import evaluation_seed
from trxl_jax.envs.results import EpisodeResult as Result
from trxl_jax.play.episode import StepRecord, make_record, play_episode, split_action
from trxl_jax.play.episode_page import write_page
from trxl_jax.play.episode_page.tasks import Branches, branches
from trxl_jax.play.frame_layout import frame, with_caption
from trxl_jax.play.policy import Policy
from trxl_jax.play.single_env import SingleEnv
from trxl_jax.play.video import video_file
from trxl_jax.play.window import DisplayWindow, WindowClosed

_MOST_NUMBERS = 4  # of an action, in a caption


class FrameSink(Protocol):
    """Anything that takes the frames of an episode one by one: a window or a video file."""

    def show(self, frame: np.ndarray) -> None:
        """Shows u8[height, width, 3]."""
        ...


class ShownEpisode(NamedTuple):
    """An episode that was played and shown.

    Fields:
        result: the episode's statistics.
        files: paths of the files written for it.
    """

    result: Result
    files: list[Path]


def show_episodes(
    policy: Policy,
    env: SingleEnv,
    count: int,
    out: Path,
    *,
    max_steps: int | None = None,
    render: Collection[str] = (),
    video_format: str = "mp4",
    deterministic: bool = False,
    driver: str | None = None,
    model: str = "",
    command: str = "",
) -> Iterator[ShownEpisode]:
    """Plays episodes 0 to `count` - 1, or until the window is closed.

    Args:
        policy: the agent.
        env: the environment.
        count: number of episodes.
        out: directory to write files to.
        max_steps: see `play_episode`.
        render: any of human, video, html.
        video_format: mp4 or gif.
        deterministic: take the most probable actions instead of sampling.
        driver: SDL video driver the user has set, or None.
        model: one line that names the agent, shown on pages.
        command: command line that replays the episodes, shown on pages.

    Yields:
        Each episode once it has ended.

    Raises:
        UserError: there is no display, or a file can't be written.
    """
    # Of another seed, or of the most probable actions, it is another episode.
    stem = f"seed_{evaluation_seed(env.seed)}_{'deterministic_' * deterministic}episode_"
    window = DisplayWindow(env.fps, driver) if "human" in render else None
    try:
        for episode in range(count):
            video = out / f"{stem}{episode}.{video_format}" if "video" in render else None
            page = out / f"{stem}{episode}.html" if "html" in render else None
            result = show_episode(
                policy,
                env,
                episode,
                deterministic=deterministic,
                max_steps=max_steps,
                window=window,
                video=video,
                page=page,
                model=model,
                command=command,
                previous=f"{stem}{episode - 1}.html" if episode else None,
                following=f"{stem}{episode + 1}.html" if episode + 1 < count else None,
            )
            yield ShownEpisode(result, [path for path in (video, page) if path is not None])
    except WindowClosed:
        return
    finally:
        if window is not None:
            window.close()


def show_episode(
    policy: Policy,
    env: SingleEnv,
    episode: int,
    *,
    deterministic: bool = False,
    max_steps: int | None = None,
    window: FrameSink | None = None,
    video: Path | None = None,
    page: Path | None = None,
    model: str = "",
    command: str = "",
    previous: str | None = None,
    following: str | None = None,
) -> Result:
    """Plays one episode and shows it; see `play_episode`.

    Args:
        policy: the agent.
        env: the environment.
        episode: number of the episode, which selects its random seed.
        deterministic: take the most probable actions instead of sampling.
        max_steps: see `play_episode`.
        window: shows each step as it is played.
        video: video file to write, .mp4 or .gif.
        page: HTML file to write. The whole episode is held in memory until it has ended.
        model: see `show_episodes`.
        command: see `show_episodes`.
        previous: see `write_page`.
        following: see `write_page`.

    Returns:
        The episode's statistics.
    """
    recorded: list[StepRecord] = []
    with ExitStack() as stack:
        sinks = [] if window is None else [window]
        if video is not None:
            sinks.append(stack.enter_context(video_file(video, env.fps)))
        steps = play_episode(
            policy, env, episode, deterministic=deterministic, attention=page is not None, max_steps=max_steps
        )
        for step in _shown(env, steps, sinks):
            if page is None:
                recorded.clear()
            recorded.append(step)
    if page is not None:
        record = make_record(env, episode, recorded)
        write_page(page, record, model=model, command=command, previous=previous, following=following)
    results = recorded[-1].results
    assert results is not None
    return results


def film_episode(
    policy: Policy, env: SingleEnv, episode: int, path: Path, max_steps: int, stopped: Callable[[], bool]
) -> bool:
    """Writes a video of an episode's first `max_steps` steps at most; see `play_episode`.

    Args:
        policy: the agent.
        env: the environment.
        episode: number of the episode.
        path: video file to write, .mp4 or .gif.
        max_steps: number of steps after which the video ends.
        stopped: called before each step; if it returns True, recording is abandoned.

    Returns:
        Whether the video was written; False if `stopped()` returned True.
    """
    try:
        with video_file(path, env.fps) as video:
            for _ in _shown(env, play_episode(policy, env, episode, max_steps=max_steps), [video]):
                if stopped():
                    raise _Stopped
    except _Stopped:
        return False
    return True


class _Stopped(Exception):
    """Leaves the context of a video so that no file is written."""


def _shown(env: SingleEnv, steps: Iterator[StepRecord], sinks: Sequence[FrameSink]) -> Iterator[StepRecord]:
    """The steps of an episode, each after it was shown with its action and reward; at last also how it ended."""
    names = branches(env.env_id, env.spec.action.nvec, env.action_names)
    number, episode_return = -1, 0.0
    for number, step in enumerate(steps):
        episode_return += step.reward
        caption = (
            f"step {number}, action {_action_text(env, names, step.action)}",
            f"reward {step.reward:.4g}, return {episode_return:.4g}",
        )
        _show(sinks, env, step.picture, step.observation, caption)
        yield step
    _show(sinks, env, env.picture, env.obs, (f"end after {number + 1} steps", f"return {episode_return:.4g}"))


def _action_text(env: SingleEnv, names: Branches, action: np.ndarray) -> str:
    """An action [C] in words, of many numbers the first."""
    choices, numbers = split_action(env.spec.action, action)
    taken = [known[choice] for (_, known), choice in zip(names, choices, strict=True)]
    taken += [f"{number:.2f}" for number in numbers[:_MOST_NUMBERS]]
    return ", ".join(taken) + ", ..." * (len(numbers) > _MOST_NUMBERS)


def _show(
    sinks: Sequence[FrameSink],
    env: SingleEnv,
    picture: np.ndarray | None,
    observation: Any,
    caption: Sequence[str],
) -> None:
    if not sinks:
        return
    shown = frame(picture, env.pictures_of(observation))
    assert shown is not None, "the task has nothing to show"
    for sink in sinks:
        sink.show(with_caption(shown, caption))
