"""How the chroma of a photo lies on its luminance: by how much it is shifted, how blurred it is, and how blocky.

All are read from the photo itself. They are estimates of whole pictures: one shift, one blur. For these two, pictures
with a side above 1536 pixels are first reduced by 2, 4, …, so that shifts and blurs of many pixels are seen. Colors of
a coarse grid, whose edges are no lines, have an estimate of their own.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.coupled_tv.operators import gradient
from jaxcolor.resampling import resample

LONGEST_SHIFT = 9
"""Pixels of the (reduced) picture, along each axis; a best shift beyond is not believed."""
# A shift must make the edges agree by so much more than no shift. Leads, by a script that was not kept: 8 photos of a
# training set, 192×240, with eleven damages. The best place was within a pixel of the true one for all 16 that were
# only shifted (gains from 1.22), 7 of 8 that were blurred besides, 6 of 8 that were compressed (from 1.03), 4 of 8 that
# were reduced 8 times (from 1.05), 1 of 8 of both; for the 40 that were not shifted no false place gained more than
# 1.00, and of the wrong ones among the shifted two gained more than 1.07.
_LEAST_GAIN = 1.07
# Natural chroma is itself more blurred than luminance: in the same photos by 0.6 to 2.6 pixels.
_USUAL_BLUR = 3.0
_MOST_BLUR = 8.0
_FINE, _COARSE = 1.5, 3.0
# Pixels; edges are looked at in pictures smoothed by these, whose slopes are smaller by as much.
_SCALES = (1.0, 2.0, 4.0)
_LUMINANCE_EDGE, _CHROMA_EDGE = 1.0, 0.5
# JPEG, with chroma at half size, codes blocks of 16 pixels. Fewer than eight are no evidence, nor are steps of 0.2 Lab
# units.
_BLOCK, _LEAST_BLOCKS, _SMALL_STEP = 16, 8, 0.2
_LONGEST_SIDE = 1536
# In cells: the shifts that are tried, the Gaussian through which a cell sees luminance, and that of its neighborhood.
_CELL_SHIFTS = np.arange(-2, 2.1, 0.5)
_CELL_SIGHT, _NEIGHBORHOOD = 0.4, 1.0
# A grid with fewer cells along a side tells too little; and so many at the border see what is repeated beyond it.
_LEAST_CELLS, _BORDER_CELLS = 16, 2
# Variance of L* in a neighborhood that tells nothing.
_FLAT = 2.0
# Of the logarithm of the agreement, for a shift by one cell; and by how much a shift must make the colors agree better.
# Leads, by a script that was not kept: 40 photos of a training set, 64 × 64 cells, the distribution of the true chroma
# degraded as in ``benchmarks.truth``; mean squared error of the shift in cells (and how many were moved): shifted by
# (0.7, 0.7) 0.24 (37 of 40; 0.98 if none were), the same without the shift 0.12 (7), clean 0.05 (2), and the embedded
# network's own distribution 0 (none).
_RELUCTANCE, _LEAST_CELL_GAIN = 0.02, 1.03


@jax.jit
def estimate_shift(luminance: Array, chroma: Array) -> Array:
    """By how many pixels (down, right) the chroma lies off its place; int32 ``[2]``, (0, 0) unless there is evidence.

    ``luminance`` ``[H, W]`` and ``chroma`` ``[H, W, 2]``, Lab. Both give a field of directions of their edges,
    ∇∇ᵀ / (|∇|² + ε²) (the normalised gradient fields of Haber & Modersitzki 2006), at three scales; the shift is where
    the sum of their correlations, computed for all shifts by FFT, is largest. Not differentiable. Cost: 18 FFTs of
    planes and one back.

    >>> row, column = jnp.mgrid[:32, :32]
    >>> disc = jnp.where((row - 16) ** 2 + (column - 14) ** 2 < 60, 60.0, 20.0)
    >>> estimate_shift(disc, jnp.stack([jnp.roll(disc, 3, 1), disc * 0], -1)).tolist()
    [0, 3]
    """
    factor = _reduction(luminance.shape)
    light, color = _reduced(luminance[..., None], factor), _reduced(chroma, factor)

    def fields(scale: Array) -> Array:
        return jnp.stack([_directions(light, scale, _LUMINANCE_EDGE), _directions(color, scale, _CHROMA_EDGE)])

    agreement = _correlation(fields, jnp.array(_SCALES, light.dtype), light.shape[:2])
    reach = min(LONGEST_SHIFT + 1, (min(agreement.shape) - 1) // 2)
    near = jnp.roll(agreement, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    shift = jnp.stack(jnp.unravel_index(near.argmax(), near.shape)) - reach
    # A maximum on the border of the window is no maximum.
    believed = (near.max() > _LEAST_GAIN * near[reach, reach]) & (jnp.abs(shift).max() < reach)
    return jnp.where(believed, factor * shift, 0).astype(jnp.int32)


@jax.jit
def estimate_cell_shift(luminance: Array, colors: Array, extent: Sequence[int | Array]) -> Array:
    """By how many cells (down, right) the colors of a coarse grid lie off their place; float ``[2]``, 0 without
    evidence.

    ``luminance`` ``[H, W]``, L*, with the photo in its top left corner of ``extent`` = (rows, columns) pixels;
    ``colors`` ``[h, w, 2]``, one for each cell. Around every cell its colors are regressed on the luminance that cells
    see if the grid is moved by s; the shift is where most of their variance is explained, between -1.5 and 1.5 cells
    along each axis. Grids of fewer than 16 cells along a side are left where they are. Derived; the local linear model
    is that of the guided filter (He, Sun, Tang 2013). Not differentiable. Cost: 81 regressions on the grid. What fools
    it: shading beside a change of color, so that light and color seem to lie apart, and luminance that is mere noise.

    >>> row, column = jnp.mgrid[:128, :128]
    >>> disc = lambda center: jnp.where((row - 64) ** 2 + (column - center) ** 2 < 900, 60.0, 20.0)
    >>> cells = disc(68).reshape(32, 4, 32, 4).mean((1, 3))
    >>> shift = estimate_cell_shift(disc(64), jnp.stack([cells, -cells], -1), (128, 128))
    >>> [round(abs(cells), 1) for cells in shift.tolist()]
    [0.0, 1.0]
    """
    grid = (colors.shape[0], colors.shape[1])
    if min(grid) < _LEAST_CELLS:
        return jnp.zeros(2)
    shifts = jnp.asarray(_CELL_SHIFTS, jnp.float32)
    rows, columns = (_sight(n, size, cells) for n, size, cells in zip(luminance.shape, extent, grid, strict=True))
    seen = jnp.einsum("sih,hw,tjw->stij", rows, luminance - luminance.mean(), columns, precision="highest")
    explained = _explained(seen, colors)
    reluctance = _RELUCTANCE * (shifts[:, None] ** 2 + shifts**2)
    agreement = jnp.log(jnp.maximum(explained, jnp.finfo(explained.dtype).tiny)) - reluctance
    row, column = jnp.unravel_index(agreement.argmax(), agreement.shape)
    last = len(shifts) - 1
    inner = (row > 0) & (row < last) & (column > 0) & (column < last)
    gain = jnp.exp(agreement[row, column] - agreement[last // 2, last // 2])
    step = float(_CELL_SHIFTS[1] - _CELL_SHIFTS[0])
    down, across = _peak(agreement[:, column], row), _peak(agreement[row], column)
    shift = jnp.stack([shifts[row] + step * down, shifts[column] + step * across])
    return jnp.where(inner & (gain > _LEAST_CELL_GAIN), shift, 0)


@jax.jit
def registered(
    luminance: Array, distribution: ColorDistribution, extent: Sequence[int | Array]
) -> tuple[ColorDistribution, Array]:
    """The distribution put back in its place by :func:`estimate_cell_shift` of its mean colors, and that shift.

    Derivatives with respect to the distribution hold the shift constant.

    >>> dist = ColorDistribution(jnp.full((16, 16, 2), 0.5), jnp.array([[40.0, 0.0], [-40.0, 0.0]]))
    >>> registered(jnp.full((64, 64), 50.0), dist, (64, 64))[1].tolist()
    [0.0, 0.0]
    """
    shift = jax.lax.stop_gradient(estimate_cell_shift(jnp.asarray(luminance), distribution.mean(), extent))
    return distribution.moved(shift), shift


@jax.jit
def excess_blur(luminance: Array, chroma: Array) -> Array:
    """Standard deviation in pixels of the blur that chroma has beyond what is usual; a scalar, 0 for sharp chroma.

    Of a picture with the usual power spectrum 1/f², blurred by σ and then by s, the energy of the gradient is in
    proportion to 1 / (σ² + s²). The energies for two s give σ; the luminance's own σ and the usual difference are taken
    off (as squares). Derived. What fools it: noise and the blocks of strong JPEG compression look sharp.

    >>> column = jnp.broadcast_to(jnp.arange(64.0), (64, 64))
    >>> sharp, smooth = jnp.where(column > 32, 60.0, 20.0), 30 * jax.nn.sigmoid((column - 32) / 4)
    >>> [float(excess_blur(sharp, jnp.stack([c, c], -1))) > 3 for c in (sharp, smooth)]
    [False, True]
    """
    factor = _reduction(luminance.shape)
    square = _blur_squared(_reduced(chroma, factor)) - _blur_squared(_reduced(luminance[..., None], factor))
    square = jnp.clip(square - _USUAL_BLUR**2, 0, _MOST_BLUR**2)
    return factor * jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


@jax.jit
def blockiness(chroma: Array) -> Array:
    """How much larger steps between the blocks of JPEG are than steps inside, a scalar: 1 where there are no blocks.

    ``chroma`` ``[h, w, 2]`` on the grid that was compressed. The mean step between neighboring rows (columns) of each
    of the 16 places in a block, the largest against the median, both 0.2 Lab units larger. Of each place the median
    over blocks is taken, so that an edge of the picture is no evidence. Sides below 129 pixels do not count. Derived.

    >>> place = jnp.arange(160.0)
    >>> smooth, blocks = jnp.sin(place / 9), jnp.sin(place // 16 * 16 / 9)
    >>> [round(float(blockiness(jnp.stack([10 * c + 0 * place[:, None]] * 2, -1))), 1) for c in (smooth, blocks)]
    [1.0, 56.9]
    """
    ratios = []
    for axis in (0, 1):
        steps = jnp.abs(jnp.diff(chroma, axis=axis)).sum(-1).mean(1 - axis)
        blocks = steps[: len(steps) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
        if len(blocks) >= _LEAST_BLOCKS:
            places = jnp.median(blocks, 0) + _SMALL_STEP
            ratios.append(places.max() / jnp.median(places))
    return jnp.stack(ratios).mean() if ratios else jnp.ones((), chroma.dtype)


def blurred(picture: Array, deviation: Array | float, extent: tuple[int, int] | None = None) -> Array:
    """``picture`` ``[H, W, C]`` under a Gaussian of this standard deviation in pixels, cut off at the border.

    With ``extent`` = (rows, columns) only the top left corner is a picture; what is outside stays out of it. Two
    products with matrices: exact for any deviation, differentiable, about 2 C H W (H + W) multiplications.
    """
    sizes = extent or picture.shape[:2]
    rows, columns = (
        _gaussian_matrix(padded, size, deviation) for padded, size in zip(picture.shape[:2], sizes, strict=True)
    )
    return resample(picture, rows, columns)


def moved(picture: Array, shift: Array, extent: tuple[int, int]) -> Array:
    """``picture`` ``[H, W, C]`` moved back by ``shift`` (down, right); border pixels of the extent are repeated."""
    for axis, size in enumerate(extent):
        places = jnp.clip(jnp.arange(picture.shape[axis]) + shift[axis], 0, size - 1)
        picture = jnp.take(picture, places, axis)
    return picture


@partial(jax.jit, static_argnums=(0, 1))
def _gaussian_matrix(padded: int, size: int, deviation: Array | float) -> Array:
    place = jnp.arange(padded, dtype=jnp.float32)
    distance = (place[:, None] - place) / jnp.maximum(deviation, 0.1)
    weights = jnp.where(place < size, jnp.exp(-0.5 * distance**2), 0)
    total = weights.sum(1, keepdims=True)
    # Rows of the padding may see nothing.
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), 0)


def _sight(padded: int, size: int | Array, cells: int) -> Array:
    """Weights ``[shifts, cells, padded]`` with which cells see a line of ``size`` pixels if they are moved."""
    pixels = jnp.arange(padded, dtype=jnp.float32)
    cell = jnp.asarray(size, jnp.float32) / cells
    center = (jnp.arange(cells) + 0.5 - jnp.asarray(_CELL_SHIFTS, jnp.float32)[:, None]) * cell - 0.5
    # A cell beyond the border sees the border, and one smaller than a pixel sees that pixel.
    center = jnp.clip(center, 0, jnp.asarray(size, jnp.float32) - 1)
    distance = (pixels - center[..., None]) / jnp.maximum(_CELL_SIGHT * cell, 0.4)
    weights = jnp.where(pixels < size, jnp.exp(-0.5 * distance**2), 0)
    return weights / weights.sum(-1, keepdims=True)


def _explained(seen: Array, colors: Array) -> Array:
    """Variance of ``colors`` ``[h, w, 2]`` around each cell that is linear in ``seen`` ``[s, t, h, w]``, summed."""
    down, across = (_gaussian_matrix(n, n, _NEIGHBORHOOD) for n in colors.shape[:2])

    def around(planes: Array) -> Array:
        return jnp.einsum("ih,...hw,jw->...ij", down, planes, across, precision="highest")

    light = around(seen)
    variance = around(seen**2) - light**2
    inside = (..., *(slice(_BORDER_CELLS, n - _BORDER_CELLS) for n in colors.shape[:2]))
    total = jnp.zeros(seen.shape[:2])
    for color in (colors[..., 0], colors[..., 1]):
        covariance = around(seen * color) - light * around(color)
        total += (covariance**2 / (variance + _FLAT))[inside].sum((-2, -1))
    return total


def _peak(line: Array, index: Array) -> Array:
    """Where the parabola through a maximum and its neighbors has its own, in steps from ``index``."""
    before, top, after = (line[jnp.clip(index + i, 0, len(line) - 1)] for i in (-1, 0, 1))
    bend = before - 2 * top + after
    return jnp.where(bend < 0, jnp.clip(0.5 * (before - after) / jnp.where(bend < 0, bend, -1), -0.5, 0.5), 0)


def _reduction(shape: tuple[int, ...]) -> int:
    """What brings the longer side to ``_LONGEST_SIDE``, as far as the shorter one allows."""
    factor = 1
    while max(shape) > factor * _LONGEST_SIDE and min(shape) >= 2 * factor:
        factor *= 2
    return factor


def _reduced(picture: Array, factor: int) -> Array:
    """Means over squares of ``factor`` pixels a side; an incomplete last square is left out."""
    height, width = (size // factor for size in picture.shape[:2])
    cells = picture[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return cells.mean((1, 3))


def _directions(picture: Array, scale: Array, edge: float) -> Array:
    """∇∇ᵀ / (|∇|² + ε²), less its mean, as three planes; summed over the channels of the smoothed picture."""
    smooth = blurred(picture, scale)
    slopes = [gradient(smooth[..., channel]) for channel in range(picture.shape[-1])]
    xx, yy, xy = (sum(x * y for x, y in pairs) for pairs in _products(slopes))
    # ‖T‖² counts the off-diagonal entry twice.
    tensor = jnp.stack([xx, yy, jnp.sqrt(2.0) * xy]) / (xx + yy + (edge / scale) ** 2)
    return tensor - tensor.mean((1, 2), keepdims=True)


def _products(slopes: list[tuple[Array, Array]]) -> tuple[list[tuple[Array, Array]], ...]:
    return [(x, x) for x, _ in slopes], [(y, y) for _, y in slopes], slopes


def _correlation(fields: Callable[[Array], Array], scales: Array, shape: tuple[int, ...]) -> Array:
    """``Σ_x <first(x), second(x + s)>`` for all cyclic shifts s, ``[H, W]``, summed over scales.

    ``fields(scale)`` is ``[2, fields, H, W]``, first and second.
    """

    def add(total: Array, scale: Array) -> tuple[Array, None]:
        first, second = jnp.fft.rfft2(fields(scale))
        return total + (jnp.conj(first) * second).sum(0), None

    # A loop, so that no two transforms run at once: each waits in a thread of XLA:CPU for others of its threads, and
    # where all of them wait nothing moves any more (jaxlib 0.11.2 on two cores).
    zero = jnp.zeros((shape[0], shape[1] // 2 + 1), jnp.result_type(scales, jnp.complex64))
    return jnp.fft.irfft2(lax.scan(add, zero, scales)[0], shape)


def _blur_squared(picture: Array) -> Array:
    fine, coarse = (_energy(blurred(picture, s)) for s in (_FINE, _COARSE))
    ratio = coarse / jnp.where(fine > 0, fine, 1)
    # A ratio near 1 is a picture of nothing but smooth ramps, whose blur cannot be told.
    ratio = jnp.minimum(ratio, 0.95)
    return jnp.where(fine > 0, (ratio * _COARSE**2 - _FINE**2) / (1 - ratio), 0)


def _energy(picture: Array) -> Array:
    return sum((jnp.diff(picture, axis=axis) ** 2).mean() for axis in (0, 1) if picture.shape[axis] > 1) + jnp.zeros(())
