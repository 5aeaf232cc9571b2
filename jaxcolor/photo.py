"""What colorizing and refining a photo share: padded planes, the step from chroma to RGB, reports.

Photos are padded to one of a few shapes, so that they share compiled programs.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

import jaxcolor
from jaxcolor import metrics
from jaxcolor.color.gamut import scale_chroma
from jaxcolor.color.spaces import lab_to_srgb
from jaxcolor.coupled_tv.problem import CoupledTVProblem
from jaxcolor.coupled_tv.solution import Solution, Status
from jaxcolor.errors import InputError
from jaxcolor.images import GrayImage, read_gray, write_image
from jaxcolor.resampling import resample, resampling_matrix

Progress = Callable[[str, int, int], object]
Chroma = tuple[jax.Array, jax.Array]


@dataclass(frozen=True, eq=False)
class Picture:
    """``rgb`` float32 ``[H, W, 3]`` in [0, 1] (sRGB), ``chroma`` float32 ``[H, W, 2]`` (a*, b* as the method gave them,
    before the gamut), and a ``report`` of plain values ready for JSON."""

    rgb: NDArray[np.float32]
    chroma: NDArray[np.float32]
    report: dict[str, Any]

    def write(self, output: str | os.PathLike[str], like: GrayImage, overwrite: bool = False) -> None:
        """Write the picture in the format of the suffix, with alpha, color profile and bit depth of ``like``.

        The report then tells where it is and how long that took. Raises :class:`InputError` for a place that cannot be
        written, and for one that is taken without ``overwrite``.

        >>> import tempfile
        >>> gray = GrayImage.from_array(np.zeros((4, 6), np.float32))
        >>> picture = Picture(np.zeros((4, 6, 3), np.float32), np.zeros((4, 6, 2), np.float32), {"seconds": {}})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     picture.write(f"{folder}/black.png", like=gray)
        >>> picture.report["output"].endswith("black.png")
        True
        """
        clock = Clock()
        with clock("write"):
            write_image(output, self.rgb, like=like, overwrite=overwrite)
        self.report["output"] = os.fspath(output)
        self.report["seconds"] |= clock.seconds


class Photo(NamedTuple):
    """A luminance plane padded to a bucket, and the size of the photo in its top left corner."""

    luminance: NDArray[np.float32]
    height: int
    width: int


def bucket(size: int) -> int:
    """``size`` rounded up to one of a few lengths, at most 1/16 more, so that photos share compiled programs.

    >>> [bucket(n) for n in (1, 512, 513, 6000)]
    [32, 512, 544, 6144]
    """
    step = max(32, 2 ** (size.bit_length() - 1) // 16)
    return -(-size // step) * step


def padded_photo(luminance: NDArray[np.float32]) -> Photo:
    """The photo of a luminance ``[H, W]``, its border pixels repeated into the padding."""
    height, width = luminance.shape
    border = ((0, bucket(height) - height), (0, bucket(width) - width))
    return Photo(np.pad(luminance, border, mode="edge"), height, width)


def reduced_photo(photo: Photo, pixels: float) -> Photo:
    """The photo itself if it has at most so many pixels, otherwise at a size that has.

    >>> reduced_photo(padded_photo(np.full((40, 90), 50, np.float32)), 400)[1:]
    (13, 30)
    """
    scale = math.sqrt(pixels / (photo.height * photo.width))
    if scale >= 1:
        return photo
    height, width = (max(1, round(scale * size)) for size in (photo.height, photo.width))
    lengths = zip((photo.height, photo.width), (height, width), photo.luminance.shape, strict=True)
    rows, columns = (resampling_matrix(size, new, padded=padded) for size, new, padded in lengths)
    return padded_photo(np.clip(np.asarray(resample(photo.luminance, rows, columns)), 0, 100))


def enlarged(chroma: ArrayLike, photo: Photo) -> jax.Array:
    """Chroma ``[h, w, 2]`` at the size of the photo, bicubic; 0 in its padding."""
    small = np.asarray(chroma)
    lengths = zip(small.shape[:2], (photo.height, photo.width), photo.luminance.shape, strict=True)
    # Transposed padding: here the *results* are padded, with zero rows.
    rows, columns = (
        np.pad(resampling_matrix(cells, size), ((0, padded - size), (0, 0))) for cells, size, padded in lengths
    )
    return resample(small, rows, columns)


def without_padding(chroma: Chroma, photo: Photo) -> NDArray[np.float32]:
    """Chroma planes of a padded photo as ``[height, width, 2]``.

    >>> without_padding((jnp.zeros((32, 32)), jnp.ones((32, 32))), padded_photo(np.zeros((3, 5), np.float32))).shape
    (3, 5, 2)
    """
    return np.stack([np.asarray(plane)[: photo.height, : photo.width] for plane in chroma], -1)


def merge(photo: Photo, chroma: Chroma) -> tuple[NDArray[np.float32], NDArray[np.float32], dict[str, float]]:
    """RGB ``[H, W, 3]`` and the chroma ``[H, W, 2]`` as it was, both without padding, and measures of the picture."""
    rgb, colors, measures = _to_rgb(photo.luminance, chroma, jnp.array([photo.height, photo.width]))
    inside = (slice(photo.height), slice(photo.width))
    shown, given = np.asarray(rgb)[inside], np.asarray(colors)[inside]
    if not np.isfinite(given).all():
        raise InputError("the colors of this photo are not finite; the weights may be damaged")
    return shown, given, {name: float(value) for name, value in measures.items()}


@jax.jit
def _to_rgb(
    luminance: jax.Array, chroma: Chroma, extent: jax.Array
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Chroma is scaled into the gamut, which keeps L* and hue; the measures count pixels inside the extent only."""
    colors = jnp.stack(chroma, -1)
    lab, scale = scale_chroma(jnp.concatenate([luminance[..., None], colors], -1))
    rgb = jnp.clip(lab_to_srgb(lab), 0, 1)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, luminance.shape, axis) for axis in (0, 1))
    inside = (row < extent[0]) & (column < extent[1])
    measures = {
        "out_of_gamut_share": jnp.mean(scale < 1, where=inside),
        "colorfulness": metrics.colorfulness(rgb, where=inside),
        "saturation": metrics.saturation(rgb, where=inside),
    }
    return rgb, colors, measures


