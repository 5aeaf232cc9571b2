"""Measures of color quality: differences to a truth, how colorful a picture is, and how far its colors bleed.

One picture at a time, ``jax.vmap`` for more; every function works under ``jit``. A single number fools: gray scores
high on differences and perfectly on bleeding, noise scores high on colorfulness. Each docstring says what fools it;
report one measure of every kind together, and the gray picture's numbers beside them.

Lab is CIE L*a*b*; chroma [H, W, 2] is (a*, b*); rgb is sRGB-encoded in [0, 1].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcolor.ssim import ssim as ssim

_DEGREES = 180 / jnp.pi
_POW25_7 = 25.0**7
# Chroma below which a color has no hue: far below what is visible, far above where squares underflow in float32.
_GRAY = 1e-6


def delta_e_2000(lab1: jax.Array, lab2: jax.Array) -> jax.Array:
    """CIEDE2000, the perceived difference of two colors; symmetric.

    Args:
        lab1: [..., 3] L* in [0, 100], a*, b*.
        lab2: [..., 3], broadcast against ``lab1``.

    Returns:
        [...] from 0 (equal) upwards, lower is better; about 1 is just noticeable, black to white is 100. The
        gradient is finite everywhere; where the colors are equal (a kink) it is 0.

    What fools it: it sees one pixel at a time, so a mean over a picture hardly notices thin halos.
    Source: Sharma, Wu and Dalal 2005, "The CIEDE2000 Color-Difference Formula", with kL = kC = kH = 1.

    Example:
        >>> float(delta_e_2000(jnp.array([50.0, 0.0, 0.0]), jnp.array([50.0, 0.0, 0.0])))
        0.0
    """
    (l1, a1, b1), (l2, a2, b2) = _channels(lab1), _channels(lab2)
    # a' = (1 + G) a stretches the colors near gray; G from the mean of both chromas.
    stretch = 1.5 - 0.5 * _chroma_ratio((_length(a1, b1) + _length(a2, b2)) / 2)
    a1, a2 = stretch * a1, stretch * a2
    c1, c2 = _length(a1, b1), _length(a2, b2)
    colored = (c1 > _GRAY) & (c2 > _GRAY)
    h1, h2 = _hue(a1, b1), _hue(a2, b2)
    turn = jnp.where(h2 - h1 > 180, -360.0, jnp.where(h2 - h1 < -180, 360.0, 0.0))
    hue_step = jnp.where(colored, h2 - h1 + turn, 0.0)
    # The mean hue lies on the shorter arc; without a hue on one side the sum is the other side's hue.
    mean_hue = jnp.where(colored, (h1 + h2 + jnp.where(h1 + h2 < 360, jnp.abs(turn), -jnp.abs(turn))) / 2, h1 + h2)
    product = jnp.where(colored, c1 * c2, 1.0)
    dl, dc = l2 - l1, c2 - c1
    dh = jnp.where(colored, 2 * jnp.sqrt(product) * jnp.sin(hue_step / 2 / _DEGREES), 0.0)
    return _weighted_difference(dl, dc, dh, (l1 + l2) / 2, (c1 + c2) / 2, mean_hue)


def _weighted_difference(
    dl: jax.Array, dc: jax.Array, dh: jax.Array, lightness: jax.Array, chroma: jax.Array, hue: jax.Array
) -> jax.Array:
    """Steps 3 of the CIEDE2000 paper: each difference over its tolerance at the mean color, and the rotation term."""

    def cosine(multiple: int, offset: float) -> jax.Array:
        return jnp.cos((multiple * hue + offset) / _DEGREES)

    t = 1 - 0.17 * cosine(1, -30) + 0.24 * cosine(2, 0) + 0.32 * cosine(3, 6) - 0.20 * cosine(4, -63)
    offset = (lightness - 50) ** 2
    dl = dl / (1 + 0.015 * offset / jnp.sqrt(20 + offset))
    dc = dc / (1 + 0.045 * chroma)
    dh = dh / (1 + 0.015 * chroma * t)
    angle = 60 * jnp.exp(-(((hue - 275) / 25) ** 2))
    rotation = -2 * _chroma_ratio(chroma) * jnp.sin(angle / _DEGREES)
    return _safe_sqrt(dl**2 + dc**2 + dh**2 + rotation * dc * dh)


def psnr(rgb1: jax.Array, rgb2: jax.Array, peak: float = 1.0) -> jax.Array:
    """Peak signal-to-noise ratio, 10 log10(peak² / mean squared error), over all channels and pixels.

    Args:
        rgb1: [H, W, 3] (or any shape).
        rgb2: The same shape.
        peak: The largest possible value.

    Returns:
        [] in decibels, higher is better, infinite for equal pictures.

    What fools it: a safe, grayish guess beats a vivid plausible one; it also rewards the copied luminance.

    Example:
        >>> round(float(psnr(jnp.zeros((2, 2, 3)), jnp.full((2, 2, 3), 0.1))), 3)
        20.0
    """
    return 10 * jnp.log10(peak**2 / _mean((rgb1 - rgb2) ** 2))


def colorfulness(rgb: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """How colorful a picture looks: spread of its opponent colors plus 0.3 times their mean's distance from gray.

    Args:
        rgb: [H, W, 3] sRGB in [0, 1].
        where: [H, W] bool, the pixels that count; None: all.

    Returns:
        [] on the scale of 0..255 values: 0 gray, 15 slightly, 33 moderately, 59 quite, 109 extremely colorful.

    What fools it: colored noise and wrong colors count as much as right ones. Beware of other programs' numbers:
    some take absolute values |R - G| and |(R + G)/2 - B| first; here the differences keep their signs, as published.
    Source: Hasler and Süsstrunk 2003, "Measuring colourfulness in natural images", M(3).

    Example:
        >>> float(colorfulness(jnp.full((2, 2, 3), 0.4)))
        0.0
    """
    red, green, blue = (255 * channel for channel in _channels(rgb))
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    means = _mean(red_green, where), _mean(yellow_blue, where)
    spread = _mean((red_green - means[0]) ** 2, where) + _mean((yellow_blue - means[1]) ** 2, where)
    return _safe_sqrt(spread) + 0.3 * _length(*means)


def saturation(rgb: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Mean HSV saturation, (max - min) / max over the channels of each pixel; 0 for black.

    Args:
        rgb: [H, W, 3] sRGB in [0, 1].
        where: [H, W] bool, the pixels that count; None: all.

    Returns:
        [] in [0, 1], 0 gray. No direction: natural photos lie around 0.2 to 0.5.

    What fools it: dark pixels reach 1 with hardly visible color.
    Source: Smith 1978 (the HSV cone); the number that Mouzon, Pierre and Berger 2019 appear to report.

    Example:
        >>> float(saturation(jnp.array([[[0.5, 0.25, 0.25]]])))
        0.5
    """
    high, low = rgb.max(axis=-1), rgb.min(axis=-1)
    return _mean(jnp.where(high > 0, (high - low) / jnp.where(high > 0, high, 1), 0), where)


