"""Chroma that a screen can show at a given luminance.

Two questions, one per color space: the nearest displayable (U, V) at luma Y, which is a projection onto a
convex polygon and belongs inside solvers; and how far a Lab color must move toward gray, which keeps L* and
hue and belongs at the very end of the pipeline.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxcolor.color.spaces import U_TO_BLUE, U_TO_GREEN, V_TO_GREEN, V_TO_RED

# Unit normal of the lines of equal green in the (U, V) plane; both components are negative.
_GREEN_NORM = (U_TO_GREEN**2 + V_TO_GREEN**2) ** 0.5
_NORMAL_U, _NORMAL_V = U_TO_GREEN / _GREEN_NORM, V_TO_GREEN / _GREEN_NORM


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
