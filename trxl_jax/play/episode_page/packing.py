"""Arrays as the text that the page decodes: little-endian base64, frames as lossless WebP, attention deflated."""

import base64
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

ATTENTION_LEVELS = 2**14 - 1
"""A weight of 1 in the page's integers: stored weights are off by at most 1 / ATTENTION_LEVELS."""

_SHEET_PIXELS = 4_000_000  # 16 MB when decoded
_SHEET_FRAMES = 64
_WEBP_MAX_SIDE = 16_383


def pack_array(array: np.ndarray, dtype: str) -> str:
    """Any array, flattened; `dtype` in NumPy's notation, such as f4."""
    return _text(np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<")).tobytes())


def pack_frames(frames: np.ndarray) -> dict[str, Any]:
    """Frames u8[K, height, width, 3]: distinct ones once, some dozens under one another in each sheet.

    WebP finds what frames far apart have in common; PNG, which looks back 32 kB, needs five times the bytes.
    """
    number_of: dict[bytes, int] = {}
    index = np.array([number_of.setdefault(frame.tobytes(), len(number_of)) for frame in frames], np.uint32)
    distinct = [np.frombuffer(data, np.uint8).reshape(frames.shape[1:]) for data in number_of]
    height, width = frames.shape[1:3]
    per_sheet = max(1, min(_SHEET_FRAMES, _SHEET_PIXELS // (height * width), _WEBP_MAX_SIDE // height))
    sheets = [np.concatenate(distinct[i : i + per_sheet]) for i in range(0, len(distinct), per_sheet)]
    return {
        "height": height,
        "width": width,
        "per_sheet": per_sheet,
        "sheets": [_webp(sheet) for sheet in sheets],
        "index": pack_array(index, "u4"),
    }


def pack_attention(attention: np.ndarray) -> dict[str, Any]:
    """Weights f32[K, L, H, W - 1] as one deflated block a layer and head, to be decoded when it is looked at.

    Rounding the running sum, not the weights, keeps a row's sum: what one weight loses the next one gains.
    """
    steps, layers, heads, window = attention.shape
    ages = min(window, steps - 1)  # older steps don't exist
    sums = np.rint(np.cumsum(attention[..., :ages], axis=-1, dtype=np.float64) * ATTENTION_LEVELS)
    levels = np.diff(sums, axis=-1, prepend=0).astype(np.uint16)
    return {
        "ages": ages,
        "levels": ATTENTION_LEVELS,
        "planes": [[_deflate(levels[:, layer, head]) for head in range(heads)] for layer in range(layers)],
    }


def _deflate(levels: np.ndarray) -> str:
    # High bytes first, then the low ones: the high ones are nearly all zero.
    return _text(zlib.compress((levels >> 8).astype(np.uint8).tobytes() + levels.astype(np.uint8).tobytes(), 6))


def _webp(sheet: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "webp", lossless=True, quality=20, method=3)  # quality is effort
    return _text(file.getvalue())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
