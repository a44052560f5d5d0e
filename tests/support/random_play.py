"""Records of real tasks played at random with synthetic attention, for the tests of the episode page."""

import numpy as np

from trxl_jax.envs.observations import read_observation_space
from trxl_jax.envs.registry import make_single
from trxl_jax.play.record import EpisodeRecord


def record(
    env_id: str,
    *,
    steps: int,
    window: int = 32,
    layers: int = 3,
    heads: int = 4,
    seed: int = 0,
    render_mode: str | None = None,
) -> EpisodeRecord:
    """Plays `steps` steps and returns them as one episode; where an episode ends earlier, the next one is appended."""
    rng = np.random.default_rng(seed)
    env = make_single(env_id, render_mode=render_mode)
    nvec = tuple(int(n) for n in getattr(env.action_space, "nvec", [getattr(env.action_space, "n", 0)]))
    probabilities = np.concatenate([_random_walk_probabilities(rng, steps, n) for n in nvec], axis=1)
    branches = np.split(probabilities, np.cumsum(nvec)[:-1], axis=1)
    observations, pictures, actions, rewards = [], [], [], []
    obs, _ = env.reset(seed=seed)
    for k in range(steps):
        choice = np.array([rng.choice(len(p[k]), p=p[k] / p[k].sum()) for p in branches], np.int32)
        observations.append(np.array(obs))
        actions.append(choice)
        if render_mode:
            pictures.append(np.array(env.render()))
        obs, reward, terminated, truncated, _ = env.step(choice if len(nvec) > 1 else choice[0])
        rewards.append(reward)
        if terminated or truncated:
            obs, _ = env.reset(seed=seed + k + 1)
    env.close()
    return EpisodeRecord(
        env_id=env_id,
        seed=seed,
        episode=0,
        observations=np.stack(observations),
        observation_space=read_observation_space(env_id, env.observation_space).space,
        pictures=np.stack(pictures) if pictures else None,
        actions=np.stack(actions),
        action_nvec=nvec,
        probabilities=probabilities.astype(np.float32),
        entropies=-(probabilities * np.log(probabilities)).sum(axis=1).astype(np.float32),
        values=np.cumsum(rng.normal(0, 0.05, steps)).astype(np.float32),
        rewards=np.array(rewards, np.float32),
        attention=_attention(rng, steps, layers, heads, window),
        results={"r": float(np.sum(rewards)), "l": float(steps), "success": 0.0},
    )


def _random_walk_probabilities(rng: np.random.Generator, steps: int, choices: int) -> np.ndarray:
    """Slowly changing probabilities f64[steps, choices]."""
    logits = np.cumsum(rng.normal(0, 0.3, (steps, choices)), axis=0)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True)) + 1e-3
    return weights / weights.sum(axis=1, keepdims=True)


def _attention(rng: np.random.Generator, steps: int, layers: int, heads: int, window: int) -> np.ndarray:
    """Attention f32[steps, layers, heads, window - 1] from random-walk queries and keys, so it changes slowly."""
    shape = (layers, heads, steps, 6)
    queries, keys = (np.cumsum(rng.normal(0, 0.25, shape), axis=2) for _ in range(2))
    age = np.arange(steps)[:, None] - 1 - np.arange(steps)
    visible = (age >= 0) & (age < window - 1)
    energy = np.where(visible, np.einsum("lhqd,lhkd->lhqk", queries, keys), -1e9)
    weight = np.where(visible, np.exp(energy - energy.max(axis=-1, keepdims=True)), 0)
    weight /= np.maximum(weight.sum(axis=-1, keepdims=True), 1e-9)
    attention = np.zeros((steps, layers, heads, window - 1), np.float32)
    query, past = np.nonzero(visible)
    attention[query, :, :, age[query, past]] = weight[:, :, query, past].transpose(2, 0, 1)
    return attention
