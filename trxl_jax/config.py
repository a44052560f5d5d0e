"""One frozen dataclass holds every number of a run; presets are the published configurations."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from trxl_jax.config_limits import check, refusal
from trxl_jax.errors import ConfigError, brief
from trxl_jax.files import read_text
from trxl_jax.values import json_object, typed

PositionalEncodingName = Literal["absolute", "learned", "none", "relative", "rotary", ""]
HeadsName = Literal["shared", "full"]
FloatName = Literal["bfloat16", "float32"]
PrecisionName = Literal["default", "high", "highest"]

AUTO = "auto"
"""Value of `resume` that continues the run in `run_dir` if there is one, and else starts it."""

# Fields that a resumed run may change: none of them alters a number that the run will compute (except `debug`, which
# runs different programs and may change the last digits).
RESUMABLE_FIELDS = frozenset(
    {"total_timesteps", "save_every", "keep", "env_timeout", "eval_every", "eval_episodes", "eval_max_steps",
     "keep_best", "capture_video", "video_every", "log_staleness", "debug", "track", "wandb_project_name",
     "wandb_entity"}
)  # fmt: skip


def _parse_json_object(text: str) -> dict[str, Any]:
    try:
        return json_object(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error}); write for example '{{\"command_count\": [3]}}'") from None
    except RecursionError:
        raise ValueError("nested too deep") from None


_HALF_THE_SEEDS = 2**31


def evaluation_seed(seed: int) -> int:
    """Environment seed for playing, from the seed that users give; disjoint from training's. Its own inverse."""
    return (seed + _HALF_THE_SEEDS) % (2 * _HALF_THE_SEEDS)


