"""The documentation: links lead somewhere, code runs, commands exist, and nothing public is missing."""

import dataclasses
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import trxl_jax
from tests.support.pages import anchors, blocks, commands, links, markdown, name_of, pages, prose
from tests.support.paths import ROOT
from trxl_jax.commands import enjoy, train
from trxl_jax.config import Config
from trxl_jax.envs.registry import find_env
from trxl_jax.experiments.__main__ import RunArguments
from trxl_jax.presets import PRESETS
from trxl_jax.publish import __main__ as publish

pytestmark = pytest.mark.optimised

PAGES = pages()
MAX_BYTES = 1_000_000
"""Of a picture."""

FRAGMENTS = {"docs/cores.md"}
"""Pages whose Python shows the form of something, with dots in the place of code."""

CHEAP = {"docs/coming_from.md", "docs/reference/python.md", "docs/guides/importing.md"}
"""Pages whose code takes less than five seconds."""

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for _, _, target in links(page):
        if re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target} is missing"
        assert found.is_relative_to(ROOT), f"{target} leaves the repository"
        assert not anchor or anchor in anchors(found), f"{target}: no such heading"


@each_page
def test_pictures_are_small_and_described(page: Path) -> None:
    for is_picture, text, target in links(page):
        if is_picture:
            assert not target.startswith("http"), f"{target} comes from elsewhere"
            assert len(text) > 20, f"{target}: say what it shows, for who can't see it"
            assert (page.parent / target).stat().st_size < MAX_BYTES


def test_every_picture_is_shown() -> None:
    shown = {(page.parent / target).resolve() for page in PAGES for is_picture, _, target in links(page) if is_picture}
    assert {path.resolve() for path in (ROOT / "docs" / "images").iterdir()} - shown == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


def test_every_page_of_docs_is_in_the_navigation() -> None:
    """Or made by the site's hooks."""
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    listed = set(re.findall(r"([\w/]+\.md)$", navigation, re.MULTILINE))
    docs = ROOT / "docs"
    own = {path.relative_to(docs).as_posix() for path in PAGES if path.is_relative_to(docs)}
    own = {name.replace(".ipynb", ".md") for name in own} | {"changelog.md", "contributing.md"}
    assert listed == own


WITH_PYTHON = [page for page in PAGES if page.suffix == ".md" and blocks(page, "python")]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[] if name_of(page) in CHEAP else [pytest.mark.slow])
        for page in WITH_PYTHON
        if name_of(page) not in FRAGMENTS | {"README.md"}  # test_readme.py runs the README's
    ],
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block after the other, as a reader would try them, in an empty folder next to the repository's tests."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    namespace: dict[str, object] = {"__name__": "page"}
    for i, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{name_of(page)}, block {i + 1}", "exec"), namespace)


def _parse_train(flags: list[str]) -> None:
    train.parse([flag for flag in flags if flag != "--help"])


PARSERS: dict[str, Callable[[list[str]], object]] = {
    "python train.py": _parse_train,
    "trxl-train": _parse_train,
    "python enjoy.py": enjoy.parse,
    "trxl-enjoy": enjoy.parse,
}
ELLIPSES = re.compile(r"\.\.\.|\b(PRESET|NAME|RUN|FILE|RUN_DIR|DIR|PYTHON)\b|\$|\*|\[--flags\]")


def typed_commands() -> dict[str, list[str]]:
    """The commands of all pages that train or play an agent, and can be parsed without a run's directory."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        for line in commands(page):
            for part in re.split(r" && |; | \|\| ", line):
                start = next((start for start in PARSERS if part.startswith(f"{start} ")), None)
                if start and not ELLIPSES.search(part) and not re.search(r"--resume (?!auto)", part):
                    found.setdefault(part, [start, *shlex.split(part.removeprefix(start))])
    return found


COMMANDS = typed_commands()


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 30


def test_the_commands_of_all_pages_are_understood() -> None:
    for line, (start, *flags) in COMMANDS.items():
        try:
            PARSERS[start](flags)
        except (SystemExit, trxl_jax.UserError) as error:
            pytest.fail(f"{line}: {error}")


def flags_of(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


OTHER_FLAGS = {
    *("resume", "num_seeds", "help", "flags", "no-clip_vloss", "no-norm_adv"),  # of train.py, and of its usage
    *("devices", "coordinator", "process", "processes"),
    *("metric", "group_by", "csv", "smooth", "x"),  # of plot
    *("original", "original_python", "original_minibatches", "iterations", "batches"),  # of measurements
    *("repeats", "host_episodes", "only"),
    *("no-deps", "wheel-dir"),  # of pip
    *("worker", "command"),  # of gcloud
    *("cuda", "torch_deterministic", "save_model"),  # of the original
}


@each_page
def test_flags_that_a_page_mentions_exist(page: Path) -> None:
    known = OTHER_FLAGS.union(*map(flags_of, (Config, enjoy.Arguments, RunArguments, publish.Arguments)))
    text = prose(page)
    if page.name == "coming_from.md":  # the left columns are the other projects'
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)
    mentioned = {
        flag for code in re.findall(r"`([^`]+)`", text) for flag in re.findall(r"--([a-zA-Z][\w-]*)(?![\w*])", code)
    }
    assert {flag for flag in mentioned if flag not in known and not flag.startswith("xla_")} == set()


def test_presets_are_listed() -> None:
    guide = (ROOT / "docs" / "guides" / "training.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([\w-]+) \|", guide, re.MULTILINE))
    assert rows == {name: config.env_id for name, config in PRESETS.items()}
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in PRESETS)


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "python.md").read_text()
    documented = set(re.findall(r"^::: trxl_jax\.(\w+)$", text, re.MULTILINE))
    assert documented == set(dir(trxl_jax)) - {"__version__"}


def test_tasks_of_examples_exist() -> None:
    for line, (start, *flags) in COMMANDS.items():
        if "train" in start and not re.search(r"my_module|recall:|leaky:|examples\.|popgym-", line):
            find_env(train.parse([flag for flag in flags if flag != "--help"]).config)


def test_notebooks_are_tidy() -> None:
    notebooks = [page for page in PAGES if page.suffix == ".ipynb"]
    assert len(notebooks) == 4
    for page in notebooks:
        text = page.read_text()
        assert len(text) < 400_000, f"{name_of(page)}: its outputs are large"
        assert '"output_type": "error"' not in text
        assert not re.search(r"/(home|root|work|tmp|Users)/", text), f"{name_of(page)} names a folder of somebody's"
        assert '"execution_count": null' not in text, f"{name_of(page)}: run python -m tests.support.notebooks"
        assert markdown(page).startswith("# ")
