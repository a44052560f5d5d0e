"""The episode page in a real browser: it shows the recorded numbers and frames, and makes no network requests."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from tests.support.browser import chromium
from tests.support.probes import Cued
from tests.support.random_play import record
from tests.support.runs import untrained
from tests.support.space_probes import EVERYTHING, Repeating
from trxl_jax import Config
from trxl_jax.play.episode import make_record, play_episode
from trxl_jax.play.episode_page import write_page
from trxl_jax.play.record import EpisodeRecord
from trxl_jax.play.single_env import make_single_env

MINUS = "\N{MINUS SIGN}"
TRACES = {
    "memory-gym": lambda: record("MortarMayhem-v0", steps=90, window=33, render_mode="debug_rgb_array"),
    "minigrid": lambda: record("MiniGrid-MemoryS9-v0", steps=40, layers=2, heads=2, render_mode="rgb_array"),
    "vectors": lambda: record("ProofofMemory-v0", steps=12, window=16, layers=4, heads=1),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(1280, 1100) as driver:
        yield driver


class Page:
    """A page in the browser. The fixture checks at the end that there were no console messages and no requests."""

    def __init__(self, browser: Any, directory: Path) -> None:
        self.browser, self.directory = browser, directory

    def open(self, trace: EpisodeRecord, address: str = "", **texts: Any) -> None:
        path = self.directory / "episode.html"
        write_page(path, trace, **texts)
        self.browser.get("about:blank")
        self.browser.get(f"{path.as_uri()}{address}")
        self.run("return player.started")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map(node => node.textContent)", selector)

    def press(self, *keys: str) -> None:
        self.find("body").send_keys(*keys)

    def click_at(self, selector: str, across: float, down: float = 0.5, *, press: bool = True) -> None:
        """Clicks or, without `press`, hovers at fractions of an element's width and height."""
        from selenium.webdriver import ActionChains

        place = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", place)
        x, y = int((across - 0.5) * place.size["width"]), int((down - 0.5) * place.size["height"])
        chain = ActionChains(self.browser).move_to_element_with_offset(place, x, y)
        (chain.click() if press else chain).perform()

    @property
    def step(self) -> int:
        return self.run("return player.state.step")

    def pixels(self, selector: str, step: int) -> np.ndarray:
        """Waits until a canvas shows `step` and returns its pixels u8[height, width, 3]."""
        from selenium.webdriver.support.wait import WebDriverWait

        canvas = self.find(selector)
        WebDriverWait(self.browser, 10).until(lambda _: canvas.get_attribute("data-step") == str(step))
        width, height, data = self.run(
            "const {width, height} = arguments[0];"
            "const copy = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});"
            "copy.drawImage(arguments[0], 0, 0);"
            "return [width, height, [...copy.getImageData(0, 0, width, height).data]]",
            canvas,
        )
        return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]

    def thumbnails(self) -> list[tuple[int, float]]:
        items = self.browser.find_elements("css selector", "#strongest li:not(.empty)")
        return [(int(i.get_attribute("data-step")), float(i.get_attribute("data-weight"))) for i in items]

    def requests(self) -> set[str]:
        """URLs requested since the last call."""
        messages = (json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance"))
        return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Page]:
    page = Page(browser, tmp_path)
    page.requests()
    yield page
    assert browser.get_log("browser") == []
    own = (tmp_path.as_uri(), "data:", "chrome:")  # the last are pages of the browser itself
    assert {url for url in page.requests() if not url.startswith(own)} == set()
    assert page.run("return performance.getEntriesByType('resource').map(entry => entry.name)") == []


@pytest.fixture(scope="module")
def traces() -> dict[str, EpisodeRecord]:
    return {name: make() for name, make in TRACES.items()}


