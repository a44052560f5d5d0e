"""Iterations of PPO with Transformer-XL written out in NumPy: loops over environments, steps and samples, in float64.

It follows the design, not the package: every environment keeps its whole history, of which a query's slots are a slice,
and nothing is batched, cached or padded. Of the package it uses the configuration, the names of parameters and the
environments. JAX only draws the random numbers, from keys that are derived here.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.support.autodiff import Node, exp, gradients, maximum, minimum
from tests.support.reference_agent import Agent, Output, Slot, Tree, clip, scale_of
from trxl_jax.config import Config

Arrays = dict[str, np.ndarray]
Losses = dict[str, float]


class Sample(NamedTuple):
    """One step of one environment, as learning sees it; `slots` are those that are visible in it."""

    obs: np.ndarray
    slots: list[Slot]
    action: np.ndarray
    log_prob: np.ndarray
    value: float
    advantage: float
    returns: float


@dataclass
class Iteration:
    """What one iteration did.

    Fields:
        transitions: [T, N, ...] by name.
        episodes: done, episode_return and episode_length, each [T, N]; the latter two are 0 where not done.
        metrics: by published name.
        epochs: how many were run.
    """

    transitions: Arrays
    episodes: Arrays
    metrics: Losses
    epochs: int


class AdamW:
    """PyTorch's: betas 0.9 and 0.999, epsilon 1e-8, weight decay 0.01 on every parameter."""

    def __init__(self, leaves: list[np.ndarray]) -> None:
        self.steps = 0
        self.first, self.second = ([np.zeros_like(leaf) for leaf in leaves] for _ in range(2))

    def step(self, leaves: list[np.ndarray], grads: list[np.ndarray], learning_rate: float) -> list[np.ndarray]:
        self.steps += 1
        self.first = [0.9 * moment + 0.1 * grad for moment, grad in zip(self.first, grads)]
        self.second = [0.999 * moment + 0.001 * grad**2 for moment, grad in zip(self.second, grads)]
        updated = []
        for leaf, first, second in zip(leaves, self.first, self.second):
            scale = np.sqrt(second / (1 - 0.999**self.steps)) + 1e-8
            step = first / (1 - 0.9**self.steps) / scale
            updated.append(leaf - learning_rate * 0.01 * leaf - learning_rate * step)
        return updated


