"""What readers see: the pages of the documentation, their links, code blocks and commands."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT

_FENCE = re.compile(r"^( *)(```+)(\S*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """Every page: those of `docs/`, of the top of the repository, of its folders, and notebooks."""
    rooms = (ROOT / "trxl_jax").rglob("README.md")
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb"), *rooms]
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


def name_of(path: Path) -> str:
    """Its path from the top of the repository."""
    return path.relative_to(ROOT).as_posix()


@cache
def markdown(path: Path) -> str:
    """The page's text; of a notebook that of its text cells, with its code in fences."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in sources)


def blocks(path: Path, language: str) -> list[str]:
    """The page's code blocks in a language."""
    return [match[4] for match in _FENCE.finditer(markdown(path)) if match[3] == language]


def prose(path: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", markdown(path))


def links(path: Path) -> Iterator[tuple[bool, str, str]]:
    """Each link: whether it is a picture, its text and its target."""
    for match in _LINK.finditer(prose(path)):
        yield match[1] == "!", match[2], match[3]


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of the page's headings, as code hosts and MkDocs make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(path), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-{sum(a.startswith(slug) for a in found)}")
    return frozenset(found)


def commands(path: Path) -> Iterator[str]:
    """The lines of the page's shell blocks, continued lines joined, without comments."""
    for block in blocks(path, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            text = re.sub(r"(^|\s)#.*$", "", line).strip()
            if text:
                yield text
