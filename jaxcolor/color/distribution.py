"""Distributions over a palette of colors on a grid of pixels, and what can be read out of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxcolor.color.palette import soft_encode
from jaxcolor.constants import ANNEALING_TEMPERATURE
from jaxcolor.errors import InputError
from jaxcolor.resampling import cubic
from jaxcolor.trees import register

# Pixels whose full distributions are held at once while the strongest modes are picked: 313 floats each.
_BLOCK_PIXELS = 32_768
ENLIVENING = 0.7
"""Share of the annealed distribution in what coupled TV begins with, where the mean is paler. A lead, by a script that
was not kept, with earlier weights: with it the colors of 60 of 68 photos were more saturated than the annealed mean,
with 0.5 of 47, with 1 of 65; ΔE2000 was 10.82, 10.70 and 10.95. Of 43 others it was 41, 40 and 41, at 10.80, 10.73 and
10.89."""
# Root mean square deviations of colors from their mean, in Lab units, between which a cell becomes undecided.
_DEVIATIONS = 10.0, 20.0
# Far below any probability that matters, and far above what rounds to 0 when it is divided.
_LEAST_PROBABILITY = 1e-30
# Colors that are looked at between two cells, for each one that is kept; more are rarely needed, and always checked.
_SHORTLIST_FACTOR = 3


@dataclass(frozen=True)
class ColorDistribution:
    """One distribution over ``Q`` colors for every cell of an ``h`` by ``w`` grid.

    ``probabilities`` ``[h, w, Q]`` are nonnegative and sum to 1 over the last axis; ``palette`` ``[Q, 2]`` holds
    the colors as (a*, b*) in raw Lab units. A pytree: ``jit``, ``vmap`` and ``grad`` pass through every method.
    Raises :class:`InputError` for shapes that do not fit.

    >>> import jax.numpy as jnp
    >>> dist = ColorDistribution(jnp.array([[[0.25, 0.75]]]), jnp.array([[0.0, 0.0], [40.0, 20.0]]))
    >>> dist.mean().tolist()
    [[[30.0, 15.0]]]
    """

    probabilities: jax.Array
    palette: jax.Array

    def __post_init__(self) -> None:
        if not all(hasattr(leaf, "shape") for leaf in (self.probabilities, self.palette)):
            return  # Axes of vmap, shardings.
        shape, colors = self.probabilities.shape, self.palette.shape
        if len(shape) < 3 or len(colors) < 2 or colors[-1] != 2 or shape[-1] != colors[-2]:
            raise InputError(
                f"a ColorDistribution needs probabilities [h, w, Q] and a palette [Q, 2], got {shape} and {colors}"
            )

    def mean(self) -> jax.Array:
        """Expected color ``[h, w, 2]``: smooth, and gray where the distribution is undecided."""
        return jnp.matmul(self.probabilities, self.palette, precision=jax.lax.Precision.HIGHEST)

    @jax.jit
    def annealed(self, temperature: float | jax.Array) -> "ColorDistribution":
        """The distribution sharpened by raising it to the power 1/T and renormalising (T = 1: unchanged).

        Source: Zhang et al. 2016, equation 5. ``temperature`` > 0.
        """
        return replace(self, probabilities=jax.nn.softmax(_finite_log(self.probabilities) / temperature, axis=-1))

    @jax.jit
    def annealed_mean(self, temperature: float | jax.Array = ANNEALING_TEMPERATURE) -> jax.Array:
        """The read-out of Zhang et al. 2016, equation 5: mean of the annealed distribution, ``[h, w, 2]``."""
        return self.annealed(temperature).mean()

    @jax.jit
    def reweighted(self, weights: jax.Array) -> "ColorDistribution":
        """The distribution with each color's probability multiplied by its weight, renormalised.

        ``weights`` ``[Q]`` > 0, for example the class weights of Zhang et al. 2016, equation 4.

        >>> dist = ColorDistribution(jnp.array([[[0.25, 0.75]]]), jnp.array([[0.0, 0.0], [40.0, 20.0]]))
        >>> dist.reweighted(jnp.array([3.0, 1.0])).probabilities.tolist()
        [[[0.5, 0.5]]]
        """
        weighted = self.probabilities * weights
        return replace(self, probabilities=weighted / weighted.sum(-1, keepdims=True))

    @jax.jit
    def carried_to(self, palette: jax.Array) -> "ColorDistribution":
        """The distribution over other colors ``[P, 2]``: each color's probability goes to those nearest to it.

        Shared among up to five of them by Gaussian weights, as in the soft encoding (derived).

        >>> dist = ColorDistribution(jnp.array([[[0.25, 0.75]]]), jnp.array([[0.0, 0.0], [40.0, 20.0]]))
        >>> dist.carried_to(jnp.array([[50.0, 20.0], [-20.0, 0.0]])).probabilities.round(2).tolist()
        [[[0.75, 0.25]]]
        """
        palette = jnp.asarray(palette, self.palette.dtype)
        transport = soft_encode(self.palette, palette, min(5, len(palette)))
        carried = jnp.matmul(self.probabilities, transport, precision=jax.lax.Precision.HIGHEST)
        return ColorDistribution(carried, palette)

    def concentrated(self, count: int) -> "ColorDistribution":
        """The distribution with all of every cell's probability on the ``count`` most probable colors of that cell.

        Each other color's goes to the nearest of these (derived). Dropped instead, as in Mouzon et al. 2019, the many
        improbable vivid colors of an undecided network would be lost, and with them saturation.
        Raises :class:`InputError` for a count outside 1 ... Q.

        >>> dist = ColorDistribution(jnp.array([[[0.5, 0.3, 0.2]]]), jnp.array([[0.0, 0.0], [40.0, 0.0], [60.0, 0.0]]))
        >>> dist.concentrated(2).probabilities.round(2).tolist()
        [[[0.5, 0.5, 0.0]]]
        """
        _check_count(count, self.palette.shape[0])
        return replace(self, probabilities=_concentrated(self.probabilities, self.palette, count))

    @jax.jit
    def enlivened(self, share: float = ENLIVENING, temperature: float = ANNEALING_TEMPERATURE) -> "ColorDistribution":
        """The distribution mixed with a share of the annealed one in cells whose mean is paler than the annealed mean.

        A mean over colors of all directions is pale, and a selection of colors that begins there stays paler than
        what the network thinks likeliest. ``share`` in [0, 1], ``temperature`` > 0; where colors deviate by less than
        20 Lab units from their mean it is less, and none below 10: the soft encoding of a single color deviates by 6
        or 7, and must keep its mean (derived).

        >>> dist = ColorDistribution(jnp.array([[[0.6, 0.4]]]), jnp.array([[60.0, 0.0], [-40.0, 0.0]]))
        >>> [round(float(of.mean()[0, 0, 0]), 1) for of in (dist, dist.enlivened(0.5))]
        [20.0, 27.2]
        """
        lively = self.annealed(temperature)
        paler = (self.mean() ** 2).sum(-1) < (lively.mean() ** 2).sum(-1)
        decided, undecided = _DEVIATIONS
        variance = jnp.clip(self.variance(), decided**2, undecided**2)
        shares = share * paler * (jnp.sqrt(variance) - decided) / (undecided - decided)
        mixed = self.probabilities + shares[..., None] * (lively.probabilities - self.probabilities)
        return replace(self, probabilities=mixed)

    @jax.jit
    def moved(self, shift: jax.Array) -> "ColorDistribution":
        """The distribution whose colors lay ``shift`` cells (down, right) off their place, put back.

        Interpolated between cells by cubic convolution, what is negative then set to 0; border cells are repeated.

        >>> dist = ColorDistribution(jnp.eye(3)[None], jnp.zeros((3, 2)))
        >>> dist.moved(jnp.array([0.0, 1.0])).modes().tolist()
        [[1, 2, 2]]
        """
        moved = self.probabilities
        for axis in (0, 1):
            cells = jnp.arange(moved.shape[axis], dtype=moved.dtype)
            place = jnp.clip(cells + shift[axis], 0, moved.shape[axis] - 1)
            taps = cubic(jnp.abs(place[:, None] - cells))
            taps = taps / taps.sum(1, keepdims=True)
            moved = jnp.moveaxis(jnp.tensordot(taps, moved, (1, axis), precision="highest"), 0, axis)
        moved = jnp.maximum(moved, 0)
        return replace(self, probabilities=moved / moved.sum(-1, keepdims=True))

    @jax.jit
    def variance(self) -> jax.Array:
        """Variance of the color ``[h, w]`` in squared Lab units: trace of the covariance."""
        norms = (self.palette**2).sum(-1)
        second = jnp.matmul(self.probabilities, norms, precision=jax.lax.Precision.HIGHEST)
        return jnp.maximum(second - (self.mean() ** 2).sum(-1), 0.0)

    @jax.jit
    def entropy(self) -> jax.Array:
        """Entropy ``[h, w]`` in nats, from 0 (certain) to log Q (uniform)."""
        return -(self.probabilities * _finite_log(self.probabilities)).sum(-1)

    def upsample(self, shape: tuple[int, int]) -> "ColorDistribution":
        """The distribution on a grid of ``shape``, by bilinear interpolation of the probabilities.

        Bilinear keeps probabilities nonnegative and their sum 1; pixel centers are at half-integers and the border is
        clamped. Mouzon et al. 2019 up-sample probabilities, not colors; the kernel is our choice. Needs
        ``4 Q`` bytes a pixel: 1.3 kB for 313 bins; see :meth:`strongest` for the blocked version.
        """
        return replace(self, probabilities=interpolated(self.probabilities, shape, shape))

    def strongest(
        self, shape: tuple[int, int], count: int, padded: tuple[int, int] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The ``count`` most probable colors of every pixel of the up-sampled distribution, strongest first.

        Returns ``candidates`` ``[H, W, count, 2]`` (raw Lab units) and ``weights`` ``[H, W, count]``, renormalised to
        sum 1. Source: Mouzon et al. 2019, section 3 (10 modes); taking them per pixel, the bilinear kernel and the
        renormalisation are our reading of it. The full-size distribution is never held: blocks of rows are
        up-sampled and reduced in turn.

        With ``padded`` the arrays have that larger shape and the image lies in their top left corner; then ``shape``
        may be traced, and sizes padded to one shape share one compiled program.
        Raises :class:`InputError` for a count outside 1 ... Q.
        """
        indices, weights = _strongest(self.probabilities, *_arguments(self, shape, count, padded))
        return self.palette[indices], weights

    def modes(self) -> jax.Array:
        """Index ``[h, w]`` of the most probable color of every cell."""
        return jnp.argmax(self.probabilities, axis=-1)


