"""Types of settings: which values a field takes, and in which form it keeps them."""

import math
import os
import sys
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np

from trxl_jax.errors import brief, is_text

_MAX_DEPTH = 32  # of lists and objects in a JSON value
_MAX_TEXT = 4096  # characters, the longest path of Linux


def typed(annotation: Any, value: Any) -> Any:
    """A value in the form in which a field of this type keeps it.

    Whole floats are taken for integers, integers for floats, scalars of NumPy and JAX for numbers, and paths for text.
    Traced JAX numbers (of programs that train with many settings at once) are returned as they are for floats.

    Args:
        annotation: int, float, bool, str, a Literal of strings, a JSON object (dict), or one of these or None.
        value: any object.

    Raises:
        ValueError: it has another type. The message completes a sentence: "must be a whole number".
    """
    options = get_args(annotation)
    if value is None and NoneType in options:
        return None
    kind = options[0] if NoneType in options or get_origin(annotation) is Annotated else annotation
    value = _as_python(value)
    if kind is int:
        return _whole_number(value)
    if kind is float:
        return value if _is_traced(value) else _number(value)
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            names = [name for name in get_args(kind) if name]
            raise ValueError(f"must be {', '.join(names[:-1])} or {names[-1]}")
        return value
    return _text(value) if kind is str else json_object(value)


def like(default: Any, value: Any) -> Any:
    """A JSON value as the type of a parameter's default: a number, true or false, or an array of the same shape.

    Raises:
        ValueError: it has another type, or is negative where the default isn't. The message completes a sentence, as
            for `typed`.
    """
    if isinstance(default, bool | int | float):
        value = typed(type(default), value)
        if type(default) is int and not (-(2**31) if default < 0 else 0) <= value < 2**31:
            raise ValueError("must be a whole number from 0 to 2^31 - 1")
        return value
    if hasattr(default, "shape") and hasattr(default, "dtype"):
        try:
            array = np.asarray(value, default.dtype)
        except (OverflowError, TypeError, ValueError):
            array = np.zeros(0)
        if array.shape != default.shape:
            raise ValueError(f"must be numbers of shape {default.shape}")
        return array
    return value


def parse_whole_number(text: str) -> int:
    """An integer from text such as 1000000 or 1e6.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return _whole_number(float(text))
    except ValueError:
        raise ValueError(f"{brief(text)} is not a whole number") from None


def json_object(value: Any) -> dict[str, Any]:
    """A copy of a JSON object, with lists for tuples and arrays, and Python's numbers for those of NumPy.

    Raises:
        ValueError: JSON can't hold it.
    """
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object, for example '{\"command_count\": [3]}'")
    return {_text(name): _json_value(item, 1) for name, item in value.items()}


def _json_value(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"must not be nested more than {_MAX_DEPTH} deep")
    value = _as_python(value)
    if isinstance(value, dict):
        return {_text(name): _json_value(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item, depth + 1) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str | os.PathLike):
        return _text(value)
    raise ValueError("must hold nothing but objects, lists, text, finite numbers of 64 bits, true, false and null")


def _text(value: Any) -> str:
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(value, str):
        raise ValueError("must be text")
    if len(value) > _MAX_TEXT:
        raise ValueError(f"must not be longer than {_MAX_TEXT:,} characters")
    if not is_text(value):
        raise ValueError("must be text without control characters")
    return value


def _whole_number(value: Any) -> int:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
            return int(value)
    except (ValueError, OverflowError):  # NaN, infinity
        pass
    raise ValueError("must be a whole number")


def _number(value: Any) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(float(value)):
            return float(value)
    except OverflowError:
        pass
    raise ValueError("must be a finite number")


def _as_python(value: Any) -> Any:
    """Scalars and arrays of NumPy and JAX as numbers and lists of Python."""
    return value.tolist() if hasattr(value, "tolist") and not _is_traced(value) else value


def _is_traced(value: Any) -> bool:
    jax = sys.modules.get("jax")  # which this module doesn't import: it takes seconds
    return jax is not None and isinstance(value, jax.core.Tracer)
