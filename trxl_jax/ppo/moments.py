"""Running moments: which of the agent's variables are learned, and what a rollout adds to the others."""

from typing import Any

from trxl_jax.agent.actor_critic import ActorCritic
from trxl_jax.agent.normalization import COLLECTION, merge, merge_observations
from trxl_jax.ppo.rollout import Rollout

Variables = dict[str, Any]


def split(variables: Variables) -> tuple[Variables, Variables]:
    """What gradients and weight decay change, `{"params": ...}`, and everything else; `|` joins them again."""
    others = {name: collection for name, collection in variables.items() if name != "params"}
    return {"params": variables["params"]}, others


def with_rollout(agent: ActorCritic, variables: Variables, rollout: Rollout) -> Variables:
    """The variables with moments of all steps so far, those of the rollout, arrays [T, N, ...], included."""
    if not agent.normalization:
        return variables
    moments = dict(variables[COLLECTION])
    if agent.normalization.observations:
        moments["observations"] = merge_observations(moments["observations"], rollout.observations.obs)
    if rollout.discounted_return is not None:
        moments["rewards"] = merge(moments["rewards"], rollout.discounted_return)
    return variables | {COLLECTION: moments}
