"""Colors that are known at some places of a photo: read from files, drawn onto the photo's pixels."""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcolor.color.gamut import scale_chroma
from jaxcolor.color.spaces import lab_to_srgb, srgb_to_lab, srgb_to_yuv
from jaxcolor.coupled_tv.problem import CoupledTVProblem
from jaxcolor.coupled_tv.spreading import spread_hints
from jaxcolor.errors import InputError
from jaxcolor.files import read_text
from jaxcolor.images import read_color, read_gray
from jaxcolor.palettes import color_of

_FIELDS = ("x", "y", "radius", "color")


@dataclass(frozen=True)
class Hint:
    """One color ``color`` (sRGB in [0, 1]) on the disc of ``radius`` pixels around column ``x``, row ``y``."""

    x: float
    y: float
    radius: float
    color: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not np.isfinite([self.x, self.y, self.radius]).all() or self.radius < 0:
            raise InputError("a hint is out of range; expected finite numbers and a radius of at least 0")
        if len(self.color) != 3 or not all(0 <= part <= 1 for part in self.color):
            raise InputError(f"the color of a hint is three numbers in [0, 1]; got {self.color}")


@dataclass(frozen=True, eq=False)
class Hints:
    """Points, or strokes drawn over the photo; of the colors only hue and chroma count, L* is the photo's.

    points: discs; a radius below 1 means the one pixel that (x, y) lies in. strokes: RGBA ``[H, W, 4]`` in [0, 1] of
    the photo's size, a hint wherever alpha is at least 1/2; or None.

    >>> hints = Hints([Hint(2, 1, 0, (0.6, 0.4, 0.4))])
    >>> colors, held, notes = hints.drawn(np.full((3, 4), 50.0, np.float32))
    >>> int(held.sum()), notes
    (1, [])
    """

    points: Sequence[Hint] = ()
    strokes: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.strokes is not None and (self.strokes.ndim != 3 or self.strokes.shape[2] != 4):
            raise InputError(f"strokes must be RGBA, [H, W, 4]; got shape {list(self.strokes.shape)}")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Hints":
        """Hints of a file: a PNG with alpha, or points as CSV (header x,y,radius,color) or JSON (a list of objects).

        Colors are names or #rrggbb as in CSS, in JSON also [red, green, blue] from 0 to 255. Raises
        :class:`InputError`, one line, for a file that is none of these.
        """
        file = Path(path)
        readers = {".png": _strokes, ".csv": _csv, ".json": _json}
        reader = readers.get(file.suffix.lower())
        if reader is None:
            raise InputError(f"{file}: hints are a .png, .csv or .json file, not {file.suffix or 'one without suffix'}")
        return reader(file)

    def drawn(self, luminance: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
        """Chroma ``[H, W, 2]`` (a*, b*), where it holds ``[H, W]``, and notes, for a photo of L* ``[H, W]``.

        Colors that cannot be displayed at the photo's L* are moved toward gray until they can, which a note says.
        Raises :class:`InputError` for a hint outside the photo, and for two colors on one pixel.
        """
        held = np.zeros(luminance.shape, bool)
        chroma = np.zeros((*luminance.shape, 2), np.float32)
        if self.strokes is not None:
            if self.strokes.shape[:2] != luminance.shape:
                raise InputError(
                    f"the strokes are {_size(self.strokes.shape)} pixels and the photo is {_size(luminance.shape)}; "
                    "draw them on a picture of the photo's size"
                )
            held = self.strokes[..., 3] >= 0.5
            chroma[held] = _chroma(self.strokes[held][:, :3])
        for number, hint in enumerate(self.points, start=1):
            _draw(number, hint, held, chroma)
        lab, scale = scale_chroma(jnp.concatenate([luminance[..., None], chroma], -1))
        off = int(((np.asarray(scale) < 1) & held).sum())
        note = f"hints cannot be displayed at the lightness of {off} pixels and were moved toward gray"
        return np.asarray(lab[..., 1:]), held, [note] if off else []

    def applied(self, problem: CoupledTVProblem, lightness: NDArray[np.float32]) -> tuple[CoupledTVProblem, list[str]]:
        """The problem with these hints held and spread, and the notes of :meth:`drawn`.

        ``lightness`` ``[h, w]`` is the photo's L*; the problem may be larger by padding below and to the right.
        """
        chroma, held, notes = self.drawn(lightness)
        colors, share = spread_hints(jnp.asarray(lightness), jnp.asarray(chroma), jnp.asarray(held))
        if problem.space == "yuv":
            lab, _ = scale_chroma(jnp.concatenate([jnp.asarray(lightness)[..., None], colors], -1))
            colors = 255 * srgb_to_yuv(jnp.clip(lab_to_srgb(lab), 0, 1))[..., 1:]
        border = [(0, large - small) for large, small in zip(problem.shape, lightness.shape, strict=True)]
        padded = (jnp.pad(colors, [*border, (0, 0)]), jnp.pad(held, border), jnp.pad(share, border))
        return problem.with_hints(*padded), notes


def as_hints(hints: Hints | str | os.PathLike[str] | None) -> Hints | None:
    """Hints, those of a file, or none."""
    return hints if hints is None or isinstance(hints, Hints) else Hints.read(hints)


def _draw(number: int, hint: Hint, held: NDArray[np.bool_], chroma: NDArray[np.float32]) -> None:
    height, width = held.shape
    # The square around the disc, as far as it lies in the photo: there may be many hints, and the photo may be large.
    square = (_around(hint.y, hint.radius, height), _around(hint.x, hint.radius, width))
    row, column = np.ogrid[square]
    disc = (column - hint.x) ** 2 + (row - hint.y) ** 2 <= hint.radius**2
    disc |= (column == np.floor(hint.x + 0.5)) & (row == np.floor(hint.y + 0.5))
    if not disc.any():
        raise InputError(
            f"hint {number} at ({hint.x:g}, {hint.y:g}) lies outside the photo, {width}×{height} pixels; move it"
        )
    color = _chroma(np.array(hint.color))
    if (np.abs(chroma[square] - color).max(-1) > 1e-3)[disc & held[square]].any():
        raise InputError(
            f"hint {number} at ({hint.x:g}, {hint.y:g}) contradicts one before it: two colors for one pixel; "
            "remove one or give it a smaller radius"
        )
    held[square] |= disc
    chroma[square][disc] = color


def _around(center: float, radius: float, size: int) -> slice:
    first, last = (int(min(max(edge, 0), size)) for edge in (center - radius, center + radius + 2))
    return slice(first, last)


def _chroma(rgb: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(srgb_to_lab(jnp.asarray(rgb, jnp.float32))[..., 1:])


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]}"


