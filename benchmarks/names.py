"""Names that a user gave to a benchmark, compared with those that exist."""

from collections.abc import Iterable, Sequence

from trxl_jax.envs.near_names import near_names
from trxl_jax.errors import UserError


def check_names(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuses the first name that doesn't exist.

    Args:
        kind: what the names are of, for the message: task, core, preset.
        given: the user's.
        known: those that exist.

    Raises:
        UserError: a name that doesn't exist, with similar ones.
    """
    names: Sequence[str] = list(known)
    for name in given:
        if name not in names:
            raise UserError(f"unknown {kind} {name}; {near_names(name, names)}")
