"""Palettes of one's own: colors of a file as (a*, b*)."""

import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ImageColor

from jaxcolor.color.spaces import srgb_to_lab
from jaxcolor.errors import InputError
from jaxcolor.files import read_text
from jaxcolor.images import read_color

MOST_COLORS = 4096


def read_palette(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """The different (a*, b*) ``[P, 2]`` of a palette file: GIMP ``.gpl``, JSON (a list of colors), or a PNG's pixels.

    JSON colors are names or #rrggbb as in CSS, or [red, green, blue] from 0 to 255. Lightness does not count. Raises
    :class:`InputError`, one line, for a file that is none of these, without colors, or with more than 4096.
    """
    file = Path(path)
    readers = {".gpl": _gimp, ".json": _json, ".png": _pixels}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise InputError(f"{file}: a palette is a .gpl, .json or .png file, not {file.suffix or 'one without suffix'}")
    rgb = np.unique(reader(file).reshape(-1, 3), axis=0)
    if not 1 <= len(rgb) <= MOST_COLORS:
        raise InputError(f"{file}: has {len(rgb)} colors; expected 1 to {MOST_COLORS}; leave some out")
    return np.asarray(srgb_to_lab(jnp.asarray(rgb, jnp.float32))[..., 1:])


def as_palette(palette: ArrayLike | str | os.PathLike[str] | None) -> NDArray[np.float32] | None:
    """Colors ``[P, 2]``, those of a file, or none; :class:`InputError` for another shape or non-finite values."""
    if palette is None:
        return None
    if isinstance(palette, str | os.PathLike):
        return read_palette(palette)
    colors = np.asarray(palette, np.float32)
    if colors.ndim != 2 or colors.shape[-1] != 2 or len(colors) == 0 or not np.isfinite(colors).all():
        raise InputError(f"a palette must be finite (a*, b*) of shape [P, 2], P at least 1; got {list(colors.shape)}")
    return colors


def color_of(value: Any) -> tuple[float, float, float]:
    """sRGB in [0, 1] of a CSS color or of [red, green, blue] from 0 to 255; raises :class:`ValueError`.

    >>> color_of("#ff0000"), color_of([0, 0, 255])
    ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    """
    channels = ImageColor.getrgb(value)[:3] if isinstance(value, str) else [float(channel) for channel in value]
    if len(channels) != 3 or not all(0 <= channel <= 255 for channel in channels):
        raise ValueError("a color needs three channels from 0 to 255")
    red, green, blue = (channel / 255 for channel in channels)
    return red, green, blue


def _gimp(file: Path) -> NDArray[Any]:
    lines = [line.strip() for line in read_text(file).splitlines()]
    if not lines or lines[0] != "GIMP Palette":
        raise InputError(f"{file}: is no GIMP palette; expected the first line 'GIMP Palette'; export it again")
    entries = [line.split()[:3] for line in lines[1:] if line and line[0].isdigit()]
    return _checked(file, entries)


def _json(file: Path) -> NDArray[Any]:
    try:
        entries = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: is no JSON ({error}); expected a list of colors") from error
    if not isinstance(entries, list):
        raise InputError(f'{file}: expected a list of colors such as ["#c83232", [0, 80, 160]]')
    return _checked(file, entries)


def _checked(file: Path, entries: list[Any]) -> NDArray[Any]:
    try:
        return np.array([color_of(entry) for entry in entries], np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: a color is not understood ({error}); expected #c83232 or 200 50 50") from error


def _pixels(file: Path) -> NDArray[Any]:
    return read_color(file)
