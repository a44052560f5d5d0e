"""Imports modules of the user's, which flags such as `--env_id module:id` and `--core module:name` name."""

import importlib
import os
import sys
from types import ModuleType

from trxl_jax.errors import ConfigError


def import_own(module: str, flag: str, hint: str) -> ModuleType:
    """The module, which may be in the working directory.

    Args:
        module: its name.
        flag: the flag and its value, for the error's line.
        hint: what to write instead, if there is no such module.

    Raises:
        ConfigError: there is no such module, or importing it fails.
    """
    if os.getcwd() not in sys.path:  # installed commands have their own folder there
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(module)
    except Exception as error:  # a module may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            reason = f"there is no module {error.name}, installed or in {os.getcwd()}; {hint}"
        else:
            reason = f"importing {module} failed: {type(error).__name__}: {error}"
        raise ConfigError(f"{flag}: {' '.join(reason.split())}") from error
