"""The site that MkDocs makes of `docs/`: complete, and without anything from elsewhere.

Needs requirements-docs.txt; CI has it in an environment of its own.
"""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.browser import chromium
from tests.support.paths import ROOT

pytest.importorskip("mkdocs", reason="needs requirements-docs.txt")
pytestmark = pytest.mark.slow


class Html(HTMLParser):
    """What a page of the site refers to, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.classes: set[str] = set()
        self.without_text: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        self.classes |= set(values.get("class", "").split())
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        for name in ("src", "srcset", "poster") + (("href",) if tag == "link" else ()):
            if name in values and values.get("rel") not in ("canonical", "next", "prev"):
                self.resources.append(values[name])
        if tag == "img" and not values.get("alt"):
            self.without_text.append(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Html]:
    return {path: Html(path) for path in site.rglob("*.html")}


def test_pages_load_nothing_from_elsewhere(parsed: dict[Path, Html], site: Path) -> None:
    for path, html in parsed.items():
        for resource in html.resources:
            assert not re.match(r"(https?:)?//", resource), f"{path.relative_to(site)} loads {resource}"
        assert "mermaid" not in html.classes, "Material would load Mermaid from elsewhere"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?https?:", style.read_text()), style


def test_links_and_pictures_of_the_site_exist(parsed: dict[Path, Html], site: Path) -> None:
    for path, html in parsed.items():
        if path.name == "404.html":  # its links are absolute
            continue
        for target in [*html.links, *html.resources]:
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            found = (path.parent / unquote(name)).resolve() if name else path
            assert found.exists(), f"{path.relative_to(site)}: {target} is missing"
            if anchor and found in parsed and not anchor.startswith("__"):
                assert unquote(anchor) in parsed[found].ids, f"{path.relative_to(site)}: {target} leads nowhere"
        assert html.without_text == []


def test_every_public_name_is_described(parsed: dict[Path, Html], site: Path) -> None:
    import trxl_jax

    ids = parsed[site / "reference" / "python.html"].ids
    found = {id_.rpartition(".")[2] for id_ in ids if id_.startswith("trxl_jax.")}
    assert set(dir(trxl_jax)) - {"__version__"} <= found


def test_settings_have_their_units(site: Path) -> None:
    text = (site / "reference" / "settings.html").read_text()
    assert "environment steps of the whole run" in text
    assert "seed_bits" not in text


def test_notebooks_show_their_outputs(site: Path) -> None:
    text = (site / "tutorials" / "first_agent.html").read_text()
    assert "notebook-output" in text
    assert 'href="first_agent.ipynb" download' in text
    assert (site / "tutorials" / "first_agent.ipynb").is_file()
    assert (site / "tutorials" / "first_agent_1.png").is_file()


@pytest.mark.browser
def test_the_search_works_from_a_folder(site: Path) -> None:
    """Browsers refuse workers there; `site/iframe-worker.js` takes their place. Nothing is asked of the network."""
    with chromium(1300, 900) as driver:
        driver.get((site / "guides" / "training.html").as_uri())
        from selenium.webdriver.support.wait import WebDriverWait

        box = driver.find_element("css selector", "input[name=query]")
        box.click()
        box.send_keys("staleness")
        found = WebDriverWait(driver, 20).until(
            lambda driver: driver.find_elements("css selector", ".md-search-result__item h1")
        )
        assert found[0].text == "Staleness"
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index", "coming_from", "environments", "reference/python", "tutorials/attention"])
def test_pages_fit_a_narrow_screen(site: Path, name: str) -> None:
    with chromium(400, 800, mobile=True) as driver:
        driver.get((site / f"{name}.html").as_uri())
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
