"""The fields of `Config` as command-line flags in groups, each of which the help text shows in a box of its own."""

import ast
import dataclasses
import inspect
import itertools
from functools import cache
from typing import Annotated, Any, get_type_hints

import tyro

from trxl_jax.config import Config

# The first field of each group, in the order in which `Config` has them.
_FIRST_FIELDS = {
    "exp_name": "run",
    "eval_every": "evaluation_and_tracking",
    "env_id": "environment",
    "total_timesteps": "training",
    "trxl_num_layers": "agent",
}


@cache
def with_config_flags(own: type) -> Any:
    """A dataclass with the fields of another one, which all have defaults, and a nested dataclass for each group."""
    members = [
        (group, Annotated[kind, tyro.conf.arg(name=group.replace("_", " "), help="")], dataclasses.field(default=None))
        for group, kind in _group_types().items()
    ]
    kind = dataclasses.make_dataclass(own.__name__, members, bases=(own,), frozen=True)
    return tyro.conf.OmitArgPrefixes[kind]


def defaults_from(config: Config) -> dict[str, Any]:
    """The values of the groups' fields that give a configuration."""
    return {
        group: kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(kind)})
        for group, kind in _group_types().items()
    }


def config_of(given: Any) -> Config:
    """The configuration that the groups' fields of a parsed dataclass give.

    Raises:
        ConfigError: a value is out of range.
    """
    return Config(**{name: value for group in _group_types() for name, value in vars(getattr(given, group)).items()})


@cache
def _group_types() -> dict[str, Any]:
    """For each group a dataclass with its fields of `Config`, their types and their docstrings."""
    types, texts = get_type_hints(Config, include_extras=True), _docstrings()
    groups: dict[str, list[tuple[str, Any]]] = {}
    group = ""
    for field in dataclasses.fields(Config):
        group = _FIRST_FIELDS.get(field.name, group)
        kind, text = types[field.name], texts[field.name]
        groups.setdefault(group, []).append((field.name, Annotated[kind, tyro.conf.arg(help=text)]))
    return {group: dataclasses.make_dataclass(group, fields, frozen=True) for group, fields in groups.items()}


def _docstrings() -> dict[str, str]:
    """The string after each field of `Config`, by name."""
    statements = ast.parse(inspect.getsource(Config)).body[0].body  # type: ignore[attr-defined]
    texts = {}
    for statement, following in itertools.pairwise(statements):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts
