"""L* and sRGB of pixels, in NumPy: the color conversions that reading a file needs.

The constants are those of ``jaxcolor.color.spaces`` (a test compares them); they stand here again because importing
that module starts JAX, and looking at a file should not.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from jaxcolor.images.profiles import to_linear, to_srgb

LUMINANCE_WEIGHTS = (0.212671, 0.715160, 0.072169)
STRIP_PIXELS = 1 << 19


def strips(height: int, width: int) -> Iterator[slice]:
    """Slices of rows of about half a million pixels: keeps temporary arrays small on large photos."""
    rows = max(1, STRIP_PIXELS // max(1, width))
    return (slice(first, min(first + rows, height)) for first in range(0, height, rows))


def luminance_of(pixels: NDArray[Any], profile: bytes | None = None) -> NDArray[np.float32]:
    """CIE L* (D65) of gray, RGB or CMYK pixels.

    Args:
        pixels: [H, W, 1 | 3 | 4] (gray, RGB, CMYK without alpha), unsigned integers over their full range or float
            in [0, 1]. Without a profile: sRGB; inks by the plain rule R = (1 - C)(1 - K).
        profile: An ICC profile that fits the channels, or None. An RGB profile also fits gray pixels.

    Returns:
        [H, W] float32 in [0, 100].

    Cost: one table look-up per channel for 8 and 16 bit; about half a second per megapixel with a profile.
    Source: IEC 61966-2-1 and CIE 15 (L*).
    """
    height, width, channels = pixels.shape
    levels = _levels(pixels.dtype)
    table = None
    if levels is not None and channels == 1:
        table = _lstar(_relative_luminance(levels.reshape(1, -1, 1), profile))[0].astype(np.float32)
    result = np.empty((height, width), np.float32)
    for rows in strips(height, width):
        block = pixels[rows]
        result[rows] = _lstar(_relative_luminance(block, profile)) if table is None else table[block[..., 0]]
    return np.clip(result, 0, 100, out=result)


def srgb_of(pixels: NDArray[Any], profile: bytes | None = None) -> NDArray[np.float32]:
    """sRGB ``[H, W, 3]`` in [0, 1] of the same pixels as in :func:`luminance_of`, clipped.

    >>> srgb_of(np.full((1, 1, 1), 255, np.uint8)).tolist()
    [[[1.0, 1.0, 1.0]]]
    """
    height, width, channels = pixels.shape
    result = np.empty((height, width, 3), np.float32)
    for rows in strips(height, width):
        block = pixels[rows]
        if channels == 1 and (profile is None or profile[16:20] == b"RGB "):
            block = np.repeat(block, 3, axis=-1)
        if profile is not None:
            block = to_srgb(block if block.dtype in (np.uint8, np.uint16) else unit_scale(block), profile)
        elif channels == 4:
            block = _without_black(block)
        result[rows] = unit_scale(block)
    return np.clip(result, 0, 1, out=result)


def unit_scale(pixels: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Pixels as float in [0, 1]: integers divided by the largest value of their type, float as it is."""
    if pixels.dtype == np.bool_:
        return pixels.astype(np.float32)
    if np.issubdtype(pixels.dtype, np.integer):
        # float64 first: a 32-bit maximum is no float32 number.
        wide = pixels.astype(np.float32 if pixels.dtype.itemsize <= 2 else np.float64)
        return np.divide(wide, float(np.iinfo(pixels.dtype).max)).astype(np.float32)
    return pixels


def _levels(dtype: DTypeLike) -> NDArray[Any] | None:
    """Every value that 8- or 16-bit pixels can take, or None for other types."""
    kind = np.dtype(dtype)
    return np.arange(np.iinfo(kind).max + 1, dtype=kind) if kind in (np.uint8, np.uint16) else None


def _relative_luminance(block: NDArray[Any], profile: bytes | None) -> NDArray[np.floating[Any]]:
    channels = block.shape[-1]
    if profile is not None:
        if channels == 1 and profile[16:20] == b"RGB ":
            block = np.repeat(block, 3, axis=-1)
        if block.dtype not in (np.uint8, np.uint16):
            block = unit_scale(block).astype(np.float32)
        return to_linear(block, profile) @ np.array(LUMINANCE_WEIGHTS, np.float32)
    if channels == 4:
        block = _without_black(block)
    table = _decode_table(block.dtype.name)
    linear = _decode(unit_scale(block)) if table is None else table[block]
    if channels == 1:
        return linear[..., 0]
    red, green, blue = LUMINANCE_WEIGHTS
    return red * linear[..., 0] + green * linear[..., 1] + blue * linear[..., 2]


def _without_black(inks: NDArray[Any]) -> NDArray[Any]:
    """RGB of CMYK by the plain rule."""
    inks = unit_scale(inks)
    return (1 - inks[..., :3]) * (1 - inks[..., 3:])


@cache
def _decode_table(dtype: str) -> NDArray[np.floating[Any]] | None:
    levels = _levels(dtype)
    return None if levels is None else _decode(levels / np.float64(levels[-1]))


def _decode(srgb: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """The sRGB transfer function: encoded value in [0, 1] to relative light in [0, 1]."""
    value = np.asarray(srgb)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _lstar(relative: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """CIE L* of luminance relative to white."""
    return np.where(relative > (6 / 29) ** 3, 116 * np.cbrt(relative) - 16, (29 / 3) ** 3 * relative)
