"""How far colors bleed over edges. Gray never bleeds: print these measures with the saturation, always."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates

from jaxcolor.metrics.arithmetic import gradient_length, length, mean, ratio
from jaxcolor.metrics.difference import delta_e_2000


@jax.jit
def edges(values: jax.Array, share: float = 0.1) -> jax.Array:
    """The pixels with the strongest gradient (forward differences, all channels together).

    Args:
        values: [H, W] or [H, W, C].
        share: Share of pixels in (0, 1] that counts as edge. Pixels of equal gradient count alike, so it may be more;
            those without any gradient never count.

    Returns:
        [H, W] bool.

    What fools it: noise, and large even pictures, where the strongest tenth is no edge to the eye.
    Cost: one sort of the pixels.

    Example:
        >>> edges(jnp.array([[0.0, 0.0, 1.0, 1.0]])).tolist()
        [[False, True, False, False]]
    """
    strength = gradient_length(values)
    place = jnp.ceil(strength.size * (1 - jnp.asarray(share, jnp.float32))).astype(jnp.int32)
    threshold = jnp.sort(strength, axis=None)[jnp.clip(place, 0, strength.size - 1)]
    return (strength >= threshold) & (strength > 0)


@partial(jax.jit, static_argnames="distance")
def near(mask: jax.Array, distance: int) -> jax.Array:
    """The pixels at most ``distance`` rows and columns away from the mask (a square neighborhood).

    Args:
        mask: [H, W] bool.
        distance: In pixels, 0 or more; static under ``jit``.

    Returns:
        [H, W] bool.

    Example:
        >>> near(jnp.array([[True, False, False, False]]), 2).tolist()
        [[True, True, True, False]]
    """
    grown = mask.astype(jnp.int32)
    for window in ((2 * distance + 1, 1), (1, 2 * distance + 1)):
        grown = lax.reduce_window(grown, jnp.int32(0), lax.max, window, (1, 1), "SAME")
    return grown > 0


@partial(jax.jit, static_argnames="distance")
def variation_away_from_edges(
    luminance: jax.Array, chroma: jax.Array, distance: int = 2, share: float = 0.1
) -> jax.Array:
    """Share of the chroma's variation that lies more than ``distance`` pixels from every luminance edge.

    H_d = Σ_{dist(x, E) > d} |∇(a, b)| / Σ_x |∇(a, b)| with E = ``edges(luminance, share)``: halos are chroma steps
    where the luminance has none. Needs no truth.

    Args:
        luminance: [H, W] L*.
        chroma: [H, W, 2].
        distance: d in pixels; static under ``jit``.
        share: Share of pixels that count as luminance edges.

    Returns:
        [] in [0, 1], lower is better; 0 for constant chroma.

    What fools it: gray is perfect, so is color copied from the luminance; true color edges between equally bright
    regions count as halos; many luminance edges leave nowhere to be away from. Compare at equal colorfulness.
    Source: defined by this project.

    Example:
        >>> step = jnp.repeat(jnp.array([[0.0, 50.0]]), 8, axis=1)
        >>> float(variation_away_from_edges(step, jnp.stack([step, step], axis=-1)))
        0.0
    """
    variation = gradient_length(chroma)
    away = ~near(edges(luminance, share), distance)
    return ratio(mean(variation * away), mean(variation))


@jax.jit
def alignment_gain(luminance: jax.Array, chroma: jax.Array, coupling: float | jax.Array = 1.0) -> jax.Array:
    """How far the edges of luminance and chroma coincide, by how much their coupled total variation saves.

    A = (√γ TV(L) + TV(ab) - TV_C) / min(√γ TV(L), TV(ab)), TV_C = Σ √(γ|∇L|² + |∇a|² + |∇b|²).

    Args:
        luminance: [H, W] L*.
        chroma: [H, W, 2].
        coupling: γ > 0.

    Returns:
        [] in [0, 1], higher is better: 0 if no pixel has both gradients, near 1 if the smaller variation lies where
        the other is much larger; 0 too if either picture is constant. Differentiable except at flat pixels,
        where the gradient is taken as 0.

    What fools it: a faint tint of the luminance's own texture (chroma proportional to L*) scores high.
    Source: defined by this project on the coupled total variation of Pierre et al. 2015.

    Example:
        >>> step = jnp.array([[0.0, 0.0, 3.0]])
        >>> float(alignment_gain(step, jnp.stack([step * 4 / 3, 0 * step], axis=-1)))   # (3 + 4 - 5) / 3
        0.6666666865348816
    """
    light = jnp.sqrt(jnp.asarray(coupling, luminance.dtype)) * gradient_length(luminance)
    color = gradient_length(chroma)
    gain = light + color - length(light, color)
    return ratio(mean(gain), jnp.minimum(mean(light), mean(color)))


class BandError(NamedTuple):
    """Mean color differences of :func:`band_error`, each []."""

    near: jax.Array
    elsewhere: jax.Array


@partial(jax.jit, static_argnames="distance")
def band_error(lab: jax.Array, truth: jax.Array, distance: int = 4, share: float = 0.1) -> BandError:
    """Mean ΔE2000 within ``distance`` pixels of the truth's color edges, and elsewhere.

    Args:
        lab: [H, W, 3].
        truth: [H, W, 3].
        distance: k in pixels; static under ``jit``. Common choices: 2, 4, 8.
        share: Share of pixels that count as the truth's color edges (of a*, b*).

    Returns:
        BandError(near, elsewhere), lower is better; NaN where a region has no pixel (a gray truth has no edges).

    What fools it: a plausible but different color is an error on both sides of the edge; compare ``near`` with
    ``elsewhere``, since halos raise only the first.
    Source: the trimap of segmentation papers, with ΔE2000; defined by this project.

    Example:
        >>> gray = jnp.full((4, 4, 3), 50.0)
        >>> float(band_error(gray, gray).elsewhere)
        0.0
    """
    difference = delta_e_2000(lab, truth)
    band = near(edges(truth[..., 1:], share), distance)
    return BandError(mean(difference, band), mean(difference, ~band))


@jax.jit
def leak_fraction(
    chroma: jax.Array, left: jax.Array, right: jax.Array, is_right: jax.Array, ignore: jax.Array | None = None
) -> jax.Array:
    """Share of pixels of a two-region picture whose chroma is closer to the other region's true color.

    Args:
        chroma: [H, W, 2] the result.
        left: [2] true chroma of the one region.
        right: [2] true chroma of the other.
        is_right: [H, W] bool, where ``right`` is the truth.
        ignore: [H, W] bool, pixels that do not count (for example mixed ones on the border), or None.

    Returns:
        [] in [0, 1], lower is better. Zero gradient.

    What fools it: a pixel halfway or gray may be on the right side by a hair; report the mean chroma error as well.
    Source: the proof of concept of Mouzon, Pierre and Berger 2019, Fig. 4.

    Example:
        >>> a, b = jnp.array([10.0, 0.0]), jnp.array([-10.0, 0.0])
        >>> float(leak_fraction(jnp.array([[a, a]]), a, b, jnp.array([[False, True]])))
        0.5
    """
    to_left, to_right = (jnp.sum((chroma - color) ** 2, axis=-1) for color in (left, right))
    wrong = jnp.where(is_right, to_left < to_right, to_right < to_left).astype(chroma.dtype)
    return mean(wrong) if ignore is None else mean(wrong, ~ignore)


@partial(jax.jit, static_argnames="distance")
def edge_width(
    luminance: jax.Array, chroma: jax.Array, distance: int = 8, share: float = 0.05, contrast: float = 10.0
) -> jax.Array:
    """How many pixels a color needs to change across the luminance's edges: the 10 to 90 % rise, median over edges.

    Along the normal of every edge pixel (the direction of ∇L*, central differences) the chroma is sampled every
    pixel within ``distance`` and laid along the line from its first to its last sample: s(t) from 0 to 1. The width
    is the length of t with 0.1 < s(t) < 0.9, s linear between the samples. A sharp edge between two pixels has 0.8 to
    1.6, by its direction; a Gaussian blur of standard deviation σ about 2.56 σ, up to 0.4 more where σ is small.

    Args:
        luminance: [H, W] L*.
        chroma: [H, W, 2].
        distance: In pixels, at least 1; static under ``jit``. Twice it is the widest rise that is seen.
        share: Share of pixels that count as luminance edges, see :func:`edges`.
        contrast: Edge pixels whose chroma differs by less than this between the two ends (Lab units) do not count.

    Returns:
        [] in pixels, in [0, 2 distance], lower is better; NaN if no edge has the contrast. Gradient almost everywhere.

    What fools it: gray has no width at all, and faint colors are left out, so fewer edges count; an edge at the wrong
    place is as good as one at the right place if it is sharp and within ``distance``.
    Cost: (2 distance + 1) interpolations at every pixel; about 80 bytes a pixel of memory per unit of distance.
    Source: after the edge widths of Marziliano et al. 2004; the sampling is defined by this project.

    Example:
        >>> step = jnp.repeat(jnp.array([[20.0] * 10 + [80.0] * 10]), 20, axis=0)
        >>> round(float(edge_width(step, jnp.stack([step, 0 * step], axis=-1))), 2)
        0.8
    """
    # The normal at a pixel from both its neighbors: one-sided differences lean to one side at corners.
    down, right = (_central_difference(luminance, axis) for axis in (0, 1))
    steep = jnp.maximum(length(down, right), jnp.finfo(luminance.dtype).tiny)
    row, column = jnp.indices(luminance.shape)
    offset = jnp.arange(-distance, distance + 1, dtype=luminance.dtype)[:, None, None]
    where = [row + offset * down / steep, column + offset * right / steep]
    samples = jnp.stack([map_coordinates(chroma[..., i], where, order=1, mode="nearest") for i in (0, 1)], -1)
    change = samples[-1] - samples[0]
    squared = jnp.sum(change**2, -1)
    rise = jnp.sum((samples - samples[0]) * change, -1) / jnp.where(squared > 0, squared, 1)
    width = _length_between(rise[:-1], rise[1:], 0.1, 0.9).sum(0)
    counts = edges(luminance, share) & (squared >= contrast**2) & (length(down, right) > 0)
    return jnp.nanmedian(jnp.where(counts, width, jnp.nan))


def _central_difference(plane: jax.Array, axis: int) -> jax.Array:
    padded = jnp.pad(plane, [(1, 1) if i == axis else (0, 0) for i in (0, 1)], mode="edge")
    size = plane.shape[axis]
    after, before = (lax.slice_in_dim(padded, start, start + size, axis=axis) for start in (2, 0))
    return (after - before) / 2


def _length_between(first: jax.Array, last: jax.Array, low: float, high: float) -> jax.Array:
    """Share of the unit segment on which the line from ``first`` to ``last`` lies between ``low`` and ``high``."""
    step = jnp.abs(last - first)
    # Flat segments lie inside or outside as a whole; below this step the quotient would be all rounding.
    flat = step < 1e-6
    part = jnp.abs(jnp.clip(last, low, high) - jnp.clip(first, low, high)) / jnp.where(flat, 1, step)
    return jnp.where(flat, ((first > low) & (first < high)).astype(part.dtype), part)