JsonObject = Annotated[
    dict[str, Any],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda args: _parse_json_object(args[0]),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    ),
]


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that defines a run. Defaults are those of the original `ppo_trxl.py`.

    Raises:
        ConfigError: a value is out of range or two of them don't fit together.
    """

    exp_name: str = "ppo_trxl"
    """name of the experiment, part of the run directory's name"""
    seed: int = 1
    """seed of everything random: parameters, actions, minibatches, environments"""
    run_dir: str | None = None
    """directory of the run; None: runs/<env>__<exp_name>__<seed>__<time>"""
    save_every: int = 25
    """updates between two checkpoints; 0 saves only at the end and on signals"""
    keep: int = 3
    """number of newest checkpoints to keep"""
    eval_every: int = 0
    """updates between two evaluations, in separate environments and with held-out seeds; 0: none"""
    eval_episodes: int = 100
    """episodes of an evaluation, the same ones each time"""
    eval_max_steps: int = 10_000
    """steps after which an episode of an evaluation is cut, which `eval/cut_mean` shows; 0: never"""
    keep_best: bool = False
    """keep the agent with the highest mean return of an evaluation in <run>/best (needs eval_every)"""
    capture_video: bool = False
    """film an episode every video_every updates: the whole task next to the agent's observation"""
    video_every: int = 100
    """updates between two videos"""
    log_staleness: int = 0
    """updates between two measurements of how far the memory that acting left is from one under the updated parameters
    (staleness/...), each at the cost of a rollout's forward passes; 0: never"""
    debug: bool = False
    """stop at the first operation that produces NaN, and check values between rollout and update; much slower"""
    track: bool = False
    """also log to Weights & Biases (needs the extra `wandb`)"""
    wandb_project_name: str = "trxl_jax"
    """project of the W&B run"""
    wandb_entity: str | None = None
    """entity (team) of the W&B run"""

    env_id: str = "MortarMayhem-Grid-v0"
    """a Gymnasium id or module:id, which imports the module first (stepped on the host); on the device: jax/<id of
    Memory Gym, MiniGrid-Memory or TMaze>, popgym/<id of POPGym> or gymnax/<id>"""
    env_options: JsonObject = dataclasses.field(default_factory=dict, hash=False)
    """JSON object: reset options of a Gymnasium or Memory Gym task, options of other jax/ tasks, parameter fields of a
    gymnax one"""
    env_kwargs: JsonObject = dataclasses.field(default_factory=dict, hash=False)
    """JSON object: arguments of a Gymnasium environment's constructor, given to gymnasium.make"""
    wrapper: str | None = None
    """module:name of a class or function of your own that wraps each Gymnasium environment"""
    minigrid_view: Literal["original", "symbolic", "pixels"] = "original"
    """what a MiniGrid agent sees: original, the 3x3 cells in front of it as 84x84 pixels and at most 96 steps, as in
    CleanRL, or one-hot vectors of 7x7 with "symbolic": true in env_kwargs; symbolic and pixels, the package's own 7x7
    cells, as one-hot vectors or 56x56 pixels, and its direction"""
    minigrid_mission: bool = False
    """the mission of a MiniGrid task is observed too (not with the view original)"""
    action_mask_key: str | None = None
    """name of a mask of the valid actions: of an entry of the observations, or else of the infos, or on the device of a
    method (state, params) of the environment; invalid actions are never taken"""
    max_episode_steps: int | None = None
    """steps after which an episode is truncated; None: the environment's own limit, if it has one"""
    async_envs: bool = False
    """step host environments in one process each"""
    env_timeout: float = 300.0
    """seconds without an answer after which host environments count as hanging, and the run ends; 0: never"""
    env_groups: int = 0
    """groups of environments that devices share among them; each collects its own steps and contributes as many to each
    minibatch. The number of groups, not that of devices, decides what a run computes. 0: one for each device"""
    seed_bits: Annotated[int, tyro.conf.Suppress] = 31
    """bits of the seeds of episodes on the host; 32 in runs of version 0.1.0, which environments in C refuse"""

    total_timesteps: int = 200_000_000
    """environment steps of the whole run, over all environments"""
    init_lr: float = 2.75e-4
    """learning rate at the start"""
    final_lr: float = 1.0e-5
    """learning rate after anneal_steps"""
    num_envs: int = 32
    """number of environments (N)"""
    num_steps: int = 512
    """steps of each environment per rollout (T)"""
    anneal_steps: int = 32 * 512 * 10000
    """environment steps over which learning rate and entropy coefficient fall linearly; 0: constant"""
    gamma: float = 0.995
    """discount factor"""
    gae_lambda: float = 0.95
    """lambda of the generalised advantage estimation"""
    num_minibatches: int = 8
    """minibatches per epoch; must divide num_steps"""
    update_epochs: int = 3
    """passes over each rollout"""
    norm_adv: bool = False
    """normalise advantages in each minibatch"""
    clip_coef: float = 0.1
    """clipping range of the ratio, and of the value if clip_vloss"""
    clip_vloss: bool = True
    """clip the value loss"""
    init_ent_coef: float = 1.0e-4
    """entropy coefficient at the start"""
    final_ent_coef: float = 1.0e-6
    """entropy coefficient after anneal_steps"""
    vf_coef: float = 0.5
    """weight of the value loss (which has no factor 1/2)"""
    max_grad_norm: float = 0.25
    """global norm to which gradients are clipped"""
    target_kl: float | None = None
    """end an update after an epoch whose mean approximate KL exceeds it"""
    bootstrap_truncated: bool = False
    """bootstrap truncated episodes with the value of their final observation (the published runs did not)"""
    normalize_observations: bool = False
    """standardise observations by their running mean and standard deviation, and clip them to +-10 (not pictures)"""
    normalize_rewards: bool = False
    """divide rewards by the running standard deviation of discounted returns, and clip them to +-10; returns that are
    logged, and rewards that previous_reward gives to the agent, stay as they are"""

    core: str = "trxl"
    """the memory between encoder and heads: trxl, gtrxl, gru, lstm, min_gru, lru, none, or module:name,
    which imports the module"""
    core_layers: int = 1
    """layers of recurrent cores; their width is trxl_dim"""
    previous_action: bool = False
    """give the agent the action of the step before too"""
    previous_reward: bool = False
    """give the agent the reward of the step before too"""
    segment_length: int = 1
    """consecutive steps through which gradients flow (G); 1: none, as in the original"""
    refresh_memory: bool = False
    """recompute the rollout's memory under the present parameters before each epoch but the first, at the cost of a
    rollout's forward passes each time (attention cores)"""
    trxl_num_layers: int = 3
    """transformer layers (L)"""
    trxl_num_heads: int = 4
    """attention heads (H); must divide trxl_dim"""
    trxl_dim: int = 384
    """width of every core (D), attention or not"""
    trxl_memory_length: int = 119
    """memory window (W) in steps; a query attends to at most W - 1 of them, so 1 means no memory"""
    trxl_positional_encoding: PositionalEncodingName = "absolute"
    """encoding of the episode step of a cached hidden state, or of its distance from the query (relative, rotary)"""
    trxl_num_positions: int | None = None
    """E: phase of absolute positions, number of learned ones; None: the task's episode limit, 1024 if endless"""
    trxl_heads: HeadsName = "shared"
    """whether all heads share their matrices, as in the original, or each has its own (full)"""
    trxl_query_position: bool = False
    """give the query its step's encoding too (absolute and learned positions)"""
    trxl_see_self: bool = False
    """let a query see its own step too; gtrxl's layers are then those of its paper"""
    reconstruction_coef: float = 0.0
    """weight of the observation reconstruction loss (pixels only); 0: no decoder"""
    memory_dtype: FloatName = "bfloat16"
    """precision of the cached hidden states"""
    compute_dtype: FloatName = "float32"
    """precision of the factors of convolutions and matrix products; bfloat16 is for accelerators, and slow on CPUs.
    What float32 means on accelerators, matmul_precision says"""
    matmul_precision: PrecisionName = "default"
    """how accelerators multiply float32: default (TPU: as bfloat16, GPU: as TF32), high, or highest (as float32)"""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            try:
                object.__setattr__(self, field.name, typed(field.type, getattr(self, field.name)))
            except ValueError as error:
                raise refusal(self, field.name, str(error)) from None
        if self.trxl_positional_encoding == "":
            object.__setattr__(self, "trxl_positional_encoding", "none")
        check(self)

    @property
    def batch_size(self) -> int:
        """Environment steps of one rollout."""
        return self.num_envs * self.num_steps

    @property
    def num_iterations(self) -> int:
        """Updates of the whole run."""
        return self.total_timesteps // self.batch_size

    @property
    def names_module(self) -> bool:
        """Whether making its environment or its agent may import a module that it names, as `module:id` does.

        Arguments of constructors count too: an environment that wraps another one may take its id.
        """
        named = self.names_core or self.wrapper is not None or ":" in self.env_id
        return named or ":" in json.dumps(self.env_kwargs, separators=(",", "="))

    @property
    def names_core(self) -> bool:
        """Whether making its agent imports a module that `core` names."""
        return ":" in self.core

    def replace(self, **changes: Any) -> "Config":
        """A copy with some fields changed, checked anew."""
        return dataclasses.replace(self, **changes)

    def fitted_to(self, max_episode_steps: int) -> "Config":
        """For a task with E = `max_episode_steps` positions: the memory window is cut to it, as in the original."""
        window = min(self.trxl_memory_length, max_episode_steps)
        return self.replace(trxl_num_positions=max_episode_steps, trxl_memory_length=window)

    def for_evaluation(self, num_envs: int, seed: int, max_steps: int = 0) -> "Config":
        """The same task and agent, for playing instead of training.

        Args:
            num_envs: number of environments.
            seed: as users give it. The environments' seed is half the range away, so that their episodes differ from
                those of any training run whose seed is in the same half.
            max_steps: length at which episodes are truncated, even if the task's are longer; 0: only as the task says.
        """
        return self.replace(
            num_envs=num_envs,
            seed=evaluation_seed(seed),
            num_steps=1,
            num_minibatches=1,
            segment_length=1,
            total_timesteps=num_envs,
            norm_adv=False,
            bootstrap_truncated=False,
            max_episode_steps=min(filter(None, (self.max_episode_steps, max_steps)), default=None),
        )

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str = "config.json") -> "Config":
        """Inverse of `to_json`.

        Args:
            text: a JSON object.
            origin: where it comes from, for the error's line.

        Raises:
            ConfigError: not JSON, an unknown field, or a value that the checks refuse.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise TypeError("not an object")
            values = {"env_groups": 1} | values  # of runs from before there were groups
            if "seed_bits" not in values:
                values = _from_version_0_1(values)
            unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
            if unknown:
                raise ConfigError(f"unknown fields {brief(sorted(unknown))}; written by another version?")
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"{origin} is not a configuration of trxl_jax ({error})") from None


def _from_version_0_1(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run of version 0.1.0, whose `max_episode_steps` limited no episode: it was the positions' E."""
    values = {"seed_bits": 32} | values
    return values | {"trxl_num_positions": values.pop("max_episode_steps", None)}


def load_config(path: Path) -> Config:
    """Reads `config.json`.

    Raises:
        ConfigError: the file is missing or isn't a configuration.
    """
    try:
        return Config.from_json(read_text(path), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name the directory of a training run") from None
