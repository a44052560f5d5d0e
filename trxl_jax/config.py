"""One frozen dataclass holds every number of a run; presets are the published configurations."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from trxl_jax.errors import ConfigError

PositionalEncodingName = Literal["absolute", "learned", "none", ""]
FloatName = Literal["bfloat16", "float32"]
PrecisionName = Literal["default", "high", "highest"]

AUTO = "auto"
"""Value of `resume` that continues the run in `run_dir` if there is one, and else starts it."""

# Fields that a resumed run may change: none of them alters a number that the run will compute (except `debug`, which
# runs different programs and may change the last digits).
RESUMABLE_FIELDS = frozenset(
    {"total_timesteps", "save_every", "keep", "env_timeout", "eval_every", "eval_episodes", "eval_max_steps",
     "capture_video", "video_every", "debug", "track", "wandb_project_name", "wandb_entity"}
)  # fmt: skip


def _parse_options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"--env_options is not JSON ({error}); write for example '{{\"command_count\": [3]}}'"
        ) from None
    if not isinstance(options, dict):
        raise ValueError("--env_options must be a JSON object, for example '{\"command_count\": [3]}'")
    return options


_HALF_THE_SEEDS = 2**31


def evaluation_seed(seed: int) -> int:
    """Environment seed for playing, from the seed that users give; disjoint from training's. Its own inverse."""
    return (seed + _HALF_THE_SEEDS) % (2 * _HALF_THE_SEEDS)


