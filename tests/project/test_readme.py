"""The README's Python examples run as they are written."""

import re

import jax
import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.optimised

README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_examples() -> None:
    assert any("vmap" in example for example in EXAMPLES)


@pytest.mark.parametrize(
    "example",
    [pytest.param(text, marks=[pytest.mark.slow] * ("train" in text)) for text in EXAMPLES],
    ids=lambda text: text.splitlines()[0].lstrip("# ")[:40],
)
def test_example(example: str) -> None:
    namespace: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), namespace)
    if "returns" in namespace:
        returns = namespace["returns"]
        assert isinstance(returns, jax.Array)
        assert (returns[:, -1] >= 1.1).all()
