"""Makes the site of files that stay where a code host and their readers expect them.

- CHANGELOG.md and CONTRIBUTING.md, at the top of the repository, become pages.
- Notebooks become pages: text, code and the outputs that are stored in them.
- The page of settings gets a table of `Config`'s fields, read from its source.
- Links from pages to files outside `docs/` lead to pages with these files, so that the site needs no code host.
"""

import ast
import base64
import itertools
import json
import math
import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
TOP_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
SOURCE = "source"
"""Folder of the pages with files from outside `docs/`."""

SETTINGS = "<!-- settings -->"
"""Where a page has the table of all settings."""

_LANGUAGES = {".py": "python", ".pyi": "python", ".toml": "toml", ".sh": "bash", ".json": "json", ".yml": "yaml"}
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^\s*(```+|~~~+)")

origins: dict[str, Path] = {}
"""The file of the repository that each generated page shows, by the page's path."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    origins.clear()
    for name, page in TOP_PAGES.items():
        if page != "index.md":
            _add(files, config, page, ROOT / name, (ROOT / name).read_text())
    for notebook in sorted(DOCS.rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in notebook.parts:
            _add_notebook(files, config, notebook)
    pending = [(origin_of(file.src_uri), file.content_string) for file in files.documentation_pages()]
    while pending:
        origin, markdown = pending.pop()
        for target in _targets(markdown):
            path = _resolve(origin, target)
            if path is None or (path.is_file() and path.is_relative_to(DOCS)):
                continue
            page = page_of(path)
            if files.get_file_from_path(page) is None:
                shown, text = _source_page(path)
                _add(files, config, page, shown, text)
                pending.append((shown, text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files of the repository into links to their pages."""
    origin = origin_of(page.file.src_uri)
    if SETTINGS in markdown:
        markdown = markdown.replace(SETTINGS, settings())

    def rewrite(match: re.Match[str]) -> str:
        anchor = match[2].partition("#")[2]
        found = _resolve(origin, match[2])
        if found is None:
            return match[0]
        target = posixpath.relpath(page_of(found), posixpath.dirname(page.file.src_uri) or ".")
        return f"{match[1]}{target}{'#' if anchor else ''}{anchor}{match[3]}"

    return outside_fences(markdown, lambda line: _LINK.sub(rewrite, line))


def origin_of(src_uri: str) -> Path:
    """The file of the repository that a page shows."""
    return origins.get(src_uri, DOCS / src_uri)


def page_of(path: Path) -> str:
    """The page, or the file of the site, for a file or folder of the repository."""
    if path.is_relative_to(DOCS) and path.is_file():
        name = path.relative_to(DOCS).as_posix()
        return f"{name.removesuffix('.ipynb')}.md" if path.suffix == ".ipynb" else name
    name = path.relative_to(ROOT).as_posix()
    if name in TOP_PAGES:
        return TOP_PAGES[name]
    name = re.sub(r"(^|/)\.", r"\1dot-", name)  # MkDocs leaves hidden files out
    if path.is_dir() or path.name == "README.md":
        return f"{SOURCE}/{name.removesuffix('/README.md')}/index.md"
    return f"{SOURCE}/{name}" if path.suffix == ".md" else f"{SOURCE}/{name}.md"


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """Markdown with its lines changed, except those of code."""
    lines, fence = [], ""
    for line in markdown.split("\n"):
        marker = _FENCE.match(line)
        if marker and not fence:
            fence = marker[1]
        elif marker and marker[1].startswith(fence):
            fence = ""
        lines.append(line if fence or marker else change(line))
    return "\n".join(lines)


def _targets(markdown: str) -> list[str]:
    found: list[str] = []
    outside_fences(markdown, lambda line: (found.extend(match[1] for match in _LINK.findall(line)), line)[1])
    return found


def _resolve(origin: Path, target: str) -> Path | None:
    """The file or folder of the repository that a link in one of its files names; None if it names none."""
    path = target.partition("#")[0]
    if not path or re.match(r"[a-z]+:", path) or path.startswith("/"):
        return None
    found = Path(os.path.normpath((origin if origin.is_dir() else origin.parent) / path))
    return found if found.is_relative_to(ROOT) and found.exists() else None


def _add(files: Files, config: MkDocsConfig, page: str, origin: Path, content: str | bytes) -> None:
    origins[page] = origin
    files.append(File.generated(config, page, content=content))


def _source_page(path: Path) -> tuple[Path, str]:
    """What a page about a file or folder shows, and the file by which its links are meant."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        if (path / "README.md").is_file():
            return path / "README.md", (path / "README.md").read_text()
        entries = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith((".", "__pycache__")))
        return path / "README.md", f"# {name}\n\n" + "".join(f"- `{entry}`\n" for entry in entries)
    text = path.read_text()
    if path.suffix == ".md":
        return path, text
    language = _LANGUAGES.get(path.suffix, "text")
    front = "---\nsearch:\n  exclude: true\n---\n\n"
    return path, f"{front}# {name}\n\n````{language}\n{text}\n````\n"


def _add_notebook(files: Files, config: MkDocsConfig, notebook: Path) -> None:
    """A page with a notebook's cells; its pictures become files next to it."""
    folder, page = notebook.parent.relative_to(DOCS), page_of(notebook)
    pictures: list[bytes] = []

    def picture(data: bytes, suffix: str) -> str:
        pictures.append(data)
        name = f"{notebook.stem}_{len(pictures)}.{suffix}"
        _add(files, config, (folder / name).as_posix(), notebook, data)
        return name

    cells = json.loads(notebook.read_text())["cells"]
    parts = [_cell(cell, picture) for cell in cells]
    title, _, rest = parts[0].partition("\n")
    # As HTML, because links to the notebook lead to this page.
    note = f'<p><em>This page is a notebook: <a href="{notebook.name}" download>download {notebook.name}</a>.</em></p>'
    _add(files, config, page, notebook, "\n\n".join([title, note, rest, *parts[1:]]))


def _cell(cell: dict[str, Any], picture: Callable[[bytes, str], str]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    return "\n\n".join([f"```python\n{source}\n```", *(_output(output, picture) for output in cell["outputs"])])


def _output(output: dict[str, Any], picture: Callable[[bytes, str], str]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")})
    for kind in ("image/png", "image/gif", "image/svg+xml"):
        if kind in data:
            raw = "".join(data[kind])
            suffix = kind.removeprefix("image/").removesuffix("+xml")
            content = raw.encode() if suffix == "svg" else base64.b64decode(raw)
            return f"![output of the code above]({picture(content, suffix)})"
    text = "".join(data.get("text/plain", "")).rstrip()
    return f'<div class="notebook-output" markdown>\n\n```text\n{text}\n```\n\n</div>'


def settings() -> str:
    """Tables of the configuration's fields, in the groups of the command line's help."""
    config = ast.parse((ROOT / "trxl_jax" / "config.py").read_text())
    flags = ast.parse((ROOT / "trxl_jax" / "commands" / "config_flags.py").read_text())
    groups: dict[str, str] = ast.literal_eval(_value_of(flags, "_FIRST_FIELDS"))
    [fields] = [node.body for node in config.body if isinstance(node, ast.ClassDef) and node.name == "Config"]
    lines = []
    for field, docstring in itertools.pairwise(fields):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value):
            continue
        kind = ast.unparse(field.annotation)
        if "Suppress" in kind:
            continue
        name = field.target.id
        if name in groups:
            head = groups[name].replace("_", " ").capitalize()
            lines += ["", f"## {head}", "", "| setting | values | default | meaning |", "|---|---|---|---|"]
        assert isinstance(docstring, ast.Expr)
        meaning = " ".join(ast.literal_eval(docstring.value).split()).replace("|", "\\|").replace("<", "&lt;")
        default = "{}" if "field(" in ast.unparse(field.value) else _plain(field.value)
        lines.append(f"| `{name}` | {_values(config, field.annotation)} | `{default}` | {meaning} |")
    return "\n".join(lines)


def _value_of(module: ast.Module, name: str) -> ast.expr:
    [value] = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]
    ]
    return value


def _plain(value: ast.expr) -> str:
    """A default as one types it: products multiplied."""
    number = ast.unparse(value)
    return f"{math.prod(int(part) for part in number.split(' * ')):_}" if " * " in number else number.strip("'")


def _values(module: ast.Module, annotation: ast.expr) -> str:
    kind = ast.unparse(annotation)
    if kind.endswith("Name"):
        return _values(module, _value_of(module, kind))
    if kind.startswith("Literal["):
        return ", ".join(f"`{name}`" for name in re.findall(r"'([^']+)'", kind))
    names = {"bool": "yes or no", "int": "whole number", "float": "number", "str": "text", "JsonObject": "JSON"}
    return names[kind.removesuffix(" | None")]
