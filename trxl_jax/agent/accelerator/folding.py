"""What depends on parameters alone, and is computed once a rollout instead of once a step.

A module that has some has a method `fold`, which computes it, and reads it with `folded`; that of `ActorCritic` is for
its heads. `ActorCritic.fold_all` collects what all modules fold in the collection "folded", which has their structure,
and `with_folded` adds it to the variables once a rollout.
"""

from collections.abc import Iterable
from typing import Any

import flax.linen as nn

COLLECTION = "folded"
_NAME = "weights"


def folded(module: nn.Module) -> Any:
    """What the bound module folds: from the variables if it is there, else computed now."""
    if module.has_variable(COLLECTION, _NAME):
        return module.get_variable(COLLECTION, _NAME)
    return module.fold()


def collect(modules: Iterable[nn.Module]) -> dict[str, Any]:
    """The collection of what bound modules fold; those whose `fold` returns None have none."""
    collection: dict[str, Any] = {}
    for module in modules:
        weights = module.fold()
        if weights is None:
            continue
        weights = weights.for_acting() if hasattr(weights, "for_acting") else weights
        inner = collection
        for name in module.path:
            inner = inner.setdefault(name, {})
        inner[_NAME] = weights
    return collection
