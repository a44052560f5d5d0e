"""Played episodes in a window, in videos and in pages."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from trxl_jax.envs.results import EpisodeResult as Result
from trxl_jax.play.episode import Moment, play_episode, trace
from trxl_jax.play.episode_page import write_page
from trxl_jax.play.pictures import frame
from trxl_jax.play.policy import Policy
from trxl_jax.play.task import Task
from trxl_jax.play.video import Video
from trxl_jax.play.window import Window, WindowClosed


class Screen(Protocol):
    """What shows frames."""

    def show(self, frame: np.ndarray) -> None:
        """Shows u8[height, width, 3]."""
        ...


class Shown(NamedTuple):
    """An episode that was played and shown.

    Fields:
        result: its numbers, but for the seconds it took.
        files: what was written of it.
    """

    result: Result
    files: list[Path]


def show_episodes(
    policy: Policy,
    task: Task,
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
) -> Iterator[Shown]:
    """Plays episodes 0 to `count` - 1, or until the window is closed.

    Args:
        policy: who plays.
        task: what is played.
        count: how many episodes.
        out: directory of the files.
        max_steps: see `play_episode`.
        render: some of human, video, html.
        video_format: mp4 or gif.
        deterministic: the most probable actions in place of sampled ones.
        driver: SDL's video driver as the user has chosen it, or None.
        model: a line for pages that names the agent.
        command: a line for pages that plays their episodes again.

    Raises:
        UserError: there is no display, or a file can't be written.
    """
    window = Window(task.fps, driver) if "human" in render else None
    try:
        for episode in range(count):
            stem = out / f"episode_{episode}"
            video = stem.with_suffix(f".{video_format}") if "video" in render else None
            page = stem.with_suffix(".html") if "html" in render else None
            result = show_episode(
                policy,
                task,
                episode,
                deterministic=deterministic,
                max_steps=max_steps,
                window=window,
                video=video,
                page=page,
                model=model,
                command=command,
            )
            yield Shown(result, [path for path in (video, page) if path is not None])
    except WindowClosed:
        return
    finally:
        if window is not None:
            window.close()


def show_episode(
    policy: Policy,
    task: Task,
    episode: int,
    *,
    deterministic: bool = False,
    max_steps: int | None = None,
    window: Screen | None = None,
    video: Path | None = None,
    page: Path | None = None,
    model: str = "",
    command: str = "",
) -> Result:
    """Plays an episode to its end and shows it; see `play_episode`.

    Args:
        policy: who plays.
        task: what is played.
        episode: its number.
        deterministic: the most probable actions in place of sampled ones.
        max_steps: see `play_episode`.
        window: shows each step as it is played.
        video: file to write, .mp4 or .gif.
        page: file to write, .html; the whole episode is kept in memory until then.
        model: see `show_episodes`.
        command: see `show_episodes`.

    Returns:
        The episode's numbers, but for the seconds it took.
    """
    kept: list[Moment] = []
    results: Result | None = None
    with ExitStack() as stack:
        screens = [] if window is None else [window]
        if video is not None:
            screens.append(stack.enter_context(Video(video, task.fps)))
        moments = play_episode(
            policy, task, episode, deterministic=deterministic, attention=page is not None, max_steps=max_steps
        )
        for moment in moments:
            _show(screens, task, moment.picture, moment.observation)
            if page is not None:
                kept.append(moment)
            results = moment.results
        _show(screens, task, task.picture, task.obs)
    if page is not None:
        write_page(page, trace(task, episode, kept), model=model, command=command)
    assert results is not None
    return {name: value for name, value in results.items() if name != "t"}


def film_episode(
    policy: Policy, task: Task, episode: int, path: Path, max_steps: int, stopped: Callable[[], bool]
) -> bool:
    """Writes a video of an episode or, if it is longer, of its first `max_steps`; see `play_episode`.

    Returns:
        False if `stopped()` came true meanwhile: then there is no file.
    """
    with Video(path, task.fps) as video:
        for moment in play_episode(policy, task, episode, max_steps=max_steps):
            if stopped():
                video.abandon()
                return False
            _show([video], task, moment.picture, moment.observation)
        _show([video], task, task.picture, task.obs)
    return True


def _show(screens: Sequence[Screen], task: Task, picture: np.ndarray | None, observation: np.ndarray) -> None:
    if screens:
        shown = frame(picture, task.upright(observation))
        assert shown is not None, "see require_pictures"
        for screen in screens:
            screen.show(shown)
