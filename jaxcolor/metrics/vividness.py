"""How colorful a picture is, whether rightly or not; needs no truth."""

import jax
import jax.numpy as jnp

from jaxcolor.metrics.arithmetic import channels, length, mean, safe_sqrt


@jax.jit
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
    red, green, blue = (255 * channel for channel in channels(rgb))
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    means = mean(red_green, where), mean(yellow_blue, where)
    spread = mean((red_green - means[0]) ** 2, where) + mean((yellow_blue - means[1]) ** 2, where)
    return safe_sqrt(spread) + 0.3 * length(*means)


@jax.jit
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
    return mean(jnp.where(high > 0, (high - low) / jnp.where(high > 0, high, 1), 0), where)