@pytest.mark.browser
@pytest.mark.parametrize("name", TRACES)
def test_numbers_equal_the_record(page: Page, traces: dict[str, EpisodeRecord], name: str) -> None:
    trace = traces[name]
    page.open(trace)
    for field in ("values", "rewards", "entropies", "probabilities", "actions"):
        held = np.array(page.run(f"return [...episode.{field}]"))
        np.testing.assert_array_equal(held, getattr(trace, field).ravel(), err_msg=field)


@pytest.fixture(scope="module")
def gru_trace() -> EpisodeRecord:
    config = Config(env_id="ProofofMemory-v0", core="gru", trxl_dim=16)
    task = make_single_env(config)
    policy = untrained(config, task.spec)
    return make_record(task, 0, list(play_episode(policy, task, 0, attention=True)))


def words_about_attention(page: Page) -> list[str]:
    """In texts and attributes of the page."""
    body = page.run(
        "const body = document.body.cloneNode(true);"
        "body.querySelectorAll('script').forEach(node => node.remove());"
        "return body.outerHTML"
    )
    return re.findall(r"atten\w+|\blayers?\b|\bheads?\b|\bweights?\b|picker|strongest", body)


def announced(page: Page) -> str:
    from selenium.webdriver.support.wait import WebDriverWait

    script = "return document.getElementById('announcer').textContent"
    return WebDriverWait(page.browser, 5).until(lambda _: page.run(script))


@pytest.mark.browser
def test_without_attention_the_norm_of_the_state_is_shown(page: Page, gru_trace: EpisodeRecord) -> None:
    trace = gru_trace
    page.open(trace, "#step=1&layer=1&head=1")
    held = np.array(page.run("return [...episode.stateNorms]"))
    np.testing.assert_array_equal(held, trace.state_norm)
    assert trace.state_norm is not None
    shown = [f"{norm:.3f}" for norm in trace.state_norm]
    assert len(set(shown)) > 3
    assert page.find("#norm").text == shown[1]
    page.click_at("#norm-plot", 5.5 / trace.num_steps)
    assert page.step == 5
    assert page.find("#norm").text == shown[5]
    assert page.find("#tip").text == f"step 5: norm {shown[5]}"
    drawn = (
        "const {width, height} = arguments[0];"
        "const {data} = arguments[0].getContext('2d').getImageData(0, 0, width, height);"
        "return data.filter((x, i) => i % 4 === 3 && x > 0).length"
    )
    assert page.run(drawn, page.find("#norm-plot")) > 100
    assert page.texts(".axis:not(#episode-columns) span") == page.texts("#episode-columns span") != []
    titles = page.run("return [...document.querySelectorAll('[data-title]')].map(node => node.dataset.title)")
    assert titles == ["value", "reward", "entropy", "step", "norm", "step"]


@pytest.mark.browser
@pytest.mark.parametrize("has_state", [True, False])
def test_without_attention_nothing_speaks_of_it(page: Page, gru_trace: EpisodeRecord, has_state: bool) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(gru_trace if has_state else dataclasses.replace(gru_trace, state_norm=None))
    page.press("l", "h", "m")
    assert page.run("return Object.keys(player.state)") == ["step", "playing", "speed"]
    page.press(Keys.ARROW_RIGHT)
    assert (" Norm of the state " in announced(page)) == has_state
    assert page.browser.current_url.endswith("#step=1")
    assert (page.texts("#norm") != []) == has_state
    assert words_about_attention(page) == []
    page.press("?")
    assert page.texts("#keys kbd") == ["Space", "K", "←", "→", "Shift", "Home", "End", MINUS, "+", "P", "N", "?"]
    page.press(Keys.ESCAPE)
    page.press(" ")
    page.press(" ")
    controls = page.browser.find_elements("css selector", "button, select, input, [role=img]")
    assert all(control.accessible_name for control in controls if control.is_displayed())


