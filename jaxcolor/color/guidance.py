"""Up-sampling of a color distribution that is led by the edges of the luminance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from jaxcolor.color.distribution import ColorDistribution, interpolated, places, strongest_bins
from jaxcolor.errors import InputError
from jaxcolor.trees import register

# Cells on each side of a pixel's own that are looked at: beyond, the spread below leaves next to nothing.
_REACH = 2
# Share that luminance cannot take away: where no cell has the pixel's luminance, nearness alone decides.
_FLOOR = 1e-8


# ``python -m benchmarks parameters FOLDER --number 8 --set steps=200 spread=0.4 --axes uncertainty``, and the same for
# other axes, on training photos (192², 24×24 cells); ΔE2000 within 4 pixels of color edges / everywhere, of the photos
# chosen on:
#                                    clean             degraded
#     bicubic                        4.323 / 2.649     7.185 / 5.311
#     these, λ = 0.01                4.148 / 2.713     6.768 / 4.792
#     uncertainty  30                4.252 / 2.809     6.664 / 4.710
#     uncertainty 300                4.121 / 2.685     6.839 / 4.850
#     uncertainty  ∞                 4.109 / 2.672     6.894 / 4.895
#     difference    3                4.231 / 2.762     6.750 / 4.778
#     difference    8                4.181 / 2.728     6.803 / 4.814
#     λ = 0.02                       4.140 / 2.695     6.828 / 4.769
#     λ = 0.05                       4.164 / 2.697     6.902 / 4.771
# and of the other half of the photos:
#     bicubic                        2.822 / 1.895     5.154 / 4.027
#     these, λ = 0.01                2.919 / 2.006     4.872 / 3.670
# So it is worth most where the distribution is bad, and costs a little where it is perfect, which no network's is.
@dataclass(frozen=True)
class Guidance:
    """How far a pixel listens to the cells around it.

    ``spread`` > 0 is the standard deviation of the distance in cells, where the distribution is certain, and grows as
    the root of 1 + variance / ``uncertainty`` > 0 (variance of the color at the pixel, squared Lab units; infinity: it
    does not grow). ``difference`` > 0 is the standard deviation of the difference between the pixel's L* and the
    cell's mean L*. ``reach`` > 0 is the standard deviation in cells of the neighborhood that candidates come from.
    Numbers are pytree leaves: new ones never recompile. Raises :class:`InputError` for numbers that are not positive.

    >>> Guidance().difference > 0
    True
    """

    spread: float | jax.Array = 0.4
    difference: float | jax.Array = 5.0
    uncertainty: float | jax.Array = 100.0
    reach: float | jax.Array = 0.8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not value > 0:
                raise InputError(f"{name} must be a positive number; got {value}")


register(Guidance, ("spread", "difference", "uncertainty", "reach"))


def strongest_by_luminance(
    dist: ColorDistribution,
    luminance: jax.Array,
    count: int,
    guidance: Guidance | None = None,
    extent: Sequence[int | jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The ``count`` likeliest colors around every pixel, weighted by the cells that look like the pixel.

    The candidates are the most probable colors of the neighborhood: of the distribution blurred by ``reach`` cells
    and up-sampled bilinearly. The weight of one is its probability in the 5 by 5 cells around the pixel, each cell
    counted by its nearness in place and in luminance (a joint bilateral filter),

        w_i(x) ∝ Σ_c exp(-‖x - c‖² / 2σ_s² - (L(x) - L_c)² / 2σ_L²) p_c(c_i(x)),

    with σ_s wider where the cells are undecided, so that a cell on the other side of a luminance edge has no say, and a
    cell whose color has moved over the edge is outvoted.

    Args:
        dist: On a grid [h, w].
        luminance: [H, W] L*.
        count: k, from 1 to the size of the palette.
        guidance: σ_s and σ_L; None: the defaults.
        extent: (rows, columns) of the image in the top left corner of ``luminance``, possibly traced; None: all of it.

    Returns:
        Candidates [H, W, k, 2] in Lab units and weights [H, W, k] that sum to 1, unsorted.

    Raises:
        InputError: a count out of range.

    Cost: 25 look-ups a candidate beyond :meth:`ColorDistribution.strongest`; 12 k bytes a pixel.
    Source: derived; the joint bilateral up-sampling of Kopf et al. 2007, of probabilities in place of colors.

    >>> dist = ColorDistribution(jnp.eye(2)[None], jnp.array([[-40.0, 0.0], [40.0, 0.0]]))
    >>> light = jnp.array([[20.0, 20.0, 80.0, 80.0, 80.0, 80.0]])   # the cells' border is one pixel beside the edge
    >>> candidates, weights = strongest_by_luminance(dist, light, 2)
    >>> (weights[..., None] * candidates).sum(-2)[0, :, 0].round().tolist()
    [-40.0, -40.0, 40.0, 40.0, 40.0, 40.0]
    """
    guidance = guidance or Guidance()
    height, width = luminance.shape
    sizes = (height, width) if extent is None else tuple(extent)
    blurred = _blurred(dist, guidance.reach)
    bins = strongest_bins(blurred, (sizes[0], sizes[1]), count, padded=(height, width))
    weights = _weights(dist, luminance, bins, sizes, guidance)
    return dist.palette[bins], weights


