"""Small wrong changes to the source, each of which a test must catch.

To add one: a line below with a name, the file in `trxl_jax/`, the text to replace (it must occur exactly once), the
replacement, and the tests that are to notice. Keep to changes that a tired author could make.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A wrong change.

    Fields:
        name: what is wrong.
        file: in `trxl_jax/`.
        old: text that occurs once in the file.
        new: its replacement.
        tests: arguments of pytest.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


REFERENCE = ("tests/ppo/test_reference.py",)
LOSSES = ("tests/ppo/test_losses.py",)
ROLLOUT = ("tests/ppo/test_rollout.py",)
TRAINER = ("tests/runs/test_trainer.py",)
CACHE = ("tests/agent/test_cache.py",)
CORE = ("tests/agent/test_transformer_xl.py",)
GOLDEN = ("tests/agent/test_golden.py",)
CORES = ("tests/agent/test_cores_golden.py",)
SEGMENTS = ("tests/agent/test_attention_layer.py",)
RECURRENT = ("tests/agent/test_recurrent.py", "tests/agent/test_recurrent_golden.py")
FRAMES = ("tests/agent/test_frames.py",)
INIT = ("tests/agent/test_initialisation.py",)
POLICY = ("tests/play/test_policy.py",)
EVALUATION = ("tests/play/test_evaluation.py",)
ENJOY = ("tests/commands/test_enjoy.py",)
DEVICE = ("tests/envs/test_device.py",)
HOST = ("tests/envs/test_host.py",)
SIZES = ("tests/agent/test_picture_sizes.py",)
ENCODER = ("tests/agent/test_pixel_encoder.py",)
REFRESH = ("tests/ppo/test_refresh.py",)
MOMENTS = ("tests/ppo/test_moments.py",)
RESUME = ("tests/runs/test_resume.py",)
DISTRIBUTIONS = ("tests/agent/test_distributions.py",)
ACTIONS = ("tests/envs/test_actions.py",)
MINIGRID = ("tests/envs/minigrid/test_memory.py",)
T_MAZE = ("tests/envs/test_t_maze.py",)
SYMBOLS = ("tests/envs/memory_gym/test_symbols.py",)
POPGYM = ("tests/envs/popgym/test_replays.py",)
POPGYM_DRAWS = ("tests/envs/popgym/test_distributions.py",)
POPGYM_RESETS = ("tests/envs/popgym/test_contract.py",)
GROUPS = ("tests/ppo/test_groups.py",)
DEVICES = ("tests/runs/test_devices.py",)

MUTANTS = [
    # The update.
    Mutant("norm_adv is ignored", "ppo/update.py", "if config.norm_adv:", "if False:", REFERENCE),
    Mutant(
        "the memory is never refreshed",
        "ppo/update.py",
        "lambda: groups.each(anew, rollout)",
        "lambda: acted",
        REFERENCE,
    ),
    Mutant(
        "the memory is refreshed under the parameters of acting",
        "ppo/update.py",
        "partial(memory_of.refreshed, form.unflatten(learner.params))",
        "partial(memory_of.refreshed, learned)",
        REFERENCE,
    ),
    Mutant(
        "a rollout is recomputed from its last slots",
        "agent/cores/transformer_xl.py",
        "record.hidden[:, : self.window]",
        "record.hidden[:, -self.window :]",
        REFRESH,
    ),
    Mutant(
        "a rollout is recomputed from its last segment's state",
        "agent/cores/recurrent.py",
        "lambda starts: starts[:, 0]",
        "lambda starts: starts[:, -1]",
        REFRESH,
    ),
    Mutant(
        "the divergence of staleness is the reverse one",
        "ppo/refresh.py",
        "new.kl_divergence(cached)",
        "cached.kl_divergence(new)",
        REFRESH,
    ),
    Mutant(
        "moments never move",
        "ppo/train_step.py",
        "params = with_rollout(agent, train_state.params, collected, groups)",
        "params = train_state.params",
        MOMENTS,
    ),
    Mutant(
        "moments are learned",
        "ppo/moments.py",
        'return {"params": variables["params"]}, others',
        "return variables, {}",
        MOMENTS,
    ),
    Mutant(
        "discounted returns go on after an end",
        "ppo/advantages.py",
        "return jnp.where(done_t, 0.0, earned), earned",
        "return earned, earned",
        MOMENTS,
    ),
    Mutant(
        "the distance of means adds nothing to the variance",
        "agent/normalization.py",
        " + old * new * jnp.square(distance)",
        "",
        ("tests/agent/test_normalization.py",),
    ),
    Mutant(
        "rewards are not normalised",
        "ppo/acting.py",
        "scale_rewards(self.params, step.reward), step.reward",
        "step.reward, step.reward",
        MOMENTS,
    ),
    Mutant(
        "entropy coefficient 0",
        "ppo/minibatch_losses.py",
        "loss = of_policy - ent_coef * entropy",
        "loss = of_policy - 0 * entropy",
        REFERENCE,
    ),
    Mutant(
        "entropy is punished",
        "ppo/minibatch_losses.py",
        "loss = of_policy - ent_coef * entropy",
        "loss = of_policy + ent_coef * entropy",
        REFERENCE,
    ),
    Mutant("vf_coef is ignored", "ppo/minibatch_losses.py", "+ config.vf_coef * of_value", "+ of_value", REFERENCE),
    Mutant(
        "value loss never clipped",
        "ppo/minibatch_losses.py",
        "config.clip_coef if config.clip_vloss else None",
        "None",
        REFERENCE,
    ),
    Mutant("no weight decay", "ppo/flat.py", "1e-8, 0.01", "1e-8, 0.0", REFERENCE),
    Mutant("Adam's beta 2", "ppo/flat.py", "0.9, 0.999, 1e-8", "0.9, 0.99, 1e-8", REFERENCE),
    Mutant(
        "the learning rate is not annealed",
        "ppo/update.py",
        "(init_lr - config.final_lr) * fraction",
        "(init_lr - config.final_lr)",
        REFERENCE,
    ),
    Mutant(
        "the entropy coefficient is not annealed",
        "ppo/update.py",
        "(init_ent_coef - config.final_ent_coef) * fraction",
        "(init_ent_coef - config.final_ent_coef)",
        REFERENCE,
    ),
    Mutant(
        "gradients are not clipped",
        "ppo/update.py",
        "shrink = jnp.minimum(1.0,",
        "shrink = jnp.maximum(1.0,",
        REFERENCE,
    ),
    Mutant(
        "grad_norm after clipping",
        "ppo/update.py",
        "return params, opt_state, norm",
        "return params, opt_state, norm * shrink",
        REFERENCE,
    ),
    Mutant("k1 with the wrong sign", "ppo/minibatch_losses.py", "-log_ratio.mean()", "log_ratio.mean()", REFERENCE),
    Mutant(
        "k3 without its linear part",
        "ppo/minibatch_losses.py",
        "((ratio - 1) - log_ratio).mean()",
        "(ratio - 1).mean()",
        REFERENCE,
    ),
    Mutant(
        "clipfrac with twice the range",
        "ppo/minibatch_losses.py",
        "(jnp.abs(ratio - 1) > config.clip_coef)",
        "(jnp.abs(ratio - 1) > 2 * config.clip_coef)",
        REFERENCE,
    ),
    Mutant(
        "the same permutation in every epoch",
        "ppo/update.py",
        "rollout, advantage, returns, epoch.key, groups)",
        "rollout, advantage, returns, key, groups)",
        REFERENCE,
    ),
    Mutant("target_kl ends nothing", "ppo/update.py", "running & (metrics", "running | (metrics", ROLLOUT),
    Mutant(
        "metrics of epochs that did not run count",
        "ppo/update.py",
        "(m * ran).sum() / ran.sum()",
        "m.mean()",
        REFERENCE,
    ),
    Mutant(
        "the iteration does not advance",
        "ppo/update.py",
        "opt_state, train_state.iteration + 1), means",
        "opt_state, train_state.iteration), means",
        REFERENCE,
    ),
    # Minibatches.
    Mutant(
        "all environments share a permutation",
        "ppo/minibatch.py",
        "order = permute(jax.random.split(key, num_envs))",
        "order = permute(jnp.stack([key] * num_envs))",
        REFERENCE,
    ),
    Mutant(
        "query slots are off by one",
        "agent/cores/transformer_xl.py",
        "query_slot, num_slots = self.window + queries.step,",
        "query_slot, num_slots = self.window + queries.step + 1,",
        ROLLOUT,
    ),
    # Losses and advantages.
    Mutant(
        "gamma and lambda swapped",
        "ppo/train_step.py",
        "(config.gamma, config.gae_lambda)",
        "(config.gae_lambda, config.gamma)",
        REFERENCE,
    ),
    Mutant(
        "ends do not cut the advantage",
        "ppo/advantages.py",
        "gamma * gae_lambda * going_on_t * following",
        "gamma * gae_lambda * following",
        LOSSES,
    ),
    Mutant(
        "ends do not cut the value",
        "ppo/advantages.py",
        "gamma * next_value * going_on - value",
        "gamma * next_value - value",
        LOSSES,
    ),
    Mutant(
        "the last value is not used",
        "ppo/advantages.py",
        "jnp.concatenate([value[1:], last_value[None]])",
        "jnp.concatenate([value[1:], 0 * last_value[None]])",
        LOSSES,
    ),
    Mutant(
        "returns without the value",
        "ppo/advantages.py",
        "\n    return advantage, advantage + value",
        "\n    return advantage, advantage",
        LOSSES,
    ),
    Mutant(
        "the surrogate takes the maximum", "ppo/losses.py", "-jnp.minimum(advantage", "-jnp.maximum(advantage", LOSSES
    ),
    Mutant(
        "value loss takes the better error",
        "ppo/losses.py",
        "error = jnp.maximum(error",
        "error = jnp.minimum(error",
        LOSSES,
    ),
    Mutant("biased standard deviation", "ppo/losses.py", "ddof=1", "ddof=0", LOSSES),
    # One iteration.
    Mutant(
        "rollout and update share a key",
        "ppo/train_step.py",
        "return rollout_key, update_key",
        "return rollout_key, rollout_key",
        REFERENCE,
    ),
    Mutant(
        "every iteration has the same keys",
        "ppo/train_step.py",
        "jax.random.split(jax.random.fold_in(key, iteration))",
        "jax.random.split(key)",
        REFERENCE,
    ),
    Mutant(
        "explained variance doubled",
        "ppo/train_step.py",
        "explained = 1 - (returns",
        "explained = 2 - 2 * (returns",
        REFERENCE,
    ),
    Mutant(
        "value_mean plus 1",
        "ppo/train_step.py",
        '"episode/value_mean": value.mean()',
        '"episode/value_mean": value.mean() + 1',
        REFERENCE,
    ),
    Mutant(
        "advantage_mean of the returns",
        "ppo/train_step.py",
        '"episode/advantage_mean": advantage.mean()',
        '"episode/advantage_mean": returns.mean()',
        REFERENCE,
    ),
    # The rollout.
    Mutant(
        "the last value times 0",
        "ppo/rollout.py",
        "last_value=steps.last_value",
        "last_value=0 * steps.last_value",
        REFERENCE,
    ),
    Mutant(
        "the bootstrap is not discounted", "ppo/acting.py", "return self.gamma * jnp.where", "return jnp.where", ROLLOUT
    ),
    Mutant(
        "terminated episodes are bootstrapped",
        "ppo/acting.py",
        "jnp.where(step.truncated & ~step.terminated, values, 0.0)",
        "jnp.where(step.truncated, values, 0.0)",
        ROLLOUT,
    ),
    Mutant(
        "the final value at the old slot",
        "ppo/acting.py",
        "state.core, previous), t + 1)",
        "state.core, previous), t)",
        ROLLOUT,
    ),
    Mutant(
        "truncation does not end an episode",
        "ppo/acting.py",
        "done = step.terminated | step.truncated",
        "done = step.terminated",
        REFERENCE,
    ),
    Mutant(
        "the ring is not rounded",
        "agent/cores/transformer_xl.py",
        "rounded = entry[:, None].astype(self.memory_dtype)",
        "rounded = entry[:, None]",
        ROLLOUT,
    ),
    Mutant(
        "the same noise in every step",
        "ppo/rollout.py",
        "noise = draw(jax.random.split(key, num_steps))",
        "noise = draw(jnp.stack([key] * num_steps))",
        REFERENCE,
    ),
    Mutant(
        "late results are not shifted",
        "ppo/double_buffering.py",
        "jnp.concatenate([x[1:], y[None]])",
        "jnp.concatenate([y[None], x[1:]])",
        ROLLOUT,
    ),
    Mutant("late observations count twice", "ppo/double_buffering.py", "is_new=t >= late", "is_new=True", ROLLOUT),
    # The memory.
    Mutant(
        "a query sees itself",
        "agent/cores/visibility.py",
        "return (query - count <= slots) & (slots < query)",
        "return (query - count <= slots) & (slots <= query)",
        CACHE,
    ),
    Mutant(
        "a query sees the previous episode",
        "agent/cores/visibility.py",
        "count = jnp.minimum(episode_step, window - 1)[..., None]",
        "count = jnp.full_like(episode_step, window - 1)[..., None]",
        CACHE,
    ),
    Mutant(
        "the window is one longer",
        "agent/cores/visibility.py",
        "jnp.minimum(episode_step, window - 1)",
        "jnp.minimum(episode_step, window)",
        CACHE,
    ),
    Mutant(
        "an episode's first step is 1",
        "ppo/acting.py",
        "jnp.where(done, 0, state.episode_step + 1)",
        "jnp.where(done, 1, state.episode_step + 1)",
        ROLLOUT,
    ),
    Mutant(
        "the memory passes gradients",
        "agent/cores/cache.py",
        "entry = jax.lax.stop_gradient(hidden)[:, None]",
        "entry = hidden[:, None]",
        CACHE,
    ),
    Mutant(
        "the oldest slots are kept",
        "agent/cores/cache.py",
        "hidden=cached.hidden[:, -window:]",
        "hidden=cached.hidden[:, :window]",
        REFERENCE,
    ),
    Mutant(
        "positions are not kept",
        "agent/cores/cache.py",
        "position=cached.position[:, -window:]",
        "position=0 * cached.position[:, -window:]",
        REFERENCE,
    ),
    Mutant(
        "a ring slot too old",
        "agent/cores/ring.py",
        "return slot - 1 - (slot - 1 - jnp.arange",
        "return slot - 2 - (slot - 2 - jnp.arange",
        CACHE,
    ),
    Mutant(
        "segments see their slots twice",
        "agent/cores/visibility.py",
        "(slots < own_slots[..., :1])",
        "(slots < query_slot[..., None])",
        SEGMENTS,
    ),
    Mutant(
        "every segment sees the first one's steps",
        "agent/cores/segments.py",
        'return _product("nkihd,nhkjd->nhkij", query, keys)',
        'return _product("nkihd,nhjd->nhkij", query, keys[:, :, 0])',
        SEGMENTS,
    ),
    Mutant(
        "own steps pass no gradient",
        "agent/cores/attention_layer.py",
        "entries = self._encode(encoded, episode_step)",
        "entries = self._encode(jax.lax.stop_gradient(encoded), episode_step)",
        SEGMENTS,
    ),
    Mutant(
        "own steps have no positions",
        "agent/cores/attention_layer.py",
        "entries = self._encode(encoded, episode_step)",
        "entries = self._encode(x, episode_step)",
        SEGMENTS,
    ),
    Mutant(
        "queries have no positions",
        "agent/cores/attention_layer.py",
        "self.norm_query(encoded if self.options.query_position else x)",
        "self.norm_query(x)",
        SEGMENTS,
    ),
    Mutant(
        "full heads are scaled as shared ones",
        "agent/cores/projected_attention.py",
        "np.sqrt(self.dim if shared else head_dim)",
        "np.sqrt(self.dim)",
        CORES,
    ),
    Mutant(
        "distances are one too large",
        "agent/cores/relative_positions.py",
        "sines(jnp.arange(window), dim)",
        "sines(jnp.arange(window) + 1, dim)",
        CORES,
    ),
    Mutant(
        "the position bias is forgotten",
        "agent/cores/relative_positions.py",
        "query = query + weights.position_bias * scale",
        "query = query + 0 * weights.position_bias * scale",
        CORES,
    ),
    Mutant(
        "the content bias is forgotten where queries are projected",
        "agent/cores/attention.py",
        "projected += relative.content_bias @ w_key.T * (scale * root)",
        "projected += 0 * relative.content_bias @ w_key.T * (scale * root)",
        SEGMENTS,
    ),
    Mutant(
        "keys are turned the other way",
        "agent/cores/projected_attention.py",
        "keys = turn(keys, position[..., None])",
        "keys = turn(keys, -position[..., None])",
        CORES,
    ),
    Mutant(
        "empty entries of projected attention are zeros",
        "agent/cores/projected_attention.py",
        "context = jnp.where(anything[..., None, None], context, instead)",
        "context = jnp.where(anything[..., None, None], context, 0.0)",
        CORES,
    ),
    Mutant(
        "the gate's bias is added",
        "agent/cores/gates.py",
        'product(stream, "u_z") - bias',
        'product(stream, "u_z") + bias',
        CORES,
    ),
    Mutant(
        "the gate resets the product, as a GRU of PyTorch does",
        "agent/cores/gates.py",
        'product(reset * stream, "u_g")',
        'reset * product(stream, "u_g")',
        CORES,
    ),
    Mutant(
        "no ReLU before GTrXL's first gate",
        "agent/cores/gtrxl.py",
        "self.gate1(x, nn.relu(self.attend(x, slots, seen, episode_step)))",
        "self.gate1(x, self.attend(x, slots, seen, episode_step))",
        CORES,
    ),
    # The transformer.
    Mutant(
        "energies over the square root of d",
        "agent/cores/attention.py",
        "(scale / np.sqrt(dim))",
        "(scale / np.sqrt(head_dim))",
        GOLDEN,
    ),
    Mutant(
        "no empty entries",
        "agent/cores/attention.py",
        "context = jnp.where(any_visible, context, empty.reshape(heads))",
        "context = jnp.where(any_visible, context, 0.0)",
        CORE,
    ),
    Mutant("Flax's epsilon", "agent/cores/attention.py", "LAYER_NORM_EPS = 1e-5", "LAYER_NORM_EPS = 1e-2", GOLDEN),
    Mutant(
        "no residual around attention",
        "agent/cores/attention_layer.py",
        "if self.gated else x + read",
        "if self.gated else read",
        GOLDEN,
    ),
    Mutant(
        "no residual around the projection",
        "agent/cores/attention_layer.py",
        "if self.gated else x + update",
        "if self.gated else update",
        GOLDEN,
    ),
    Mutant(
        "the memory stores outputs",
        "agent/cores/transformer_xl.py",
        "hidden.append(jax.lax.stop_gradient(x))\n            x = layer(x, layer_slots, seen, episode_step)",
        "x = layer(x, layer_slots, seen, episode_step)\n            hidden.append(jax.lax.stop_gradient(x))",
        GOLDEN,
    ),
    Mutant(
        "positions count up", "agent/cores/positions.py", "(self.max_episode_steps - 1 - position)", "position", GOLDEN
    ),
    Mutant(
        "gradient of the single query without its mean",
        "agent/cores/attention.py",
        "weights * (d_weights - (weights * d_weights).sum(axis=-1, keepdims=True))\n    return jnp.einsum(",
        "weights * d_weights\n    return jnp.einsum(",
        CORE,
    ),
    Mutant(
        "GRU without its reset gate",
        "agent/cores/recurrent.py",
        "n = jnp.tanh(gates[2] + r * recurrent[2])",
        "n = jnp.tanh(gates[2] + recurrent[2])",
        RECURRENT,
    ),
    Mutant(
        "unrolled states are not reset",
        "agent/cores/recurrent.py",
        "layer.advance(reset(state, initial, first), gates)",
        "layer.advance(state, gates)",
        RECURRENT,
    ),
    Mutant(
        "linear recurrences are not reset",
        "agent/cores/linear_recurrences.py",
        "decay = jnp.where(first[..., None], 0, decay)",
        "decay = jnp.where(first[..., None], decay, decay)",
        RECURRENT,
    ),
    Mutant(
        "the associative scan forgets the state before it",
        "agent/cores/linear_recurrences.py",
        "drive.at[0].add(decay[0] * state)",
        "drive.at[0].add(0 * decay[0] * state)",
        RECURRENT,
    ),
    Mutant(
        "LRU's gamma is tied to lambda",
        "agent/cores/linear_recurrences.py",
        "jnp.exp(self.gamma_log)",
        "jnp.sqrt(-jnp.expm1(-2 * jnp.exp(self.nu_log)))",
        RECURRENT,
    ),
    # Heads, encoders, initialisation.
    Mutant(
        "log-probability of the first branch for all",
        "agent/distributions.py",
        "action[..., i : i + 1]",
        "action[..., 0:1]",
        LOSSES,
    ),
    Mutant(
        "entropy is averaged over branches",
        "agent/distributions.py",
        "return jnp.sum(jnp.stack([-",
        "return jnp.mean(jnp.stack([-",
        LOSSES,
    ),
    Mutant(
        "samples ignore the logits",
        "agent/distributions.py",
        "self._split(self.logits + noise)",
        "self._split(0 * self.logits + noise)",
        REFERENCE,
    ),
    Mutant("the actor's gain", "agent/initializers.py", "ACTOR_GAIN = 0.1", "ACTOR_GAIN = 0.01", INIT),
    Mutant(
        "biases start at 0",
        "agent/initializers.py",
        "jax.random.uniform(key, shape, dtype, -bound, bound)",
        "jnp.zeros(shape, dtype)",
        INIT,
    ),
    Mutant(
        "no ReLU after the transformer",
        "agent/actor_critic.py",
        "features = nn.relu(self.post_transformer(y))",
        "features = self.post_transformer(y)",
        GOLDEN,
    ),
    Mutant(
        "pixels are not scaled on accelerators",
        "agent/accelerator/pixel_encoder.py",
        "kernels[0] = kernels[0] / white",
        "pass",
        ENCODER,
    ),
    Mutant(
        "pixels are not scaled on CPUs",
        "agent/cpu/pixel_encoder.py",
        "Layer(one / white, first.bias)",
        "Layer(one, first.bias)",
        ENCODER,
    ),
    Mutant(
        "pixels that are floats are scaled too",
        "agent/cpu/convolutions.py",
        'return 255 if self.pictures.dtype == "uint8" else 1',
        "return 255",
        SIZES,
    ),
    Mutant(
        "pictures whose channels come first are turned",
        "agent/cpu/convolutions.py",
        "taken.transpose(*axes, -2, -1, -3)",
        "taken.transpose(*axes, -1, -2, -3)",
        SIZES,
    ),
    Mutant(
        "gradients of 3x3 convolutions are mirrored",
        "agent/cpu/pixel_encoder.py",
        "(i - padding, 2 - i - padding, 0)",
        "(2 - i - padding, i - padding, 0)",
        SIZES,
    ),
    Mutant("sizes are reconstructed that don't fit", "agent/decoder.py", "_STEP = 8", "_STEP = 4", SIZES),
    Mutant("hashes of floats have few bits", "agent/cpu/frames.py", "bits ^ (bits >> 23)", "bits", FRAMES),
    Mutant(
        "collisions count as equal",
        "agent/cpu/frames.py",
        "first = jnp.where(equal, first, start + own)",
        "first = jnp.where(first < _NONE, first, start + own)",
        FRAMES,
    ),
    # Playing.
    Mutant(
        "evaluation chunks share a key",
        "play/evaluation.py",
        "jax.random.fold_in(action_key, chunk)",
        "action_key",
        EVALUATION,
    ),
    Mutant(
        "an evaluation favours short episodes",
        "play/evaluation.py",
        "if len(played[i]) < share[i]:",
        "if sum(map(len, played)) < share.sum():",
        EVALUATION,
    ),
    Mutant(
        "a policy's memory stands still",
        "play/policy.py",
        "PolicyMemory(core, memory.steps + 1,",
        "PolicyMemory(core, memory.steps,",
        POLICY,
    ),
    Mutant(
        "a policy's reset does nothing",
        "play/policy.py",
        "jnp.where(done, 0, memory.episode_step)",
        "memory.episode_step",
        POLICY,
    ),
    Mutant(
        "attention by slot, not by age",
        "agent/cores/transformer_xl.py",
        "(self.window + t - ages) % self.window",
        "ages % self.window",
        POLICY,
    ),
    Mutant(
        "the state of before the step",
        "play/episode.py",
        "state_norm(next_memory.core)",
        "state_norm(memory.core)",
        ENJOY,
    ),
    # Runs.
    Mutant(
        "SPS divided by 3",
        "runs/run.py",
        "self.config.batch_size / seconds",
        "self.config.batch_size / seconds / 3",
        TRAINER,
    ),
    Mutant(
        "t_mean is the time of the rollout",
        "runs/run.py",
        "seconds_per_step = seconds / self.config.num_steps",
        "seconds_per_step = seconds",
        TRAINER,
    ),
    Mutant("the last 10 episodes", "runs/recent_episodes.py", "NUM_EPISODES = 100", "NUM_EPISODES = 10", TRAINER),
    Mutant(
        "a resumed run forgets its last episodes",
        "runs/run.py",
        'RecentEpisodes(run["episodes"])',
        "RecentEpisodes()",
        RESUME,
    ),
    # Actions.
    Mutant(
        "densities without their scale",
        "agent/distributions.py",
        "- self.log_std - 0.5 * math.log(2 * math.pi)",
        "- 0.5 * math.log(2 * math.pi)",
        DISTRIBUTIONS,
    ),
    Mutant("half of the noise", "agent/distributions.py", "self.std * noise", "0.5 * self.std * noise", DISTRIBUTIONS),
    Mutant(
        "the divergence of numbers in units of the wrong one",
        "agent/distributions.py",
        "(self.mean - other.mean) / other.std",
        "(self.mean - other.mean) / self.std",
        DISTRIBUTIONS,
    ),
    Mutant(
        "invalid choices are unlikely only",
        "agent/distributions.py",
        "_INVALID = -1e9",
        "_INVALID = -5.0",
        DISTRIBUTIONS,
    ),
    Mutant(
        "numbers pass their bounds",
        "envs/native_actions.py",
        ".clip(self.low, self.high)",
        "",
        ACTIONS,
    ),
    Mutant(
        "choices count from 0 everywhere",
        "envs/native_actions.py",
        " + self.start.reshape(self.shape)",
        "[()]",
        ACTIONS,
    ),
    # Environments.
    Mutant(
        "returns are not reset",
        "envs/device/environment.py",
        "episode_return=jnp.where(done, 0.0, episode.episode_return)",
        "episode_return=episode.episode_return",
        DEVICE,
    ),
    Mutant(
        "all device environments share a key",
        "envs/device/environment.py",
        "key=jax.random.split(state_key, self.num_envs)",
        "key=jnp.stack([state_key] * self.num_envs)",
        DEVICE,
    ),
    Mutant("the same episode again and again", "envs/host/episode.py", "        self.episode += 1\n", "", HOST),
    Mutant(
        "options only once",
        "envs/host/episode.py",
        "self.env.reset(seed=self.episode_seed, options=self._rules.options or None)",
        "self.env.reset(seed=self.episode_seed, options=self._rules.options if self.episode == 1 else None)",
        HOST,
    ),
    Mutant(
        "the first of the final observations for all",
        "envs/host/vector.py",
        'arrays_of(infos["final_obs"][i])[array_name]',
        'arrays_of(infos["final_obs"][np.flatnonzero(done)[0]])[array_name]',
        HOST,
    ),
    # Observations and masks.
    Mutant(
        "choices keep the environment's own numbers",
        "envs/observations.py",
        "cast = np.asarray(found - place.start)",
        "cast = np.asarray(found)",
        ("tests/envs/test_observations.py",),
    ),
    Mutant(
        "every choice is shown as the first",
        "agent/observation_encoder.py",
        "(flat[..., of] == number)",
        "(flat[..., of] == 0 * number)",
        ("tests/envs/test_observations.py",),
    ),
    Mutant(
        "only the first array is digested",
        "envs/host/digest.py",
        "first = first * _STEP_FACTOR + digest",
        "first = first * _STEP_FACTOR",
        ("tests/envs/test_observations.py",),
    ),
    Mutant(
        "learning doesn't see the mask",
        "ppo/minibatch.py",
        "segment_length, mask, method",
        "segment_length, None, method",
        ("tests/envs/test_action_masks.py",),
    ),
    Mutant(
        "acting doesn't see the mask",
        "ppo/acting.py",
        "self.agent.mask_of(state.obs)",
        "None",
        ("tests/envs/test_action_masks.py",),
    ),
    # Tasks on the device.
    Mutant(
        "symbols of Mortar Mayhem name the target before its tiles are red",
        "envs/tasks/memory_gym/mortar_mayhem.py",
        "jnp.where(self._shows_red(state, params), safe, 0)",
        "safe",
        SYMBOLS,
    ),
    Mutant(
        "symbols of Mystery Path show a fall that pictures hide",
        "envs/tasks/memory_gym/mystery_path.py",
        "self.crossed(state).astype(jnp.int32)",
        "state.fallen.astype(jnp.int32)",
        SYMBOLS,
    ),
    Mutant(
        "walls of MiniGrid let light through",
        "envs/tasks/minigrid/rooms.py",
        "clear = ~opaque[..., row]",
        "clear = np.ones_like(opaque[..., row])",
        MINIGRID,
    ),
    Mutant(
        "MiniGrid's agent starts before the hallway's last cell",
        "envs/tasks/minigrid/memory.py",
        "jax.random.randint(x_key, (), 1, end + 1, jnp.int32)",
        "jax.random.randint(x_key, (), 1, end, jnp.int32)",
        MINIGRID,
    ),
    Mutant(
        "MiniGrid's reward is that of the step before",
        "envs/tasks/minigrid/memory.py",
        "jnp.asarray(self._rewards)[state.time]",
        "jnp.asarray(self._rewards)[state.time - 1]",
        MINIGRID,
    ),
    Mutant(
        "T-Maze's oracle shows the goal on every visit",
        "envs/tasks/t_maze/device.py",
        "shown=at_oracle & ~state.visited",
        "shown=at_oracle",
        T_MAZE,
    ),
    Mutant(
        "T-Maze punishes the straight way of the active variant",
        "envs/tasks/t_maze/device.py",
        "(x < time - params.start)",
        "(x < time)",
        T_MAZE,
    ),
    # POPGym.
    Mutant(
        "POPGym: the card one step earlier",
        "envs/tasks/popgym/repeat_previous.py",
        "        asked = state.time + 1 - params.k\n",
        "        asked = state.time - params.k\n",
        POPGYM,
    ),
    Mutant(
        "POPGym: questions before k cards were seen",
        "envs/tasks/popgym/repeat_previous.py",
        "jnp.where(asked < 0, 0,",
        "jnp.where(asked < -1, 0,",
        POPGYM,
    ),
    Mutant(
        "POPGym: the last card is to be watched too",
        "envs/tasks/popgym/autoencode.py",
        "(state.time < last).astype",
        "(state.time <= last).astype",
        POPGYM,
    ),
    Mutant(
        "POPGym: answers in the order of dealing",
        "envs/tasks/popgym/autoencode.py",
        "return 2 * self.num_cards - 2 - state.time",
        "return jnp.where(state.time < self.num_cards - 1, self.num_cards, state.time - self.num_cards + 1)",
        POPGYM,
    ),
    Mutant(
        "POPGym: counts leave out the current card",
        "envs/tasks/popgym/count_recall.py",
        "counts=self._is_kind(layout.values[0]))",
        "counts=0 * self._is_kind(layout.values[0]))",
        POPGYM,
    ),
    Mutant(
        "POPGym: an equal rank is a wrong guess",
        "envs/tasks/popgym/higher_lower.py",
        "jnp.where(change == 0, 0,",
        "jnp.where(change == 99, 0,",
        POPGYM,
    ),
    Mutant(
        "POPGym: a card is a pair with itself",
        "envs/tasks/popgym/concentration.py",
        " & (first != action)",
        "",
        POPGYM,
    ),
    Mutant(
        "POPGym: a try goes on after a card that was found",
        "envs/tasks/popgym/concentration.py",
        "trying=~second & ~found_before",
        "trying=~second",
        POPGYM,
    ),
    Mutant(
        "POPGym: an arm wins above its chance",
        "envs/tasks/popgym/multiarmed_bandit.py",
        "won = draw < chances[action]",
        "won = draw > chances[action]",
        POPGYM,
    ),
    Mutant(
        "POPGym: a visit twice is worth a new one",
        "envs/tasks/popgym/mine_sweeper.py",
        "jnp.where(again, params.again_reward, params.new_reward)",
        "params.new_reward",
        POPGYM,
    ),
    Mutant(
        "POPGym: squares under a mine are left to visit",
        "envs/tasks/popgym/mine_sweeper.py",
        "(state.visited | state.mines).all()",
        "state.visited.all()",
        POPGYM,
    ),
    Mutant(
        "POPGym: a ship is hit again",
        "envs/tasks/popgym/battleship.py",
        " & ~state.shot[row, column]",
        "",
        POPGYM,
    ),
    Mutant(
        "POPGym: ships may cross",
        "envs/tasks/popgym/battleship.py",
        " & ~(ship & ships).any()",
        "",
        POPGYM_DRAWS,
    ),
    Mutant(
        "POPGym: mines are drawn with replacement",
        "envs/tasks/popgym/mine_sweeper.py",
        "jnp.where(mines[square], otherwise, square)",
        "square",
        POPGYM_DRAWS,
    ),
    Mutant(
        "POPGym: cards are put back",
        "envs/tasks/popgym/deck.py",
        "jax.random.permutation(key, DECK_SIZE * num_decks)",
        "jax.random.randint(key, (DECK_SIZE * num_decks,), 0, 52)",
        POPGYM_DRAWS,
    ),
    Mutant(
        "POPGym: every step starts a new episode",
        "envs/tasks/popgym/environment.py",
        "(self._start)(terminated | truncated,",
        "(self._start)(terminated | True,",
        POPGYM_RESETS,
    ),
    Mutant(
        "groups: the same random numbers on every device",
        "ppo/groups.py",
        "first + jnp.arange(size)",
        "jnp.arange(size)",
        DEVICES,
    ),
    Mutant(
        "groups: a device learns from its first group only",
        "ppo/groups.py",
        "return inputs_of(i + 1), results",
        "return inputs_of(0), results",
        GROUPS,
    ),
    Mutant(
        "groups: advantages are normalised by group",
        "ppo/groups.py",
        "jax.lax.optimization_barrier(normalise_advantage(gathered))",
        "jax.lax.optimization_barrier(jax.vmap(normalise_advantage)(gathered))",
        GROUPS,
    ),
]