@pytest.mark.browser
def test_the_page_says_where_the_weight_of_the_step_itself_is_left_out(
    page: Page, traces: dict[str, EpisodeRecord]
) -> None:
    trace = traces["vectors"]
    page.open(trace)
    assert words_about_attention(page) != []
    assert "a step does not attend to itself." in page.find(".note").text
    script = "return episode.plane(0, 0).then(plane => plane.spread(5))"
    spread = page.run(script)
    assert trace.attention is not None
    page.open(dataclasses.replace(trace, attention=trace.attention / 2))
    assert "what a step gives to itself is not shown." in page.find(".note").text
    assert page.run(script) == pytest.approx(spread, rel=1e-3)


@pytest.mark.browser
@pytest.mark.parametrize("name", TRACES)
def test_attention_rows_sum_to_one(page: Page, traces: dict[str, EpisodeRecord], name: str) -> None:
    trace = traces[name]
    page.open(trace)
    steps, layers, heads, _ = trace.attention.shape
    ages = page.run("return episode.ages")
    for layer in range(layers):
        for head in range(heads):
            script = "return episode.plane(arguments[0], arguments[1]).then(plane => [...plane.weights])"
            held = np.array(page.run(script, layer, head)).reshape(steps, ages)
            np.testing.assert_allclose(held[1:].sum(axis=1), 1, atol=1e-6)
            assert not held[0].any()
            np.testing.assert_allclose(held, trace.attention[:, layer, head, :ages], atol=1e-4)
    mean = np.array(page.run("return episode.plane('mean', 0).then(plane => [...plane.weights])"))
    np.testing.assert_allclose(mean.reshape(steps, ages), trace.attention[:, :, 0, :ages].mean(axis=1), atol=1e-4)
    assert not trace.attention[..., ages:].any()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["memory-gym", "minigrid"])
def test_frames_are_shown_upright(page: Page, traces: dict[str, EpisodeRecord], name: str) -> None:
    trace = traces[name]
    page.open(trace)
    seen = trace.observations.swapaxes(1, 2) if name == "memory-gym" else trace.observations
    for step in (0, 17, trace.num_steps - 1):
        page.run("player.goTo(arguments[0])", step)
        np.testing.assert_array_equal(page.pixels("#views figure:nth-child(1) canvas", step), seen[step])
        np.testing.assert_array_equal(page.pixels("#views figure:nth-child(2) canvas", step), trace.pictures[step])


