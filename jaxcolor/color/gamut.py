"""Chroma that a screen can show at a given luminance.

Two questions, one per color space: the nearest displayable (U, V) at luma Y, which is a projection onto a
convex polygon and belongs inside solvers; and how far a Lab color must move toward gray, which keeps L* and
hue and belongs at the very end of the pipeline.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxcolor.color.spaces import U_TO_BLUE, U_TO_GREEN, V_TO_GREEN, V_TO_RED, lab_planes_to_linear

# Unit normal of the lines of equal green in the (U, V) plane; both components are negative.
_GREEN_NORM = (U_TO_GREEN**2 + V_TO_GREEN**2) ** 0.5
_NORMAL_U, _NORMAL_V = U_TO_GREEN / _GREEN_NORM, V_TO_GREEN / _GREEN_NORM

# Linear RGB may leave [0, 1] by what amounts to 1e-4 in sRGB, a fortieth of an 8-bit step: the published
# matrix and white point are rounded, so that white itself is off by that much.
_LINEAR_LOW, _LINEAR_HIGH = -7e-6, 1 + 2e-4
# 2^-20 of a chroma of 128 is 1e-4 Lab units.
_BISECTIONS = 20


def project_yuv(u: ArrayLike, v: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """The displayable chrominance nearest to (u, v) at luma y: the exact Euclidean projection.

    Displayable means 0 ≤ R, G, B ≤ 255 with Y kept, three slabs -Y ≤ a·(U, V) ≤ 255 - Y. Red and blue bound
    V and U alone, a box; green cuts it with two parallel lines. If the nearest point of the box violates a
    green bound, that bound holds with equality at the solution, which is then the nearest point of a segment:
    closed form, no loop.

    Args:
        u: chrominance U (BT.601), any shape, in the units of y; finite.
        v: chrominance V, same shape or broadcastable.
        y: luma in [0, 255], broadcastable; values outside are clamped. At 0 and 255 only (0, 0) is left.

    Returns:
        (u, v), projected, in the broadcast shape and dtype of the inputs. Projecting again changes nothing
        beyond rounding. Gradients are those of a projection: exact almost everywhere, finite everywhere.

    About 30 elementwise operations a pixel that XLA fuses into one pass. Derived for this project.

    >>> u, v = project_yuv(300.0, 0.0, 114.0)
    >>> print(f"{float(u):.2f} {float(v):.2f}")      # the bluest color at this luma
    69.39 0.00
    """
    y = jnp.clip(y, 0, 255)
    below, above = -y, 255 - y
    u_low, u_high = below / U_TO_BLUE, above / U_TO_BLUE
    v_low, v_high = below / V_TO_RED, above / V_TO_RED
    u_box = jnp.clip(u, u_low, u_high)
    v_box = jnp.clip(v, v_low, v_high)
    green = U_TO_GREEN * u_box + V_TO_GREEN * v_box
    bound = jnp.clip(green, below, above)

    # The line green = bound is foot + t·(-_NORMAL_V, _NORMAL_U), with foot its point nearest to gray. The box
    # limits t on both axes; _NORMAL_U is negative, so v limits it the other way round.
    foot_u, foot_v = bound / _GREEN_NORM * _NORMAL_U, bound / _GREEN_NORM * _NORMAL_V
    t_low = jnp.maximum((foot_u - u_low) / _NORMAL_V, (v_high - foot_v) / _NORMAL_U)
    t_high = jnp.minimum((foot_u - u_high) / _NORMAL_V, (v_low - foot_v) / _NORMAL_U)
    t = jnp.clip(_NORMAL_U * v - _NORMAL_V * u, t_low, t_high)
    inside = green == bound
    return (
        jnp.where(inside, u_box, foot_u - t * _NORMAL_V),
        jnp.where(inside, v_box, foot_v + t * _NORMAL_U),
    )


@jax.jit
def is_displayable(lab: ArrayLike) -> Array:
    """Whether Lab colors ``[..., 3]`` (L* in [0, 100]) lie in the sRGB cube, to 1e-4 in sRGB; bool ``[...]``.

    >>> is_displayable(jnp.array([[50.0, 0.0, 0.0], [50.0, 90.0, -90.0]])).tolist()
    [True, False]
    """
    lab = jnp.asarray(lab)
    return _excess(lab[..., 0], lab[..., 1], lab[..., 2]) <= 0


@jax.jit
def scale_chroma(lab: ArrayLike) -> tuple[Array, Array]:
    """Move colors that no screen can show straight toward gray until one can, keeping L* and hue.

    Args:
        lab: ``[..., 3]``, L*, a*, b*; L* is clamped to [0, 100]. Any finite a*, b*.

    Returns:
        The colors (L*, s·a*, s·b*), whose sRGB lies in [0, 1] to 1e-4, and the scale s ``[...]``, the largest
        in [0, 1] (to 1e-6). s is 1 exactly where the color was displayable: ``(s < 1).mean()`` is the share
        of colors out of gamut.

    Displayable colors on a ray from gray are an interval up to rounding, so 20 bisections find its end.
    Elementwise: about a second for ten million colors on one core, no memory beside input and output (a
    gradient keeps a few planes), and a caller may work through a large image block by block. The derivative
    is that of the implicit equation "the first channel to leave the cube is at its bound". Derived for this
    project.

    >>> lab, scale = scale_chroma(jnp.array([50.0, 90.0, -90.0]))
    >>> print(f"{float(lab[0]):.0f} {float(lab[1]):.1f} {float(lab[2]):.1f} {float(scale):.3f}")
    50 78.1 -78.1 0.868
    """
    lab = jnp.asarray(lab)
    luminance, a, b = jnp.clip(lab[..., 0], 0, 100), lab[..., 1], lab[..., 2]
    scale = _largest_scale(luminance, a, b)
    return jnp.stack([luminance, scale * a, scale * b], axis=-1), scale


def _excess(luminance: Array, a: Array, b: Array) -> Array:
    """How far the worst linear RGB channel is outside its range; at most 0 inside the cube."""
    red, green, blue = lab_planes_to_linear(luminance, a, b)
    above = jnp.maximum(jnp.maximum(red, green), blue) - _LINEAR_HIGH
    below = _LINEAR_LOW - jnp.minimum(jnp.minimum(red, green), blue)
    return jnp.maximum(above, below)


@jax.custom_jvp
def _largest_scale(luminance: Array, a: Array, b: Array) -> Array:
    # Written out rather than looped: XLA then makes one kernel of it, without a single temporary plane.
    scale = jnp.zeros_like(a)
    for i in range(1, _BISECTIONS + 1):
        longer = scale + 0.5**i
        scale = jnp.where(_excess(luminance, longer * a, longer * b) <= 0, longer, scale)
    return jnp.where(_excess(luminance, a, b) <= 0, 1, scale)


@_largest_scale.defjvp
def _largest_scale_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    luminance, a, b = primals
    scale = _largest_scale(luminance, a, b)
    at = (luminance, scale * a, scale * b)
    # excess(luminance, s a, s b) = 0 determines s; a ray that only touches the boundary gets derivative 0.
    _, moved = jax.jvp(_excess, at, (tangents[0], scale * tangents[1], scale * tangents[2]))
    _, growth = jax.jvp(_excess, at, (jnp.zeros_like(luminance), a, b))
    crossing = (scale < 1) & (growth > 1e-7)
    return scale, jnp.where(crossing, -moved / jnp.where(crossing, growth, 1), 0)
