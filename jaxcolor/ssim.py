"""Structural similarity; public as ``jaxcolor.metrics.ssim``."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcolor.errors import InputError

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim(rgb1: jax.Array, rgb2: jax.Array, peak: float = 1.0) -> jax.Array:
    """Structural similarity: local means, contrasts and correlation compared in a Gaussian window of 11 x 11, σ = 1.5.

    Args:
        rgb1: [H, W, C], at least 11 pixels high and wide.
        rgb2: The same shape.
        peak: The largest possible value.

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
