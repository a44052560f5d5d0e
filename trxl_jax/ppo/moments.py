"""Running moments: which of the agent's variables are learned, and what a rollout adds to the others."""

from collections.abc import Mapping
from typing import Any

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.agent.normalization import COLLECTION, merge, merge_observations
from trxl_jax.ppo.groups import Grouping
from trxl_jax.ppo.rollout import Rollout

Variables = dict[str, Any]


def split(variables: Variables) -> tuple[Variables, Variables]:
    """What gradients and weight decay change, `{"params": ...}`, and everything else; `|` joins them again."""
    others = {name: collection for name, collection in variables.items() if name != "params"}
    return {"params": variables["params"]}, others


def with_rollout(agent: ActorCritic, variables: Variables, rollout: Rollout, groups: Grouping) -> Variables:
    """The variables with moments of all steps so far, those of the stacked rollout included."""
    if not agent.normalization:
        return variables
    moments = dict(variables[COLLECTION])
    if agent.normalization.observations:
        obs = rollout.observations.obs
        numbers = {name: obs[name] for name in moments["observations"]} if isinstance(obs, Mapping) else obs
        moments["observations"] = merge_observations(moments["observations"], groups.whole(numbers))
    if rollout.discounted_return is not None:
        moments["rewards"] = merge(moments["rewards"], groups.whole(rollout.discounted_return))
    return variables | {COLLECTION: moments}