register(ColorDistribution, ("probabilities", "palette"))


def interpolated(cells: jax.Array, sizes: Sequence[int | jax.Array], padded: Sequence[int]) -> jax.Array:
    """Values ``[h, w, ...]`` of cells at the pixels of an image, ``[H, W, ...]``: bilinear, clamped at the border.

    ``padded`` is (H, W); the image has ``sizes``, which may be traced, and lies in the top left corner.

    >>> interpolated(jnp.array([[0.0, 1.0]]), (1, 4), (1, 4)).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    """
    rows, columns = (_interpolation(*n) for n in zip(padded, sizes, cells.shape[:2], strict=True))
    return _blend(_blend(cells, rows, 0), columns, 1)


def places(samples: int, size: int | jax.Array, cells: int) -> jax.Array:
    """Where the first ``samples`` of ``size`` pixels lie among ``cells``: the center of cell i is i.

    >>> places(4, 4, 2).tolist()
    [-0.25, 0.25, 0.75, 1.25]
    """
    return (jnp.arange(samples, dtype=jnp.float32) + 0.5) * (cells / size) - 0.5


def strongest_bins(
    dist: ColorDistribution, shape: tuple[int | jax.Array, int | jax.Array], count: int, padded: tuple[int, int]
) -> jax.Array:
    """Indices ``[H, W, count]`` into the palette of what :meth:`ColorDistribution.strongest` returns."""
    return _strongest(dist.probabilities, *_arguments(dist, shape, count, padded))[0]