JsonObject = Annotated[
    dict[str, Any],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda args: _parse_options(args[0]),
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
    capture_video: bool = False
    """film an episode every video_every updates: the whole task next to the agent's observation"""
    video_every: int = 100
    """updates between two videos"""
    debug: bool = False
    """stop at the first operation that produces NaN, and check values between rollout and update; much slower"""
    track: bool = False
    """also log to Weights & Biases (needs the extra `wandb`)"""
    wandb_project_name: str = "trxl_jax"
    """project of the W&B run"""
    wandb_entity: str | None = None
    """entity (team) of the W&B run"""

    env_id: str = "MortarMayhem-Grid-v0"
    """a Gymnasium id (stepped on the host); on the device: jax/<id of Memory Gym> or gymnax/<id>"""
    env_options: JsonObject = dataclasses.field(default_factory=dict, hash=False)
    """JSON object: reset options of a Gymnasium or Memory Gym task, parameter fields of a gymnax one"""
    max_episode_steps: int | None = None
    """steps after which an episode is truncated; None: the environment's own limit, if it has one"""
    async_envs: bool = False
    """step host environments in one process each"""
    env_timeout: float = 300.0
    """seconds without an answer after which host environments count as hanging, and the run ends; 0: never"""
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

    trxl_num_layers: int = 3
    """transformer layers (L)"""
    trxl_num_heads: int = 4
    """attention heads (H); must divide trxl_dim"""
    trxl_dim: int = 384
    """width of the transformer (D)"""
    trxl_memory_length: int = 119
    """memory window (W) in steps; a query attends to at most W - 1 of them, so 1 means no memory"""
    trxl_positional_encoding: PositionalEncodingName = "absolute"
    """encoding of the episode step of a cached hidden state"""
    trxl_num_positions: int | None = None
    """E: phase of absolute positions, number of learned ones; None: the task's episode limit, 1024 if endless"""
    reconstruction_coef: float = 0.0
    """weight of the observation reconstruction loss (pixels only); 0: no decoder"""
    memory_dtype: FloatName = "bfloat16"
    """precision of the cached hidden states"""
    compute_dtype: FloatName = "float32"
    """precision of the factors of convolutions and matrix products; bfloat16 is for accelerators, and slow on CPUs"""
    matmul_precision: PrecisionName = "default"
    """how accelerators multiply float32: default (TPU: as bfloat16, GPU: as TF32), high, or highest (as float32)"""

    def __post_init__(self) -> None:
        if self.trxl_positional_encoding == "":
            object.__setattr__(self, "trxl_positional_encoding", "none")
        for name in ("num_envs", "num_steps", "num_minibatches", "update_epochs", "total_timesteps", "keep",
                     "eval_episodes", "video_every",
                     "trxl_num_layers", "trxl_num_heads", "trxl_dim", "trxl_memory_length"):  # fmt: skip
            self._require(getattr(self, name) >= 1, name, "must be at least 1")
        for name in ("anneal_steps", "save_every", "eval_every", "eval_max_steps", "env_timeout", "seed", "init_lr",
                     "final_lr", "clip_coef", "init_ent_coef", "final_ent_coef", "vf_coef",
                     "reconstruction_coef"):  # fmt: skip
            value = getattr(self, name)  # traced numbers, of sweeps in one program, can't be checked
            self._require(not isinstance(value, int | float) or value >= 0, name, "must not be negative")
        for name in ("gamma", "gae_lambda"):
            self._require(0 <= getattr(self, name) <= 1, name, "must lie between 0 and 1")
        self._require(self.seed < 2**32, "seed", "must be less than 2^32")
        self._require(
            not self.norm_adv or self.batch_size > self.num_minibatches,
            "norm_adv",
            "needs minibatches of more than one sample; lower --num_minibatches",
        )
        self._require(self.max_grad_norm > 0, "max_grad_norm", "must be positive")
        self._require(self.target_kl is None or self.target_kl > 0, "target_kl", "must be positive, or left out")
        for name in ("max_episode_steps", "trxl_num_positions"):
            self._require(getattr(self, name) is None or getattr(self, name) >= 1, name, "must be at least 1")
        self._require(self.seed_bits in (31, 32), "seed_bits", "must be 31 or 32")
        self._require(
            self.num_steps % self.num_minibatches == 0,
            "num_steps",
            f"must be a multiple of --num_minibatches {self.num_minibatches}; {_multiples(self)} would do",
        )
        self._require(
            self.trxl_dim % self.trxl_num_heads == 0,
            "trxl_dim",
            f"must be a multiple of --trxl_num_heads {self.trxl_num_heads}",
        )
        self._require(
            self.trxl_positional_encoding in get_args(PositionalEncodingName),
            "trxl_positional_encoding",
            "must be absolute, learned or none",
        )
        self._require(
            self.trxl_positional_encoding != "absolute" or self.trxl_dim % 2 == 0,
            "trxl_dim",
            "must be even for absolute positions (sines and cosines); or use --trxl_positional_encoding none",
        )
        self._require(
            self.matmul_precision in get_args(PrecisionName), "matmul_precision", "must be default, high or highest"
        )
        for name in ("memory_dtype", "compute_dtype"):
            self._require(getattr(self, name) in get_args(FloatName), name, "must be bfloat16 or float32")
        self._require(
            self.total_timesteps >= self.batch_size,
            "total_timesteps",
            f"is less than one update of num_envs x num_steps = {self.batch_size} steps",
        )

    def _require(self, condition: bool, name: str, remedy: str) -> None:
        if not condition:
            raise ConfigError(f"--{name} {getattr(self, name)}: {remedy}")

    @property
    def batch_size(self) -> int:
        """Environment steps of one rollout."""
        return self.num_envs * self.num_steps

    @property
    def num_iterations(self) -> int:
        """Updates of the whole run."""
        return self.total_timesteps // self.batch_size

    def replace(self, **changes: Any) -> "Config":
        """A copy with some fields changed, checked anew."""
        return dataclasses.replace(self, **changes)

    def fitted_to(self, max_episode_steps: int) -> "Config":
        """For a task whose longest episode has so many steps: the memory window is cut to it, as in the original."""
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
            if "seed_bits" not in values:
                values = _from_version_0_1(values)
            unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
            if unknown:
                raise ConfigError(f"{origin}: unknown fields {sorted(unknown)}; written by another version?")
            for field in dataclasses.fields(cls):
                _check_type(field, values.get(field.name, getattr(cls, field.name, {})), origin)
            return cls(**values)
        except (json.JSONDecodeError, TypeError) as error:
            raise ConfigError(f"{origin} is not a configuration of trxl_jax ({error})") from None


def _from_version_0_1(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run of version 0.1.0, whose `max_episode_steps` limited no episode: it was the positions' E."""
    values = {"seed_bits": 32} | values
    return values | {"trxl_num_positions": values.pop("max_episode_steps", None)}


def _check_type(field: "dataclasses.Field[Any]", value: Any, origin: str) -> None:
    kinds: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}
    name = str(getattr(field.type, "__name__", field.type)).removesuffix(" | None")
    if name not in kinds or (value is None and field.default is None):
        return
    if not isinstance(value, kinds[name]) or (name != "bool" and isinstance(value, bool)):
        raise ConfigError(f"{origin}: {field.name} must be of type {name}, not {value!r}")


def _multiples(config: Config) -> str:
    lower = config.num_steps // config.num_minibatches * config.num_minibatches
    return " or ".join(str(n) for n in (lower, lower + config.num_minibatches) if n)


def load_config(path: Path) -> Config:
    """Reads `config.json`.

    Raises:
        ConfigError: the file is missing or isn't a configuration.
    """
    try:
        return Config.from_json(path.read_text(), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name the directory of a training run") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a configuration of trxl_jax (not text)") from None
