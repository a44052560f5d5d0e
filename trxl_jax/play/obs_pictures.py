"""Pictures among an agent's observations, as people look at them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trxl_jax.agent.encoders import has_channels_first
from trxl_jax.envs.observations import ArraySpace, ObservationSpace, arrays_of

_GAP, _GREY = 8, 128


def pictures_of(space: ObservationSpace, obs: Any, *, x_first: bool = False) -> list[np.ndarray]:
    """The pictures of observations [..., *obs_shape], each u8[..., h, w, 3] with rows first.

    Args:
        space: of the observations.
        obs: one of them, or several with leading axes.
        x_first: whether pictures have their columns first.
    """
    arrays = arrays_of(obs)
    return [_rgb(arrays[name], array, x_first) for name, array in space.arrays.items() if array.kind == "picture"]


def others_of(space: ObservationSpace, obs: Any) -> dict[str, np.ndarray]:
    """The other arrays of observations [..., *obs_shape] by name, flat: f32[..., size]."""
    arrays = arrays_of(obs)
    kept = {name: array for name, array in space.arrays.items() if array.kind != "picture"}
    return {
        name: np.asarray(arrays[name], np.float32).reshape(*_leading(arrays[name], array), -1)
        for name, array in kept.items()
    }


def side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures u8[..., h, w, 3] in one, u8[..., H, W, 3]: scaled to the height of the largest, grey between them."""
    height = max(picture.shape[-3] for picture in pictures)
    first, *rest = [to_height(picture, height) for picture in pictures]
    gap = np.full((*first.shape[:-2], _GAP, 3), _GREY, np.uint8)
    return np.concatenate([first, *(part for picture in rest for part in (gap, picture))], axis=-2)


def to_height(picture: np.ndarray, height: int) -> np.ndarray:
    """Scales u8[..., h, w, 3] by nearest neighbour, so that the agent's pixels stay visible."""
    h, w = picture.shape[-3:-1]
    rows, columns = (np.arange(n * height // h) * h // height for n in (h, w))
    return picture[..., rows, :, :][..., columns, :]


def _leading(array: np.ndarray, space: ArraySpace) -> tuple[int, ...]:
    return array.shape[: array.ndim - len(space.shape)]


def _rgb(array: np.ndarray, space: ArraySpace, x_first: bool) -> np.ndarray:
    """A picture of any number of channels: the first three as colours, or the only one or two as grey."""
    if len(space.shape) == 2:
        array = array[..., None]
    elif has_channels_first(space.shape):
        array = np.moveaxis(array, -3, -1)
    if array.shape[-1] < 3:
        array = array[..., :1].repeat(3, axis=-1)
    array = array[..., :3]
    if array.dtype != np.uint8:
        low, high = array.min(), array.max()
        low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
        array = np.round(255 * (array - low) / max(high - low, 1e-9)).astype(np.uint8)
    return np.swapaxes(array, -3, -2) if x_first else array