def area_under_curve(
    chroma: jax.Array, truth: jax.Array, weights: jax.Array | None = None, threshold: int = 150
) -> jax.Array:
    """AuC: area under the share of pixels whose chroma error ‖ab - ab_truth‖ is at most t, t = 0..threshold.

    Args:
        chroma: [H, W, 2] in Lab units.
        truth: [H, W, 2].
        weights: [H, W], not negative. None: every pixel alike ("raw"). For the rebalanced score: one over the prior
            probability of each pixel's true color bin. They need not sum to 1.
        threshold: The largest t; the published score has 150.

    Returns:
        [] in [0, 1], higher is better (the literature prints percent). Trapezoid rule with steps of 1, as published;
        so it is a staircase with zero gradient.

    What fools it: gray scores about 0.89 raw on photos. Always print the gray picture's score beside it.
    Source: Zhang, Isola and Efros 2016, section 3.1 and its public re-implementations.

    Example:
        >>> float(area_under_curve(jnp.zeros((2, 2, 2)), jnp.zeros((2, 2, 2))))
        1.0
    """
    error = _length(*_channels(chroma - truth))
    # A pixel is inside for the integers t >= ceil(error); the two ends of the trapezoid rule count half.
    inside = jnp.clip(threshold + 1 - jnp.ceil(error), 0, None)
    score = (inside - 0.5 * (error <= 0) - 0.5 * (error <= threshold)) / threshold
    return _mean(score) if weights is None else _mean(score * weights) / _mean(weights)