def _blurred(dist: ColorDistribution, reach: float | jax.Array) -> ColorDistribution:
    """Each cell's distribution mixed with its neighbors', by a Gaussian on the grid."""
    probabilities = dist.probabilities
    for axis in (0, 1):
        place = jnp.arange(probabilities.shape[axis], dtype=probabilities.dtype)
        taps = jnp.exp(-((place[:, None] - place) ** 2) / (2 * jnp.square(reach)))
        taps = taps / taps.sum(1, keepdims=True)
        probabilities = jnp.moveaxis(jnp.tensordot(taps, probabilities, (1, axis), precision="highest"), 0, axis)
    return replace(dist, probabilities=probabilities)


@jax.jit
def _weights(
    dist: ColorDistribution, luminance: jax.Array, bins: jax.Array, sizes: Sequence[jax.Array], guidance: Guidance
) -> jax.Array:
    """The sum of :func:`strongest_by_luminance`, normalised, one neighboring cell after the other."""
    probabilities = dist.probabilities
    rows, columns = (
        places(n, size, cells) for n, size, cells in zip(luminance.shape, sizes, probabilities.shape[:2], strict=True)
    )
    of_cell = _cell_means(luminance, sizes, probabilities.shape[:2])
    uncertain = 1 + interpolated(dist.variance(), sizes, luminance.shape) / guidance.uncertainty
    side = 2 * _REACH + 1

    def listen(index: jax.Array, total: jax.Array) -> jax.Array:
        row, up = _neighbor(rows, index // side - _REACH, probabilities.shape[0])
        column, across = _neighbor(columns, index % side - _REACH, probabilities.shape[1])
        near = jnp.exp(-(up[:, None] ** 2 + across**2) / (2 * jnp.square(guidance.spread) * uncertain))
        alike = jnp.exp(-((luminance - of_cell[row[:, None], column]) ** 2) / (2 * jnp.square(guidance.difference)))
        share = near * (alike + _FLOOR)
        return total + share[..., None] * probabilities[row[:, None, None], column[:, None], bins]

    start = jnp.zeros(bins.shape, jnp.result_type(luminance, probabilities))
    weights = jax.lax.fori_loop(0, side * side, listen, start)
    total = weights.sum(-1, keepdims=True)
    # No candidate of the neighborhood in reach of the pixel: all are as good.
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), 1 / bins.shape[-1])


def _neighbor(at: jax.Array, offset: jax.Array, cells: int) -> tuple[jax.Array, jax.Array]:
    """Index of the cell ``offset`` away from each pixel's own, repeated at the border, and the signed distance."""
    cell = jnp.round(at).astype(jnp.int32) + offset
    return jnp.clip(cell, 0, cells - 1), cell - at


def _cell_means(luminance: jax.Array, sizes: Sequence[jax.Array], grid: Sequence[int]) -> jax.Array:
    """Luminance ``[h, w]`` seen by each cell: a triangle as wide as two cells, inside the image."""
    means = luminance
    for axis, (size, cells) in enumerate(zip(sizes, grid, strict=True)):
        samples = luminance.shape[axis]
        distance = jnp.abs(places(samples, size, cells) - jnp.arange(cells)[:, None])
        taps = jnp.maximum(1 - distance / jnp.maximum(cells / jnp.asarray(size, jnp.float32), 1), 0)
        taps = jnp.where(jnp.arange(samples) < size, taps, 0)
        taps = (taps / taps.sum(1, keepdims=True)).astype(luminance.dtype)
        means = jnp.moveaxis(jnp.tensordot(taps, means, (1, axis), precision="highest"), 0, axis)
    return means
