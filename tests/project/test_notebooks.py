"""The tutorials run as a reader would run them, in a kernel of their own, and say what their texts say.

Needs requirements-docs.txt; CI has it in an environment of its own.
"""

import re
import time
from pathlib import Path

import pytest

from tests.support.notebooks import NOTEBOOKS, printed, run

pytest.importorskip("nbclient", reason="needs requirements-docs.txt")
pytest.importorskip("ipykernel", reason="needs requirements-docs.txt")
pytestmark = pytest.mark.slow

SECONDS = 240
"""Two minutes on two quiet cores; twice that where others compute too."""


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern} in:\n{text}"
    return float(found[1])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path: Path) -> None:
    started = time.monotonic()
    text = printed(run(path, seconds=SECONDS))
    assert time.monotonic() - started < SECONDS
    if path.stem == "first_agent":
        assert number(r"100 new episodes: mean return (\S+),", text) > 1.0
    elif path.stem == "own_task_and_core":
        assert number(r"Transformer-XL .* (\d+)%", text) > 80
        assert number(r"highest so far .* (\d+)%", text) > 80
        assert number(r"no memory .* (\d+)%", text) < 40
    elif path.stem == "seeds":
        assert number(r"init_lr 3e-04: mean +(\S+),", text) > 1.0
    elif path.stem == "attention":
        assert number(r"goals as they were: +(\S+)", text) < 0.1
        assert number(r"goals exchanged: +(\S+)", text) > 0.9
    else:
        pytest.fail("say here what this tutorial must show")