def edges(values: jax.Array, share: float = 0.1) -> jax.Array:
    """The pixels with the strongest gradient (forward differences, all channels together).

    Args:
        values: [H, W] or [H, W, C].
        share: Largest share of pixels in (0, 1] that counts as edge. Pixels of equal gradient count alike, and
            those without any gradient never count.

    Returns:
        [H, W] bool.

    What fools it: noise, and large even pictures, where the strongest tenth is no edge to the eye.
    Cost: one sort of the pixels.

    Example:
        >>> edges(jnp.array([[0.0, 0.0, 1.0, 1.0]])).tolist()
        [[False, True, False, False]]
    """
    strength = _gradient_length(values)
    place = jnp.ceil(strength.size * (1 - jnp.asarray(share, jnp.float32))).astype(jnp.int32)
    threshold = jnp.sort(strength, axis=None)[jnp.clip(place, 0, strength.size - 1)]
    return (strength >= threshold) & (strength > 0)


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
    variation = _gradient_length(chroma)
    away = ~near(edges(luminance, share), distance)
    return _ratio(_mean(variation * away), _mean(variation))


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
    light = jnp.sqrt(jnp.asarray(coupling, luminance.dtype)) * _gradient_length(luminance)
    color = _gradient_length(chroma)
    gain = light + color - _length(light, color)
    return _ratio(_mean(gain), jnp.minimum(_mean(light), _mean(color)))


class BandError(NamedTuple):
    """Mean color differences of :func:`band_error`, each []."""

    near: jax.Array
    elsewhere: jax.Array


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
    return BandError(_mean(difference, band), _mean(difference, ~band))


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
    return _mean(wrong) if ignore is None else _mean(wrong, ~ignore)


def _gradient_length(values: jax.Array) -> jax.Array:
    """[H, W] √(Σ over channels |∇|²), forward differences, 0 across the last row and column."""
    planes = values[..., None] if values.ndim == 2 else values
    squares = jnp.zeros(planes.shape[:2], planes.dtype)
    squares = squares.at[:-1].add(jnp.sum(jnp.diff(planes, axis=0) ** 2, axis=-1))
    return _safe_sqrt(squares.at[:, :-1].add(jnp.sum(jnp.diff(planes, axis=1) ** 2, axis=-1)))


def _channels(color: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(color[..., index] for index in range(color.shape[-1]))


def _safe_sqrt(square: jax.Array) -> jax.Array:
    """√ with derivative 0 at 0; below 0, which only rounding reaches, it is 0; NaN stays NaN."""
    nothing = square <= 0
    return jnp.where(nothing, 0, jnp.sqrt(jnp.where(nothing, 1, square)))


def _length(first: jax.Array, second: jax.Array) -> jax.Array:
    return _safe_sqrt(first**2 + second**2)


def _hue(a: jax.Array, b: jax.Array) -> jax.Array:
    """Degrees in [0, 360); 0 with derivative 0 for gray."""
    gray = a**2 + b**2 <= _GRAY**2
    angle = jnp.arctan2(jnp.where(gray, 0, b), jnp.where(gray, 1, a)) * _DEGREES
    return jnp.where(angle < 0, angle + 360, angle)


def _chroma_ratio(chroma: jax.Array) -> jax.Array:
    """√(C⁷ / (C⁷ + 25⁷)), written so that the derivative at C = 0 is finite."""
    return chroma**3 * _safe_sqrt(chroma) / jnp.sqrt(chroma**7 + _POW25_7)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)


def _mean(values: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Mean over everything, one axis after the other: float32 keeps its accuracy on large pictures.

    With ``where`` only over its true pixels; NaN if there is none.
    """
    if where is not None:
        share = _mean(where.astype(values.dtype))
        mean = _mean(jnp.where(where, values, 0)) / jnp.where(share > 0, share, 1)
        return jnp.where(share > 0, mean, jnp.nan)
    while values.ndim:
        values = jnp.mean(values, axis=-1)
    return values