def _finite_log(probabilities: jax.Array) -> jax.Array:
    """log p, finite at 0 together with its derivative, which becomes NaN where it overflows in a chain of them."""
    floor = max(_LEAST_PROBABILITY, float(jnp.finfo(probabilities.dtype).tiny))
    return jnp.log(jnp.maximum(probabilities, floor))


def _check_count(count: int, colors: int) -> None:
    if not 1 <= count <= colors:
        raise InputError(
            f"the number of candidates must be between 1 and {colors}, the size of the palette, got {count}"
        )


@partial(jax.jit, static_argnums=2)
def _concentrated(probabilities: jax.Array, palette: jax.Array, count: int) -> jax.Array:
    distances = ((palette[:, None] - palette) ** 2).sum(-1)

    def row(cells: jax.Array) -> jax.Array:
        _, kept = _top(cells, count)
        nearest = distances[kept].argmin(1)
        goes_to = nearest[:, None] == jnp.arange(count)[:, None]
        shares = jnp.where(goes_to, cells[:, None], 0).sum(-1)
        return jnp.zeros_like(cells).at[jnp.arange(len(cells))[:, None], kept].set(shares)

    return jax.lax.map(row, probabilities)


def _arguments(
    dist: ColorDistribution, shape: tuple[int | jax.Array, ...], count: int, padded: tuple[int, int] | None
) -> Any:
    _check_count(count, dist.palette.shape[0])
    return tuple(jnp.asarray(size, jnp.float32) for size in shape), padded or shape, count