def solver_report(solver: Any, solution: Solution) -> dict[str, Any]:
    """What a solver did, in plain values; raises for a solution that is none, and again for Ctrl-C."""
    status, name = Status(int(solution.status)), type(solver).__name__
    if status == Status.INTERRUPTED:
        raise KeyboardInterrupt
    if status == Status.NON_FINITE:
        raise InputError(
            f"{name} met infinite values; lower fidelity or coupling, which are far out of the usual range"
        )
    numbers = {field.name: float(getattr(solver, field.name)) for field in fields(solver)}
    energies = [float(energy) for energy in solution.energies]
    return {
        "solver": name,
        "steps": int(solution.steps),
        "status": status.message,
        "energy": {"start": energies[0], "end": energies[-1]},
        "parameters": numbers,
    }


def as_gray(image: str | os.PathLike[str] | GrayImage | ArrayLike) -> GrayImage:
    """The gray image of a file or of pixels."""
    if isinstance(image, GrayImage):
        return image
    if isinstance(image, (str, os.PathLike)):
        return read_gray(image)
    return GrayImage.from_array(image)


def report_of(gray: GrayImage, details: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """Plain values ready for JSON of a picture that is not written yet.

    The ``notes`` among the details join those of the file.
    """
    notes = [*gray.notes, *details.pop("notes", ())]
    return {
        "input": None if gray.source is None else str(gray.source),
        "output": None,
        "height": gray.shape[0],
        "width": gray.shape[1],
        **details,
        "seconds": seconds,
        "device": str(jax.devices()[0]),
        "jax": jax.__version__,
        "jaxcolor": jaxcolor.__version__,
        "notes": notes,
    }


class Clock:
    """Seconds spent in each named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 4)


def padded_problem(
    luminance: jax.typing.ArrayLike,
    candidates: jax.typing.ArrayLike,
    extent: tuple[int, int],
    fidelity: jax.typing.ArrayLike | None,
    coupling: jax.typing.ArrayLike | None,
    weights: jax.Array | None = None,
) -> CoupledTVProblem:
    """The problem of the photo of size ``extent`` in the top left corner of padded planes, padded as these are.

    ``candidates`` ``[H, W, k, 2]``; ``weights`` None: all alike, as for a single one.
    """
    inside = (slice(extent[0]), slice(extent[1]))
    plane, colors = jnp.asarray(luminance), jnp.asarray(candidates)[inside]
    shares = jnp.full(colors.shape[:3], 1 / colors.shape[2], colors.dtype) if weights is None else weights[inside]
    problem = CoupledTVProblem(plane[inside], colors, shares, fidelity=fidelity, coupling=coupling)
    return problem.padded_to((plane.shape[0], plane.shape[1]))