def _strokes(file: Path) -> Hints:
    alpha = read_gray(file).alpha
    if alpha is None:
        raise InputError(f"{file}: has no alpha channel; expected strokes on a transparent ground; save it as RGBA")
    if not (alpha >= 0.5).any():
        raise InputError(f"{file}: holds no stroke; expected pixels whose alpha is at least 1/2")
    return Hints(strokes=np.concatenate([read_color(file), alpha[..., None]], -1))


def _csv(file: Path) -> Hints:
    rows = list(csv.DictReader(read_text(file).splitlines(), skipinitialspace=True))
    return _points(file, rows)


def _json(file: Path) -> Hints:
    try:
        rows = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{file}: is no JSON ({error}); expected a list with {', '.join(_FIELDS)}") from error
    return _points(file, rows)


def _points(file: Path, rows: Any) -> Hints:
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{file}: holds no hints; expected {', '.join(_FIELDS)} for each of at least one")
    return Hints([_point(f"{file}: hint {number}", row) for number, row in enumerate(rows, start=1)])


def _point(place: str, row: Any) -> Hint:
    if not isinstance(row, dict) or any(row.get(name) is None for name in _FIELDS):
        raise InputError(f"{place} is incomplete; expected {', '.join(_FIELDS)}")
    try:
        x, y, radius = (float(row[name]) for name in _FIELDS[:3])
        color = color_of(row["color"])
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{place} is not understood ({error}); expected numbers and a color like #c83232") from error
    try:
        return Hint(x, y, radius, color)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
