"""The package's metadata: one version, files that are installed, and commands that say how they were started."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import trxl_jax
from tests.support.paths import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["version"]
    assert trxl_jax.__version__ == version
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert re.search(rf"^## \[{re.escape(version)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_page_of_moved_modules_names_modules_that_exist() -> None:
    page = (ROOT / "docs" / "reference" / "moved_modules.md").read_text()
    rows = re.findall(r"^\| `.* \| (`.*`) \|$", page, re.MULTILINE)
    modules = {module for row in rows for module in re.findall(r"`(.*?)`", row)}
    assert len(modules) > 50
    assert {module for module in modules if find_spec(module) is None} == set()


def test_license_files_exist() -> None:
    for name in PROJECT["license-files"]:
        assert "MIT License" in (ROOT / name).read_text()


def test_every_data_file_is_installed() -> None:
    package_data = PYPROJECT["tool"]["setuptools"]["package-data"]
    installed = {
        path
        for package, patterns in package_data.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    folder = ROOT / "trxl_jax"
    found = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in found if path.suffix != ".py" and path.name != "README.md"} == installed
    assert all((path.parent / "__init__.py").is_file() for path in found)


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_console_scripts_name_functions(name: str) -> None:
    module, _, function = PROJECT["scripts"][name].partition(":")
    assert callable(getattr(import_module(module), function))


def start(tmp_path: Path, form: str, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Starts the training command as a console script, as a module or as the repository's script."""
    console_script = tmp_path / "bin" / "trxl-train"  # as pip writes it
    console_script.parent.mkdir()
    console_script.write_text("import sys\nfrom trxl_jax.commands.train import cli\nsys.exit(cli())\n")
    (tmp_path / "train.py").write_text((ROOT / "train.py").read_text())
    line = {
        "trxl-train": [str(console_script)],
        "python train.py": ["train.py"],
        "python -m trxl_jax.commands.train": ["-m", "trxl_jax.commands.train"],
    }[form]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *line, *flags], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("form", ["trxl-train", "python train.py", "python -m trxl_jax.commands.train"])
def test_help_names_the_command_that_was_typed(form: str, tmp_path: Path) -> None:
    process = start(tmp_path, form, "--help")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"usage: {form} [-h]")
    assert f"{form} [PRESET]" in process.stdout
