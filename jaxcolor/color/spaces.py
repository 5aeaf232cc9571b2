"""Conversions between sRGB, linear RGB, CIE Lab (D65) and YUV (BT.601), in JAX.

Every function maps an array ``[..., 3]`` to an array ``[..., 3]`` of the same float dtype, is elementwise over
the leading axes, works under ``jit``, ``vmap`` and ``grad``, and has finite derivatives everywhere, black
included. Nothing is clipped: values outside the gamut keep their meaning, so that the caller can handle them
(see :mod:`jaxcolor.color.gamut`).

Ranges: sRGB and linear RGB in [0, 1]; L* in [0, 100], a* and b* about [-128, 128]; Y in the unit of RGB, U and V
in the same unit (|U| <= 0.436, |V| <= 0.615 for RGB in [0, 1]).

The matrix and the white point are those of IEC 61966-2-1 as rounded by scikit-image (``rgb2lab``, illuminant D65,
2 degree observer), so that both agree to 1e-3. With them a neutral gray has |a*|, |b*| < 0.005 rather than 0.
"""

import jax
import jax.numpy as jnp
import numpy as np

RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
XYZ_TO_RGB = tuple(map(tuple, np.linalg.inv(np.array(RGB_TO_XYZ)).tolist()))
WHITE_XYZ = (0.95047, 1.0, 1.08883)

# BT.601: Y = 0.299 R + 0.587 G + 0.114 B, U = (B - Y) / 2.03211, V = (R - Y) / 1.13983.
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
V_TO_RED, U_TO_BLUE = 1.13983, 2.03211
U_TO_GREEN, V_TO_GREEN = -0.39465, -0.58060

SRGB_BREAK, LINEAR_BREAK, SRGB_SLOPE = 0.04045, 0.0031308, 12.92
# CIE 15: f(t) is the cube root above (6/29)^3 and its tangent line below.
LAB_BREAK = (6 / 29) ** 3
LAB_SLOPE, LAB_OFFSET = (29 / 6) ** 2 / 3, 4 / 29


def srgb_to_linear(srgb: jax.Array) -> jax.Array:
    """Undo the sRGB transfer function (IEC 61966-2-1); negative values continue the linear piece.

    >>> float(srgb_to_linear(jnp.array(1.0)))
    1.0
    """
    srgb = _as_float(srgb)
    # The inner `where` keeps the unused branch away from points where its derivative is not finite.
    curved = jnp.where(srgb > SRGB_BREAK, srgb, 1.0)
    return jnp.where(srgb > SRGB_BREAK, ((curved + 0.055) / 1.055) ** 2.4, srgb / SRGB_SLOPE)


def linear_to_srgb(linear: jax.Array) -> jax.Array:
    """Apply the sRGB transfer function (IEC 61966-2-1); negative values continue the linear piece.

    >>> float(linear_to_srgb(jnp.array(0.0)))
    0.0
    """
    linear = _as_float(linear)
    curved = jnp.where(linear > LINEAR_BREAK, linear, 1.0)
    return jnp.where(linear > LINEAR_BREAK, 1.055 * curved ** (1 / 2.4) - 0.055, linear * SRGB_SLOPE)


def linear_to_lab(linear: jax.Array) -> jax.Array:
    """Linear RGB ``[..., 3]`` to CIE Lab (D65) ``[..., 3]``.

    >>> linear_to_lab(jnp.zeros(3)).tolist()
    [0.0, 0.0, 0.0]
    """
    xyz = _multiply(RGB_TO_XYZ, _channels(linear))
    fx, fy, fz = (_lab_curve(value / white) for value, white in zip(xyz, WHITE_XYZ, strict=True))
    return jnp.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=-1)


def lab_to_linear(lab: jax.Array) -> jax.Array:
    """CIE Lab (D65) ``[..., 3]`` to linear RGB ``[..., 3]``, unclipped: values outside [0, 1] are out of gamut.

    >>> bool(jnp.allclose(lab_to_linear(jnp.array([100.0, 0.0, 0.0])), 1.0, atol=1e-3))
    True
    """
    return jnp.stack(lab_planes_to_linear(*_channels(lab)), axis=-1)