@pytest.mark.browser
def test_vectors_are_shown_as_numbers_and_bars(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    trace = traces["vectors"]
    page.open(trace, "#step=1")
    names, numbers = page.texts(".vector th"), page.texts(".vector .number")
    assert names == ["left goal", "position", "right goal"]
    assert numbers == [f"{x:.3f}".replace("-", MINUS) for x in trace.observations[1]]
    assert len(np.unique(page.pixels("#strongest canvas", 0).reshape(-1, 3), axis=0)) > 1


@pytest.mark.browser
def test_actions_and_probabilities_are_shown(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    trace = traces["memory-gym"]
    page.open(trace, "#step=5")
    names = (("stay", "left", "right"), ("stay", "up", "down"))
    assert page.texts(".branch li.taken") == [
        f"{names[branch][action]}, taken{trace.probabilities[5, 3 * branch + action]:.3f}"
        for branch, action in enumerate(trace.actions[5])
    ]
    assert page.texts(".branch .number") == [f"{x:.3f}" for x in trace.probabilities[5]]
    assert page.find("#value").text == f"{trace.values[5]:.3f}".replace("-", MINUS)
    assert page.find("#entropy").text == f"{trace.entropies[5]:.3f}"


@pytest.fixture(scope="module")
def numbers_trace() -> EpisodeRecord:
    """Of an agent with two choices and three numbers: bounded, without a bound, of one value."""
    buttons, box = spaces.MultiDiscrete([2, 3]), spaces.Box(np.float32([-1, 0, 2]), np.float32([1, np.inf, 2]))
    task = make_single_env(Config(), lambda: Cued(spaces.Dict({"buttons": buttons, "wheel": box})))
    policy = untrained(Config(trxl_dim=16, trxl_num_heads=2), task.spec)
    return make_record(task, 0, list(play_episode(policy, task, 0, attention=True)))


@pytest.mark.browser
def test_actions_that_are_numbers_are_shown_in_their_range(page: Page, numbers_trace: EpisodeRecord) -> None:
    trace = numbers_trace
    numbers = trace.numbers
    assert numbers is not None
    page.open(trace, "#step=3")
    assert page.texts(".branch h3") == ["buttons 0", "buttons 1"]
    assert page.texts(".branch .number") == [f"{x:.3f}" for x in trace.probabilities[3]]
    taken = [page.texts(".branch li .choice").index(f"{choice}, taken") for choice in trace.actions[3][:1]]
    assert taken == [trace.actions[3][0]]
    assert page.texts(".numbers tbody th") == ["wheel 0", "wheel 1", "wheel 2"]
    shown = [[f"{x:.3f}".replace("-", MINUS) for x in (mean, std, done)]
             for mean, std, done in zip(numbers.mean[3], numbers.std[3], numbers.taken[3], strict=True)]  # fmt: skip
    cells = page.texts(".numbers td.number")
    assert cells[::2] == [done for _, _, done in shown]
    assert cells[1::2] == [f"{mean} ± {std}" for mean, std, _ in shown]
    ranges = page.run("return [...document.querySelectorAll('td.range')].map(cell => cell.title)")
    assert ranges[0] == f"{MINUS}1 to 1"
    assert ranges[1].startswith("0 to ")
    assert ranges[1].endswith(" in this episode")
    assert numbers.taken[:, 2].tolist() == [2.0] * trace.num_steps
    # Where things are drawn, as shares of the range.
    places = page.run(
        "const row = document.querySelector('.numbers tbody tr');"
        "return ['.spread', '.mean', '.dot'].map(name => parseFloat(row.querySelector(name).style.left))"
    )
    mean, std = numbers.mean[3, 0], numbers.std[3, 0]
    expected = [100 * (np.clip(x, -1, 1) + 1) / 2 for x in (mean - std, mean, numbers.taken[3, 0])]
    np.testing.assert_allclose(places, expected, atol=0.1)
    drawn = page.run(
        "return [...document.querySelectorAll('.range i')].map(mark => mark.getBoundingClientRect().height)"
    )
    assert min(drawn) >= 6
    assert page.find("#entropy").text == f"{trace.entropies[3]:.3f}"
    assert "maximum" not in page.find("#entropy-limit").text
    page.press("k", "k")
    assert f"Action {trace.actions[page.step][0]}, " in announced(page)


@pytest.mark.browser
def test_a_page_with_numbers_alone(page: Page) -> None:
    task = make_single_env(Config(), lambda: Cued(spaces.Box(-1, 1, ())))
    trace = make_record(task, 0, list(play_episode(untrained(Config(core="gru"), task.spec), task, 0, attention=True)))
    page.open(trace)
    assert page.texts("#branches *") == []
    assert page.find("#action-note").text == ""
    assert page.find("#action-title").text.startswith("Distribution of the action")
    assert page.texts(".numbers tbody th") == ["action"]
    assert page.texts("#numbers small") == [f"bars from {MINUS}1 to 1"]


@pytest.mark.browser
def test_scrubbing_and_keys_change_the_step(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(traces["memory-gym"])
    page.click_at("#scrubber", 0.5)
    assert abs(page.step - 45) <= 1
    assert page.find("#position").text == f"step {page.step} / 89"
    here = page.step
    page.press(Keys.ARROW_RIGHT)
    assert page.step == here + 1
    page.press(Keys.SHIFT, Keys.ARROW_LEFT)
    assert page.step == here - 9
    page.press(Keys.END)
    assert page.step == 89
    page.press(Keys.ARROW_RIGHT)
    assert page.step == 89
    page.press(Keys.HOME)
    assert page.step == 0
    page.press("l")
    assert page.run("return player.state.layer") == 0
    page.press("H")
    assert page.run("return player.state.head") == 3
    page.press("m")
    assert page.run("return [player.state.layer, player.state.head]") == ["mean", "mean"]
    page.press("?")
    assert page.find("#keys").is_displayed()
    page.press(Keys.ESCAPE)
    assert not page.find("#keys").is_displayed()


@pytest.mark.browser
def test_playback_stops_at_the_end(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    page.open(traces["minigrid"])
    page.run("player.setSpeed(60)")
    page.press(" ")
    assert page.find("#play").accessible_name == "Pause"
    WebDriverWait(page.browser, 20).until(lambda _: not page.run("return player.state.playing"))
    assert page.step == 39
    assert page.find("#play").accessible_name == "Play"
    page.find("#play").click()  # restarts from step 0
    page.find("#play").click()
    assert page.step < 39


@pytest.mark.browser
def test_selecting_a_head_and_clicking_a_thumbnail(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    trace = traces["memory-gym"]
    page.open(trace, "#step=60")
    of_mean = page.thumbnails()
    page.find("#picker [aria-label='layer 2, head 3']").click()
    page.run("return player.select(player.state.layer, player.state.head)")
    assert page.find("#attention-selection").text == "layer 2, head 3"
    assert page.find("#picker [aria-checked=true]").accessible_name == "layer 2, head 3"
    shown = page.thumbnails()
    assert shown != of_mean
    weights = trace.attention[60, 1, 2]
    np.testing.assert_allclose([weight for _, weight in shown], np.sort(weights)[::-1][:8], atol=1e-4)
    for step, weight in shown:
        assert weights[60 - 1 - step] == pytest.approx(weight, abs=1e-4)
    past = shown[0][0]
    np.testing.assert_array_equal(page.pixels("#strongest canvas", past), trace.observations[past].swapaxes(0, 1))
    page.find("#strongest button").click()
    assert page.step == past
    page.pixels("#views canvas", past)


@pytest.mark.browser
def test_clicking_plots_goes_to_that_step(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    trace = traces["memory-gym"]
    page.open(trace)
    page.click_at("#value-plot", 0.25)
    assert abs(page.step - 22) <= 1
    page.click_at("#map-plot", across=0.6, down=0.8)
    row = page.step
    assert abs(row - 72) <= 1
    page.click_at("#map-plot", across=0.6, down=0.8, press=False)
    text = page.find("#tip").text
    past = int(text.split("→ ")[1].split(",")[0])
    assert abs(past - 54) <= 1
    weight = trace.attention[row].mean(axis=(0, 1))[row - 1 - past]
    assert text == f"step {row} → {past}, {row - past} steps back: {weight:.3f}"
    page.click_at("#profile-plot", 0.6)
    assert abs(page.step - 54) <= 1
    page.click_at("#map-plot", across=0.9, down=0.1, press=False)  # the future
    assert not page.find("#tip").is_displayed()


@pytest.mark.browser
def test_the_url_stores_step_layer_and_head(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    page.open(traces["memory-gym"], "#step=33&layer=mean&head=2")
    assert page.run("return [player.state.step, player.state.layer, player.state.head]") == [33, "mean", 1]
    page.run("player.goTo(34)")
    WebDriverWait(page.browser, 5).until(lambda d: d.current_url.endswith("#step=34&layer=mean&head=2"))
    page.open(traces["memory-gym"], "#step=1e9&layer=99&head=none")
    assert page.run("return [player.state.step, player.state.layer, player.state.head]") == [89, "mean", "mean"]


@pytest.mark.browser
def test_text_is_escaped(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    nasty = "</script><script>window.broken = 1</script><!--<script>{{style}} \u2028 'é\"&amp;"
    trace = dataclasses.replace(traces["vectors"], env_id=nasty, results={nasty: 1.0, "r": float("nan")})
    page.open(trace, model=nasty, command=nasty, title=f"</title>{nasty}", details={nasty: nasty})
    assert page.run("return window.broken") is None
    assert page.find("#replay").is_displayed()
    for selector in ("#task", "#model", "#command", "#details dd"):
        assert page.run("return arguments[0].textContent", page.find(selector)) == nasty
    assert page.run("return document.title.includes('window.broken')")
    assert "nan" in page.find("#results").text


@pytest.mark.browser
def test_the_content_security_policy_blocks_network_requests(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    page.open(traces["vectors"])
    script = "return fetch('http://127.0.0.1:9/').then(() => 'answered', error => error.name)"
    assert page.run(script) == "TypeError"
    messages = page.browser.get_log("browser")
    assert messages
    assert all("Content Security Policy" in entry["message"] for entry in messages)
    page.open(traces["vectors"])


@pytest.mark.browser
def test_the_page_follows_the_colour_scheme(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    page.open(traces["minigrid"], "#step=20")
    lightness = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page.open(traces["minigrid"], "#step=20")
        paper = page.run("return getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)")
        weak = page.run("return [...document.getElementById('legend').getContext('2d').getImageData(0, 0, 1, 1).data]")
        lightness.append((np.mean(paper), np.mean(weak[:3])))
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    (light_paper, light_weak), (dark_paper, dark_weak) = lightness
    assert min(light_paper, light_weak) > 200
    assert max(dark_paper, dark_weak) < 60


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("name", [*TRACES, "state", "numbers"])
@pytest.mark.parametrize("width", [360, 700, 959])
def test_a_narrow_page_needs_no_sideways_scrolling(
    page: Page,
    traces: dict[str, EpisodeRecord],
    gru_trace: EpisodeRecord,
    numbers_trace: EpisodeRecord,
    name: str,
    width: int,
) -> None:
    trace = {**traces, "state": gru_trace, "numbers": numbers_trace}[name]
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.open(trace, "#step=7", command="python enjoy.py runs/some/checkpoints/1 " * 3, following="b.html")
        assert page.run("return document.documentElement.scrollWidth") <= width
        widths = page.run("return [...document.querySelectorAll('.plot canvas')].map(plot => plot.clientWidth)")
        assert len(widths) == (4 if name == "state" else 5)
        assert min(widths) > 0.6 * width
        page.click_at("#value-plot", 0.25)
        assert abs(page.step - trace.num_steps / 4) <= 1
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
def test_axes_have_titles_and_ticks(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    page.open(traces["memory-gym"])
    titles = "return [...document.querySelectorAll('[data-title]')].map(node => node.dataset.title)"
    assert page.run(titles) == ["value", "reward", "entropy", "step", "weight", "step", "past step that is attended to"]
    shown = "return getComputedStyle(document.querySelector(arguments[0]), arguments[1]).content"
    assert page.run(shown, ".gutter", "::before") == '"value"'
    assert page.run(shown, "#map-columns", "::after") == '"past step that is attended to"'
    assert page.texts("#episode-columns span") == page.texts("#map-columns span") != []


@pytest.mark.browser
def test_the_page_says_what_numbers_without_names_are(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    nameless = dataclasses.replace(traces["vectors"], env_id="Some-v0")
    page.open(nameless)
    assert [name.removesuffix(", taken") for name in page.texts("#branches .choice")] == ["0", "1"]
    assert page.find("#action-note").text == "choices by number, from 0"
    assert "elements by index" in page.find("#views figcaption").text
    page.open(dataclasses.replace(nameless, action_names=(("noop", "fire"),)))
    assert page.texts("#branches .choice")[0].startswith("noop")
    assert page.find("#action-note").text == ""
    page.open(traces["vectors"])
    assert page.find("#views figcaption").text.endswith("observation, bars up to 1")


@pytest.mark.browser
def test_episodes_link_to_their_neighbours(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    page.open(traces["vectors"])
    assert not page.find("#episodes").is_displayed()
    write_page(page.directory / "next.html", traces["minigrid"], previous="episode.html")
    page.open(traces["vectors"], following="next.html")
    assert not page.find("#previous").is_displayed()
    page.press("p")
    page.press("n")
    assert page.find("#task").text == traces["minigrid"].env_id
    page.find("#previous").click()
    assert page.find("#task").text == traces["vectors"].env_id


@pytest.mark.browser
@pytest.mark.parametrize("window", [1, 2])
def test_smallest_episodes(page: Page, window: int) -> None:
    page.open(record("ProofofMemory-v0", steps=4, window=window, layers=1, heads=1))
    assert not page.find("#replay").is_displayed()
    page.run("player.goTo(3)")
    assert len(page.thumbnails()) == window - 1
    assert page.find("#attended-none").is_displayed() == (window == 1)
    trace = record("ProofofMemory-v0", steps=1, window=window, layers=1, heads=1)
    page.open(trace)
    page.press(" ", " ")
    assert page.step == 0


@pytest.mark.browser
def test_tick_labels_align_with_the_map_for_many_layers(page: Page) -> None:
    page.open(record("ProofofMemory-v0", steps=12, window=16, layers=12, heads=1))
    heights = page.run("return ['map-rows', 'map-plot'].map(id => document.getElementById(id).clientHeight)")
    assert heights[0] == heights[1] > 500
    page.click_at("#map-plot", across=0.1, down=0.96)
    assert page.step == 11


@pytest.mark.browser
def test_every_control_and_picture_has_an_accessible_name(page: Page, traces: dict[str, EpisodeRecord]) -> None:
    page.open(traces["memory-gym"], "#step=20")
    controls = page.browser.find_elements("css selector", "button, select, input, [role=img], [role=radiogroup]")
    visible = [control for control in controls if control.is_displayed()]
    assert len(visible) > 40
    assert [control.get_attribute("outerHTML") for control in visible if not control.accessible_name] == []


def test_equal_records_give_equal_small_files(tmp_path: Path) -> None:
    trace = record("SearingSpotlights-v0", steps=300, window=256, render_mode="debug_rgb_array")
    # Attention that compresses worst: independent weights.
    noise = np.random.default_rng(0).normal(0, 0.3, trace.attention.shape)
    attention = np.where(trace.attention > 0, np.exp(noise), 0)
    attention[1:] /= attention[1:].sum(axis=-1, keepdims=True)
    trace = dataclasses.replace(trace, attention=attention.astype(np.float32))
    for name in ("one.html", "two.html"):
        write_page(tmp_path / name, trace)
    page = (tmp_path / "one.html").read_bytes()
    assert page == (tmp_path / "two.html").read_bytes()
    assert len(page) < 1_000_000


@pytest.mark.browser
def test_nested_observations_are_shown_side_by_side(page: Page) -> None:
    """Pictures beside each other, scaled to the largest; all numbers below them, by name."""
    config = Config(trxl_dim=16, trxl_num_heads=2, trxl_num_layers=2, trxl_memory_length=6, env_id="Mine-v0")
    env = make_single_env(config.for_evaluation(1, 1), lambda: Repeating(EVERYTHING))
    steps = list(play_episode(untrained(config, env.spec), env, 0, attention=True))
    trace = make_record(env, 0, steps)
    page.open(trace)
    width, height = (84 + 8 + 84 + 8 + 44 * 84 // 40), 84  # cells, grey, picture
    assert page.pixels("#views canvas", 0).shape[:2] == (height, width)
    names = page.texts("#views .vector th")
    assert names[0] == "inside_0"
    assert names[-1] == "inside_2_speed"
    assert len(names) == 1 + 4 + 3 + 1
