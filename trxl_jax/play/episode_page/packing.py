"""Encodes arrays as text for the page, which decodes them in `data.js` and `frames.js`.

Numbers are little-endian base64, frames lossless WebP, attention weights quantised and zlib-compressed.
"""

import base64
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

ATTENTION_LEVELS = 2**14 - 1
"""Quantisation of attention: a weight of 1 is stored as this integer, so the error is at most 1 / ATTENTION_LEVELS."""

_SHEET_PIXELS = 4_000_000  # 16 MB when decoded
_SHEET_FRAMES = 64
_WEBP_MAX_SIDE = 16_383


def pack_array(array: np.ndarray, dtype: str) -> str:
    """Encodes an array [...] of any shape, flattened; `dtype` is a NumPy type code such as f4."""
    return _text(np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<")).tobytes())


def pack_frames(frames: np.ndarray) -> dict[str, Any]:
    """Encodes frames u8[K, height, width, 3]: each unique frame is stored once, stacked vertically in sprite sheets.

    WebP compresses similar frames that are far apart in a sheet; PNG, with its 32 kB window, needs five times as much.

    Returns:
        height, width; per_sheet: frames per sheet; sheets: WebP images, base64; index: u4[K], each step's unique frame.
    """
    unique_index: dict[bytes, int] = {}
    index = np.array([unique_index.setdefault(frame.tobytes(), len(unique_index)) for frame in frames], np.uint32)
    unique = [np.frombuffer(data, np.uint8).reshape(frames.shape[1:]) for data in unique_index]
    height, width = frames.shape[1:3]
    per_sheet = max(1, min(_SHEET_FRAMES, _SHEET_PIXELS // (height * width), _WEBP_MAX_SIDE // height))
    sheets = [np.concatenate(unique[i : i + per_sheet]) for i in range(0, len(unique), per_sheet)]
    return {
        "height": height,
        "width": width,
        "per_sheet": per_sheet,
        "sheets": [_webp(sheet) for sheet in sheets],
        "index": pack_array(index, "u4"),
    }


def pack_attention(attention: np.ndarray) -> dict[str, Any]:
    """Encodes attention weights f32[K, L, H, W - 1], one compressed block per layer and head, decoded on demand.

    The cumulative sum is rounded rather than the weights, so that rounding errors don't accumulate and rows still sum
    to 1.

    Returns:
        ages: stored columns, number of past steps; levels: integer of weight 1; planes[layer][head]: text of
        u16[K, ages].
    """
    steps, layers, heads, window = attention.shape
    ages = min(window, steps - 1)  # there are no older steps
    sums = np.rint(np.cumsum(attention[..., :ages], axis=-1, dtype=np.float64) * ATTENTION_LEVELS)
    levels = np.diff(sums, axis=-1, prepend=0).astype(np.uint16)
    return {
        "ages": ages,
        "levels": ATTENTION_LEVELS,
        "planes": [[_deflate(levels[:, layer, head]) for head in range(heads)] for layer in range(layers)],
    }


def _deflate(levels: np.ndarray) -> str:
    # All high bytes first, then all low bytes: the high ones are nearly all zero and compress well.
    return _text(zlib.compress((levels >> 8).astype(np.uint8).tobytes() + levels.astype(np.uint8).tobytes(), 6))


def _webp(sheet: np.ndarray) -> str:
    file = io.BytesIO()
    # With lossless=True, `quality` is the compression effort.
    Image.fromarray(sheet).save(file, "webp", lossless=True, quality=20, method=3)
    return _text(file.getvalue())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
