from .agent.actor_critic import ActorCritic as ActorCritic
from .agent.actor_critic import make_agent as make_agent
from .config import Config as Config
from .envs.native_actions import NativeActions as NativeActions
from .envs.observations import read_observation_space as read_observation_space
from .envs.registry import make_env as make_env
from .envs.registry import make_single as make_single
from .errors import UserError as UserError
from .loading import load as load
from .play.evaluation import evaluate as evaluate
from .play.policy import Policy as Policy
from .ppo.train_step import init_states as init_states
from .ppo.train_step import make_train_step as make_train_step
from .presets import PRESETS as PRESETS
from .runs.trainer import train as train
from .runs.trainer import train_seeds as train_seeds
from .torch_import.checkpoint import load_torch_checkpoint as load_torch_checkpoint

__version__: str