_Taps = tuple[jax.Array, jax.Array, jax.Array]


def _interpolation(samples: int, size: int | jax.Array, cells: int) -> _Taps:
    """Bilinear taps over ``cells`` of the first ``samples`` of ``size`` pixels: lower, upper, share of the upper."""
    position = jnp.clip(places(samples, size, cells), 0, cells - 1)
    lower = jnp.minimum(position.astype(jnp.int32), max(cells - 2, 0))
    return lower, jnp.minimum(lower + 1, cells - 1), position - lower


def _blend(values: jax.Array, taps: _Taps, axis: int) -> jax.Array:
    lower, upper, share = taps
    share = jnp.expand_dims(share.astype(values.dtype), [i for i in range(values.ndim) if i != axis])
    return (1 - share) * jnp.take(values, lower, axis) + share * jnp.take(values, upper, axis)


@partial(jax.jit, static_argnums=(2, 3))
def _strongest(
    probabilities: jax.Array,
    sizes: tuple[jax.Array, ...],
    padded: tuple[int, int],
    count: int,
) -> tuple[jax.Array, jax.Array]:
    height, width = padded
    rows, columns = (_interpolation(*n) for n in zip(padded, sizes, probabilities.shape[:2], strict=True))
    block = max(1, min(height, _BLOCK_PIXELS // width))
    starts = jnp.minimum(jnp.arange(0, height, block), height - block)

    def block_of_rows(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        lower, upper, share = (jax.lax.dynamic_slice_in_dim(tap, start, block) for tap in rows)
        indices, weights = _strongest_in_rows(_blend(probabilities, (lower, upper, share), 0), columns, count)
        return indices, weights / weights.sum(-1, keepdims=True)

    # The last block overlaps the one before it, so that all have one size; this row of them holds each image row.
    row = jnp.arange(height)
    of_block = row // block
    indices, weights = (
        blocks.reshape(-1, width, count)[of_block * block + row - starts[of_block]]
        for blocks in jax.lax.map(block_of_rows, starts)
    )
    return indices, weights


def _strongest_in_rows(cells: jax.Array, columns: _Taps, count: int) -> tuple[jax.Array, jax.Array]:
    """Indices and values ``[rows * W, count]`` of the largest entries of ``cells`` ``[rows, w, Q]`` up-sampled to W.

    What lies between two cells is never above the larger of them, so only the colors with the largest of these
    maxima are interpolated. In a block where a color off this shortlist might belong to the result, all are.
    """
    size, shortlist = cells.shape[-1], _SHORTLIST_FACTOR * count

    def among_all() -> tuple[jax.Array, jax.Array]:
        weights, indices = _top(_blend(cells, columns, 1), count)
        return indices, weights

    if 2 * shortlist >= size:
        return among_all()
    lower, _, share = columns
    left, right = cells[:, : max(cells.shape[1] - 1, 1)], cells[:, min(cells.shape[1] - 1, 1) :]
    highest, listed = (x.reshape(*left.shape[:2], -1) for x in _top(jnp.maximum(left, right), shortlist + 1))
    listed, bound = listed[..., :-1], highest.min(-1)
    low, high = (jnp.take(jnp.take_along_axis(side, listed, -1), lower, 1) for side in (left, right))
    share = share[:, None].astype(cells.dtype)
    weights, places = _top((1 - share) * low + share * high, count)
    indices = jnp.take_along_axis(jnp.take(listed, lower, 1).reshape(-1, shortlist), places, -1)
    # The minimum, not the last: after a slice of the result XLA:CPU sorts instead of searching for the largest.
    complete = (weights.min(-1) >= jnp.take(bound, lower, 1).reshape(-1)).all()
    return jax.lax.cond(complete, lambda: (indices, weights), among_all)


def _top(values: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    # As a matrix: for more axes XLA:CPU has no fast top-k and sorts all colors.
    return jax.lax.top_k(values.reshape(-1, values.shape[-1]), count)
