"""Applies each mutant to a copy of the project and runs the tests that are to catch it.

    python -m tests.mutants [NAME...] [--list]

Prints one line per mutant and exits with 1 if one survived. About half a minute each; not part of CI.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.mutants.mutants import MUTANTS, Mutant
from tests.support.paths import ROOT

_COPIED = ("trxl_jax", "tests", "examples", "benchmarks", "pyproject.toml", "README.md", "train.py", "enjoy.py")
_TESTS_FAILED = 1  # pytest's exit status
_PATIENCE = 1200  # seconds; a mutant may make a loop that never ends


def apply(mutant: Mutant, root: Path) -> None:
    """Changes the copy of the project in `root`."""
    path = root / "trxl_jax" / mutant.file
    source = path.read_text()
    assert source.count(mutant.old) == 1, f"{mutant.name}: its text occurs {source.count(mutant.old)} times"
    path.write_text(source.replace(mutant.old, mutant.new))


def run_tests(tests: Iterable[str], root: Path, flags: list[str]) -> int:
    """Pytest's exit status for tests of the copy, those marked slow included, until one fails or none ends any more."""
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-m", "slow or not slow"]
    try:
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests, *flags],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
        ).returncode
    except subprocess.TimeoutExpired:
        return _TESTS_FAILED


def is_caught(mutant: Mutant, root: Path, flags: list[str]) -> bool:
    """Whether a test fails under a mutant; restores the copy afterwards."""
    apply(mutant, root)
    try:
        return run_tests(mutant.tests, root, flags) == _TESTS_FAILED
    finally:
        shutil.copyfile(ROOT / "trxl_jax" / mutant.file, root / "trxl_jax" / mutant.file)


def main() -> int:
    """Runs the mutants; 0 if all were caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of the names of mutants to run; none: all")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--pytest", nargs="*", default=[], help="further arguments of pytest")
    given = parser.parse_args()
    chosen = [m for m in MUTANTS if not given.names or any(name in m.name for name in given.names)]
    if given.list:
        print("\n".join(mutant.name for mutant in chosen))
        return 0
    survivors = []
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name in _COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            copy(ROOT / name, root / name)
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        if run_tests(tests, root, given.pytest):
            print(f"tests fail without a mutant: pytest -m 'slow or not slow' {' '.join(tests)}")
            return 1
        for mutant in chosen:
            started = time.monotonic()
            caught = is_caught(mutant, root, given.pytest)
            survivors += [] if caught else [mutant]
            print(
                f"{'caught' if caught else 'SURVIVED'}  {mutant.name} ({time.monotonic() - started:.0f} s)", flush=True
            )
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
