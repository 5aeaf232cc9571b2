"""How far a picture is from its truth: ΔE2000, PSNR, SSIM, and the area under the curve of chroma errors."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcolor.errors import InputError
from jaxcolor.metrics.arithmetic import as_float, channels, length, mean, safe_sqrt

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
_DEGREES = 180 / jnp.pi
_POW25_7 = 25.0**7
# Chroma below which a color has no hue: far below what is visible, far above where squares underflow in float32.
_GRAY = 1e-6


@jax.jit
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
    (l1, a1, b1), (l2, a2, b2) = channels(lab1), channels(lab2)
    # a' = (1 + G) a stretches the colors near gray; G from the mean of both chromas.
    stretch = 1.5 - 0.5 * _chroma_ratio((length(a1, b1) + length(a2, b2)) / 2)
    a1, a2 = stretch * a1, stretch * a2
    c1, c2 = length(a1, b1), length(a2, b2)
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
    return safe_sqrt(dl**2 + dc**2 + dh**2 + rotation * dc * dh)


@jax.jit
def psnr(rgb1: jax.Array, rgb2: jax.Array, peak: float = 1.0) -> jax.Array:
    """Peak signal-to-noise ratio, 10 log10(peak² / mean squared error), over all channels and pixels.

    Args:
        rgb1: [H, W, 3] (or any shape).
        rgb2: The same shape.
        peak: The largest possible value: 1, or 255 for 8-bit integers.

    Returns:
        [] in decibels, higher is better, infinite for equal pictures.

    What fools it: a safe, grayish guess beats a vivid plausible one; it also rewards the copied luminance.

    Example:
        >>> round(float(psnr(jnp.zeros((2, 2, 3)), jnp.full((2, 2, 3), 0.1))), 3)
        20.0
    """
    return 10 * jnp.log10(peak**2 / mean((as_float(rgb1) - as_float(rgb2)) ** 2))


@jax.jit
def ssim(rgb1: jax.Array, rgb2: jax.Array, peak: float = 1.0) -> jax.Array:
    """Structural similarity: local means, contrasts and correlation compared in a Gaussian window of 11 x 11, σ = 1.5.

    Args:
        rgb1: [H, W, C], at least 11 pixels high and wide.
        rgb2: The same shape.
        peak: The largest possible value: 1, or 255 for 8-bit integers.

    Returns:
        [] in [-1, 1], 1 for equal pictures, higher is better: the mean over the windows that lie inside the picture
        and over the channels. Differentiable.

    Raises:
        InputError: for shapes that differ, are not [H, W, C], or are smaller than the window.

    What fools it: colorization copies the luminance, so that even gray scores about 0.9.
    Source: Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment", with K1 = 0.01, K2 = 0.03.

    Example:
        >>> float(ssim(jnp.full((11, 11, 1), 0.5), jnp.full((11, 11, 1), 0.5)))
        1.0
    """
    if rgb1.shape != rgb2.shape or rgb1.ndim != 3 or min(rgb1.shape[:2]) < WINDOW:
        raise InputError(
            f"ssim takes two pictures [H, W, C] of one shape, at least {WINDOW} pixels high and wide; "
            f"got {rgb1.shape} and {rgb2.shape}"
        )
    rgb1, rgb2 = as_float(rgb1), as_float(rgb2)
    mean1, mean2 = _windowed_mean(rgb1), _windowed_mean(rgb2)
    variance1 = _windowed_mean(rgb1**2) - mean1**2
    variance2 = _windowed_mean(rgb2**2) - mean2**2
    covariance = _windowed_mean(rgb1 * rgb2) - mean1 * mean2
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    structure = (2 * covariance + c2) / (variance1 + variance2 + c2)
    return (luminance * structure).mean()


def _windowed_mean(picture: jax.Array) -> jax.Array:
    """Gaussian-weighted mean around every pixel whose window lies inside: ``[H - 10, W - 10, C]``."""
    offset = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offset**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):
        size = picture.shape[axis] - WINDOW + 1
        shifted = [jax.lax.slice_in_dim(picture, i, i + size, axis=axis) for i in range(WINDOW)]
        picture = sum((w * s for w, s in zip(weights.tolist(), shifted, strict=True)), jnp.zeros((), picture.dtype))
    return picture


@jax.jit
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
    error = length(*channels(chroma - truth))
    # A pixel is inside for the integers t >= ceil(error); the two ends of the trapezoid rule count half.
    inside = jnp.clip(threshold + 1 - jnp.ceil(error), 0, None)
    score = (inside - 0.5 * (error <= 0) - 0.5 * (error <= threshold)) / threshold
    return mean(score) if weights is None else mean(score * weights) / mean(weights)


def _hue(a: jax.Array, b: jax.Array) -> jax.Array:
    """Degrees in [0, 360); 0 with derivative 0 for gray."""
    gray = a**2 + b**2 <= _GRAY**2
    angle = jnp.arctan2(jnp.where(gray, 0, b), jnp.where(gray, 1, a)) * _DEGREES
    return jnp.where(angle < 0, angle + 360, angle)


def _chroma_ratio(chroma: jax.Array) -> jax.Array:
    """√(C⁷ / (C⁷ + 25⁷)), written so that the derivative at C = 0 is finite."""
    return chroma**3 * safe_sqrt(chroma) / jnp.sqrt(chroma**7 + _POW25_7)