class Reference:
    """A run, which `iterate` takes one iteration further.

    Args:
        config: of the run.
        env: N environments.
        params: the agent's parameters at the start, nested dicts of arrays.
        env_state: the environments' state at the start.
        obs: [N, features], what they show at the start.
    """

    def __init__(self, config: Config, env: Any, params: Tree, env_state: Any, obs: Any) -> None:
        self.config = config
        self.agent = Agent(config, env.spec.action.nvec, env.spec.max_episode_steps)
        self.params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        self.optimizer = AdamW(jax.tree.leaves(self.params))
        self.iteration = 0
        self.histories: list[list[Slot]] = [[] for _ in range(config.num_envs)]
        self.episode_step = [0] * config.num_envs
        self.episode_return = [0.0] * config.num_envs
        self.discounted_return = [0.0] * config.num_envs
        self.seen_obs: list[np.ndarray] = []  # in all updates so far
        self.seen_returns: list[float] = []  # discounted ones
        self.new_returns: list[float] = []  # of the last rollout
        self.reward_scale = 1.0
        self.env_state, self.obs = env_state, np.asarray(obs)
        self._step_env = jax.jit(env.step)

    def iterate(self, run_key: jax.Array) -> Iteration:
        """A rollout and the update on it."""
        rollout_key, update_key = jax.random.split(jax.random.fold_in(run_key, self.iteration))
        start = len(self.histories[0])
        steps, last_value, episodes = self.collect(rollout_key)
        advantage = self._advantages(steps, last_value)
        returns = advantage + steps["value"]
        learning_rate, ent_coef = self._annealed()
        rows = self._update(steps, advantage, returns, start, update_key, learning_rate, ent_coef)
        metrics = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} | {
            "charts/learning_rate": learning_rate,
            "charts/entropy_coefficient": ent_coef,
            "losses/explained_variance": 1 - (returns - steps["value"]).var() / returns.var(),
            "episode/value_mean": steps["value"].mean(),
            "episode/advantage_mean": advantage.mean(),
        }
        self.iteration += 1
        if self.config.normalize_rewards:
            metrics["charts/reward_scale"] = self.reward_scale
        self.seen_obs += list(steps["obs"].reshape(-1, steps["obs"].shape[-1]))
        self.seen_returns += self.new_returns
        self.agent.mean, self.agent.scale = np.mean(self.seen_obs, axis=0, dtype=np.float64), scale_of(self.seen_obs)
        self.reward_scale = float(scale_of(self.seen_returns))
        if self.config.log_staleness:
            metrics |= self._staleness(steps, start)
        return Iteration(steps, episodes, metrics, epochs=len(rows) // self.config.num_minibatches)

    def _annealed(self) -> tuple[float, float]:
        """Learning rate and entropy coefficient, by the global step at the start of the iteration."""
        config, remaining = self.config, 1.0
        if config.anneal_steps:
            global_step = self.iteration * config.num_envs * config.num_steps
            remaining = max(0.0, 1.0 - global_step / config.anneal_steps)
        return (
            config.final_lr + (config.init_lr - config.final_lr) * remaining,
            config.final_ent_coef + (config.init_ent_coef - config.final_ent_coef) * remaining,
        )

    def collect(self, key: jax.Array) -> tuple[Arrays, np.ndarray, Arrays]:
        """A rollout: its transitions [T, N, ...], the last values [N], and the episodes that ended, as `Iteration`."""
        steps: list[list[dict[str, Any]]] = []
        episodes: list[list[dict[str, Any]]] = []
        params = jax.tree.map(Node, self.params)
        envs = range(self.config.num_envs)
        self.new_returns = []
        for step_key in jax.random.split(key, self.config.num_steps):
            noise = np.asarray(jax.random.gumbel(step_key, (len(envs), sum(self.agent.nvec))), np.float64)
            acted = [self._act(params, n, noise[n]) for n in envs]
            actions = np.array([step["action"] for step in acted], np.int32)
            self.env_state, outcome = jax.device_get(self._step_env(self.env_state, actions))
            self.obs = outcome.obs
            steps.append(acted)
            episodes.append([self._observe(params, n, acted[n], outcome) for n in envs])
        last_value = np.array([float(self._look(params, n, self.obs[n]).value.value) for n in envs])
        return _stack(steps), last_value, _stack(episodes)

    def _look(self, params: Tree, n: int, obs: np.ndarray) -> Output:
        """At what environment n shows next."""
        history = self.histories[n]
        return self.agent(params, obs, self.agent.visible(history, len(history), self.episode_step[n]))

    def _act(self, params: Tree, n: int, noise: np.ndarray) -> dict[str, Any]:
        """Samples an action by the Gumbel-max trick and writes the memory."""
        output = self._look(params, n, self.obs[n])
        log_probs = [branch.value for branch in output.log_probs]
        noises = np.split(noise, np.cumsum(self.agent.nvec)[:-1])
        action = [int(np.argmax(branch + drawn)) for branch, drawn in zip(log_probs, noises)]
        hidden = output.hidden.astype(jax.numpy.dtype(self.config.memory_dtype))
        self.histories[n].append(Slot(hidden, self.episode_step[n]))
        return {
            "obs": self.obs[n],
            "action": action,
            "log_prob": [branch[chosen] for branch, chosen in zip(log_probs, action)],
            "value": float(output.value.value),
            "episode_step": self.episode_step[n],
        }

    def _observe(self, params: Tree, n: int, acted: dict[str, Any], outcome: Any) -> dict[str, Any]:
        """Adds reward and end to what was done; returns the statistics of an episode that ended."""
        reward = float(outcome.reward[n])
        terminated, truncated = bool(outcome.terminated[n]), bool(outcome.truncated[n])
        done = terminated or truncated
        self.episode_return[n] += reward
        self.episode_step[n] += 1
        self.discounted_return[n] = self.config.gamma * self.discounted_return[n] + reward
        self.new_returns.append(self.discounted_return[n])
        if self.config.normalize_rewards:
            reward = min(max(reward / self.reward_scale, -10.0), 10.0)
        if self.config.bootstrap_truncated and truncated and not terminated:
            reward += self.config.gamma * float(self._look(params, n, outcome.final_obs[n]).value.value)
        acted |= {"reward": reward, "done": done}
        if not done:
            return {"done": False, "episode_return": 0.0, "episode_length": 0}
        ended = {"done": True, "episode_return": self.episode_return[n], "episode_length": self.episode_step[n]}
        self.episode_return[n], self.episode_step[n], self.discounted_return[n] = 0.0, 0, 0.0
        return ended

    def _advantages(self, steps: Arrays, last_value: np.ndarray) -> np.ndarray:
        """The sum of later temporal differences of the same episode, each weighted by (gamma lambda)^distance."""
        gamma, decay = self.config.gamma, self.config.gamma * self.config.gae_lambda
        reward, done = steps["reward"], steps["done"]
        value = np.concatenate([steps["value"], last_value[None]])
        advantage = np.zeros_like(reward)
        num_steps, num_envs = reward.shape
        for n in range(num_envs):
            for t in range(num_steps):
                for later in range(t, num_steps):
                    following = 0.0 if done[later, n] else value[later + 1, n]
                    delta = reward[later, n] + gamma * following - value[later, n]
                    advantage[t, n] += decay ** (later - t) * delta
                    if done[later, n]:
                        break
        return advantage

    def _recomputed(self, steps: Arrays, start: int) -> list[list[Slot]]:
        """The histories with the slots from `start` on, which are those of the rollout, under today's parameters."""
        params = jax.tree.map(Node, self.params)
        histories = [history[:start] for history in self.histories]
        for n, history in enumerate(histories):
            for obs, step in zip(steps["obs"][:, n], steps["episode_step"][:, n]):
                hidden = self.agent(params, obs, self.agent.visible(history, len(history), int(step))).hidden
                history.append(Slot(hidden.astype(jax.numpy.dtype(self.config.memory_dtype)), int(step)))
        return histories

    def _staleness(self, steps: Arrays, start: int) -> Losses:
        """Between the histories and what they would be under the parameters after the update."""
        if self.iteration % self.config.log_staleness:
            return {"staleness/kl": -np.inf, "staleness/hidden_distance": -np.inf}
        recomputed, params = self._recomputed(steps, start), jax.tree.map(Node, self.params)
        divergences = []
        for t, n in np.ndindex(steps["reward"].shape):
            outputs = []
            for history in (recomputed[n], self.histories[n]):
                slots = self.agent.visible(history, start + t, int(steps["episode_step"][t, n]))
                outputs.append(self.agent(params, steps["obs"][t, n], slots).log_probs)
            branches = [(new.value, old.value) for new, old in zip(*outputs)]
            divergences.append(sum((np.exp(new) * (new - old)).sum() for new, old in branches))
        new, old = (
            np.array([[slot.hidden for slot in history[start:]] for history in histories], np.float64)
            for histories in (recomputed, self.histories)
        )
        distance = np.sqrt(((new - old) ** 2).sum() / (old**2).sum())
        return {"staleness/kl": float(np.mean(divergences)), "staleness/hidden_distance": float(distance)}

    def _samples(
        self, steps: Arrays, advantage: np.ndarray, returns: np.ndarray, start: int, histories: list[list[Slot]]
    ) -> list[list[Sample]]:
        """[T][N]; `start` is the place in the histories of the rollout's first step."""
        return [
            [
                Sample(
                    steps["obs"][t, n],
                    self.agent.visible(histories[n], start + t, int(steps["episode_step"][t, n])),
                    steps["action"][t, n],
                    steps["log_prob"][t, n],
                    steps["value"][t, n],
                    advantage[t, n],
                    returns[t, n],
                )
                for n in range(self.config.num_envs)
            ]
            for t in range(self.config.num_steps)
        ]

    def _update(
        self,
        steps: Arrays,
        advantage: np.ndarray,
        returns: np.ndarray,
        start: int,
        key: jax.Array,
        learning_rate: float,
        ent_coef: float,
    ) -> list[Losses]:
        """Losses of every minibatch that was run."""
        config = self.config
        rows: list[Losses] = []
        size = config.num_steps // config.num_minibatches
        for epoch, epoch_key in enumerate(jax.random.split(key, config.update_epochs)):
            refreshed = config.refresh_memory and epoch > 0
            histories = self._recomputed(steps, start) if refreshed else self.histories
            samples = self._samples(steps, advantage, returns, start, histories)
            env_keys = jax.random.split(epoch_key, config.num_envs)
            orders = [np.asarray(jax.random.permutation(env_key, config.num_steps)) for env_key in env_keys]
            for first in range(0, config.num_steps, size):
                minibatch = [samples[t][n] for n, order in enumerate(orders) for t in order[first : first + size]]
                rows.append(self._descend(minibatch, learning_rate, ent_coef))
            kl = np.mean([row["losses/approx_kl"] for row in rows[-config.num_minibatches :]])
            if config.target_kl is not None and kl > config.target_kl:
                break
        return rows

    def _descend(self, minibatch: list[Sample], learning_rate: float, ent_coef: float) -> Losses:
        """One step of the optimiser, on a gradient whose global norm is clipped."""
        nodes, tree = jax.tree.flatten(jax.tree.map(Node, self.params))
        loss, losses = self._loss(jax.tree.unflatten(tree, nodes), minibatch, ent_coef)
        grads = gradients(loss, nodes)
        norm = float(np.sqrt(sum((grad**2).sum() for grad in grads)))
        grads = [grad * min(1.0, self.config.max_grad_norm / (norm + 1e-6)) for grad in grads]
        leaves = self.optimizer.step(jax.tree.leaves(self.params), grads, learning_rate)
        self.params = jax.tree.unflatten(tree, leaves)
        return losses | {"losses/grad_norm": norm}

    def _loss(self, params: Tree, minibatch: list[Sample], ent_coef: float) -> tuple[Node, Losses]:
        config = self.config
        advantage = np.array([sample.advantage for sample in minibatch])
        if config.norm_adv:
            deviation = np.sqrt(((advantage - advantage.mean()) ** 2).sum() / (len(advantage) - 1))
            advantage = (advantage - advantage.mean()) / (deviation + 1e-8)
        policy, value, entropy = Node(0.0), Node(0.0), Node(0.0)
        log_ratios = []
        for sample, weight in zip(minibatch, advantage):
            output = self.agent(params, sample.obs, sample.slots)
            for branch, action, old in zip(output.log_probs, sample.action, sample.log_prob):
                log_ratio = branch[int(action)] - old
                ratio = exp(log_ratio)
                clipped = clip(ratio, 1 - config.clip_coef, 1 + config.clip_coef)
                policy = policy - minimum(ratio * weight, clipped * weight)
                entropy = entropy - (exp(branch) * branch).sum()
                log_ratios.append(float(log_ratio.value))
            error = (output.value - sample.returns) ** 2.0
            if config.clip_vloss:
                moved = clip(output.value - sample.value, -config.clip_coef, config.clip_coef)
                error = maximum(error, (moved + sample.value - sample.returns) ** 2.0)
            value = value + error
        policy, value, entropy = policy / len(log_ratios), value / len(minibatch), entropy / len(minibatch)
        loss = policy - ent_coef * entropy + config.vf_coef * value
        log_ratio, ratio = np.array(log_ratios), np.exp(log_ratios)
        return loss, {
            "losses/policy_loss": float(policy.value),
            "losses/value_loss": float(value.value),
            "losses/entropy": float(entropy.value),
            "losses/reconstruction_loss": 0.0,
            "losses/loss": float(loss.value),
            "losses/old_approx_kl": float(-log_ratio.mean()),
            "losses/approx_kl": float((ratio - 1 - log_ratio).mean()),
            "losses/clipfrac": float((np.abs(ratio - 1) > config.clip_coef).mean()),
        }


def _stack(rows: list[list[dict[str, Any]]]) -> Arrays:
    """Rows of T steps of N environments to arrays [T, N, ...]."""
    return {name: np.array([[step[name] for step in row] for row in rows]) for name in rows[0][0]}
