"""Errors that are the user's to mend: each carries one line that names the cause and the remedy."""


class UserError(Exception):
    """A mistake in flags, files or environments. `train.py` prints the line and exits with status 2."""


class ConfigError(UserError, ValueError):
    """A flag, preset or configuration file that can't be used."""


class EnvironmentFailure(UserError, RuntimeError):
    """A host environment raised; the message names the environment, its index, seed and step."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that can't be written or read."""