def lab_planes_to_linear(luminance: jax.Array, a: jax.Array, b: jax.Array) -> list[jax.Array]:
    """:func:`lab_to_linear` on separate planes of one shape, where a ``[..., 3]`` copy would cost memory.

    >>> [round(float(c), 2) for c in lab_planes_to_linear(jnp.array(100.0), jnp.array(0.0), jnp.array(0.0))]
    [1.0, 1.0, 1.0]
    """
    fy = (luminance + 16) / 116
    ratios = map(_lab_curve_inverse, (fy + a / 500, fy, fy - b / 200))
    return _multiply(XYZ_TO_RGB, [ratio * white for ratio, white in zip(ratios, WHITE_XYZ, strict=True)])


def srgb_to_lab(srgb: jax.Array) -> jax.Array:
    """sRGB ``[..., 3]`` in [0, 1] to CIE Lab (D65) ``[..., 3]``.

    >>> [round(x) for x in srgb_to_lab(jnp.array([1.0, 0.0, 0.0])).tolist()]
    [53, 80, 67]
    """
    return linear_to_lab(srgb_to_linear(srgb))


def lab_to_srgb(lab: jax.Array) -> jax.Array:
    """CIE Lab (D65) ``[..., 3]`` to sRGB ``[..., 3]``, unclipped.

    >>> lab = srgb_to_lab(jnp.array([0.2, 0.5, 0.7]))
    >>> bool(jnp.allclose(lab_to_srgb(lab), jnp.array([0.2, 0.5, 0.7]), atol=1e-4))
    True
    """
    return linear_to_srgb(lab_to_linear(lab))


def srgb_to_yuv(srgb: jax.Array) -> jax.Array:
    """sRGB ``[..., 3]`` (any scale) to YUV (BT.601) ``[..., 3]`` in the same scale.

    >>> [round(x, 3) for x in srgb_to_yuv(jnp.array([0.0, 0.0, 255.0])).tolist()]
    [29.07, 111.18, -25.504]
    """
    red, green, blue = _channels(srgb)
    luma = LUMA_WEIGHTS[0] * red + LUMA_WEIGHTS[1] * green + LUMA_WEIGHTS[2] * blue
    return jnp.stack([luma, (blue - luma) / U_TO_BLUE, (red - luma) / V_TO_RED], axis=-1)


def yuv_to_srgb(yuv: jax.Array) -> jax.Array:
    """YUV (BT.601) ``[..., 3]`` to sRGB ``[..., 3]`` in the same scale, unclipped.

    >>> [round(x) for x in yuv_to_srgb(jnp.array([128.0, 0.0, 0.0])).tolist()]
    [128, 128, 128]
    """
    luma, u, v = _channels(yuv)
    return jnp.stack([luma + V_TO_RED * v, luma + U_TO_GREEN * u + V_TO_GREEN * v, luma + U_TO_BLUE * u], axis=-1)


def _lab_curve(ratio: jax.Array) -> jax.Array:
    curved = jnp.where(ratio > LAB_BREAK, ratio, 1.0)
    return jnp.where(ratio > LAB_BREAK, jnp.cbrt(curved), LAB_SLOPE * ratio + LAB_OFFSET)


def _lab_curve_inverse(value: jax.Array) -> jax.Array:
    return jnp.where(value > 6 / 29, value**3, (value - LAB_OFFSET) / LAB_SLOPE)


def _multiply(matrix: tuple[tuple[float, ...], ...], channels: list[jax.Array]) -> list[jax.Array]:
    # Written out, because a matrix product may run in TF32 or bfloat16 on accelerators and shift colors.
    return [
        sum((m * c for m, c in zip(row, channels, strict=True)), jnp.zeros((), channels[0].dtype)) for row in matrix
    ]


def _channels(color: jax.Array) -> list[jax.Array]:
    color = _as_float(color)
    if color.ndim < 1 or color.shape[-1] != 3:
        raise ValueError(f"expected colors with shape [..., 3], got {color.shape}")
    return [color[..., i] for i in range(3)]


def _as_float(values: jax.Array) -> jax.Array:
    values = jnp.asarray(values)
    return values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(jnp.float32)
