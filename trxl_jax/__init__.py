"""PPO with Transformer-XL as episodic memory, in JAX and Flax.

The public surface stands in `__init__.pyi`: other names may move from release to release. Names are imported when they
are first used: worker processes of host environments import this package too, and need neither JAX nor Flax.
"""

from typing import Any

import lazy_loader

_load, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = (*_names, "__version__")  # noqa: PLE0604 - they are strings


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("trxl-jax")
    return _load(name)


def __dir__() -> list[str]:
    return sorted(__all__)
