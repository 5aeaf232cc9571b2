"""Gradient, divergence and the coupled total variation, on planes.

A plane is an array ``[..., H, W]`` with one value per pixel. Discretisation: forward differences with Neumann
boundary, div = -∇ᵀ, so that ‖∇‖² ≤ 8 (Chambolle 2004).

``extent`` is None, or two integers (rows, columns), possibly traced: the image occupies the top left corner of
the planes and whatever lies outside is padding. No difference is taken across or beyond the border of the
extent, so that a padded image behaves exactly as the image alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcolor.trees import Number

Extent = tuple[Array | int, Array | int] | None
Pair = tuple[Array, Array]

GRADIENT_NORM_SQUARED = 8.0
"""Bound of ‖∇‖² on any grid: each pixel is in at most four differences, and (x - y)² ≤ 2x² + 2y²."""


def gradient(plane: Array, extent: Extent = None) -> Pair:
    """Forward differences along columns and rows: ``v[i, j+1] - v[i, j]`` and ``v[i+1, j] - v[i, j]``.

    Zero in the last column, in the last row and outside the extent.

    >>> gradient(jnp.array([[1.0, 4.0], [1.0, 5.0]]))[0].tolist()
    [[3.0, 0.0], [4.0, 0.0]]
    """
    right, below = neighbours(plane.shape, extent)
    return (
        jnp.where(right, _shift(plane, -1, -1) - plane, 0),
        jnp.where(below, _shift(plane, -2, -1) - plane, 0),
    )


def divergence(x: Array, y: Array, extent: Extent = None) -> Array:
    """Minus the adjoint of :func:`gradient`: ``<∇v, (x, y)> = -<v, div(x, y)>`` for all fields, of every shape."""
    right, below = neighbours(x.shape, extent)
    x, y = jnp.where(right, x, 0), jnp.where(below, y, 0)
    return divergence_of_inner(x, y)


def divergence_of_inner(x: Array, y: Array) -> Array:
    """:func:`divergence` of a field that is known to be zero wherever :func:`gradient` is: one mask less."""
    return (x - _shift(x, -1, 1)) + (y - _shift(y, -2, 1))


def neighbours(shape: tuple[int, ...], extent: Extent = None) -> Pair:
    """Booleans ``[H, W]``: which pixels have a neighbour to the right, and which have one below."""
    height, width = shape[-2:]
    rows, columns = (height, width) if extent is None else extent
    row = lax.broadcasted_iota(jnp.int32, (height, width), 0)
    column = lax.broadcasted_iota(jnp.int32, (height, width), 1)
    right, below = column < jnp.asarray(columns) - 1, row < jnp.asarray(rows) - 1
    if extent is None:
        return right, below
    return right & (row < jnp.asarray(rows)), below & (column < jnp.asarray(columns))


def inside(shape: tuple[int, ...], extent: Extent) -> Array:
    """Booleans ``[H, W]``: which pixels belong to the image and not to its padding."""
    if extent is None:
        return jnp.ones(shape[-2:], bool)
    row = lax.broadcasted_iota(jnp.int32, shape[-2:], 0)
    column = lax.broadcasted_iota(jnp.int32, shape[-2:], 1)
    return (row < jnp.asarray(extent[0])) & (column < jnp.asarray(extent[1]))


def cut(planes: Array, corner: tuple[Array | int, ...], shape: tuple[int, int]) -> Array:
    """The part of planes ``[H, ..., W]`` that begins at a row and column and has so many of them."""
    (height, width), between = shape, planes.shape[1:-1]
    return lax.dynamic_slice(planes, _place(planes, corner), (height, *between, width))


def paste(planes: Array, part: Array, corner: tuple[Array | int, ...]) -> Array:
    """``planes`` with another part from a row and column on."""
    return lax.dynamic_update_slice(planes, part, _place(planes, corner))


def _place(planes: Array, corner: tuple[Array | int, ...]) -> list[Array]:
    row, column = corner
    return [jnp.asarray(i, jnp.int32) for i in (row, *[0] * (planes.ndim - 2), column)]


def edge_strength(luminance: Array, coupling: Number, smoothing: Number, extent: Extent = None) -> Array:
    """``a = sqrt(ε² + γ|∇Y|²)``: all of the coupled total variation that does not depend on chroma."""
    x, y = gradient(luminance, extent)
    return safe_sqrt(jnp.square(smoothing) + coupling * (x * x + y * y))


def metric(strength: Array, extent: Extent = None) -> Array:
    """``l(x)``, row sums of ``|∇ᵀ diag(1/a) ∇|``, which bound the Hessian of the smoothed total variation.

    ∇ᵀ diag(1/a) ∇ is a weighted graph Laplacian, so l is twice its diagonal (Gershgorin). Derived: at most 8/min a,
    and far below where luminance has edges. 0 where a pixel has no neighbour.
    """
    right, below = neighbours(strength.shape, extent)
    x, y = jnp.where(right, 1 / strength, 0), jnp.where(below, 1 / strength, 0)
    return 2 * (x + _shift(x, -1, 1) + y + _shift(y, -2, 1))


def coupled_total_variation(
    luminance: Array,
    chroma: Pair,
    coupling: Number,
    smoothing: Number = 0.0,
    extent: Extent = None,
) -> Array:
    """``Σ_x sqrt(ε² + γ|∇Y|² + |∇U|² + |∇V|²)``, a scalar.

    Source: Mouzon, Pierre, Berger 2019, equation 2 (ε = 0). With ε > 0 it is differentiable; with ε = 0 the
    derivative at a pixel without any variation is taken as 0, a subgradient.
    """
    a = edge_strength(luminance, coupling, smoothing, extent)
    (ux, uy), (vx, vy) = gradient(chroma[0], extent), gradient(chroma[1], extent)
    density = safe_sqrt(a * a + ux * ux + uy * uy + vx * vx + vy * vy)
    return total(jnp.where(inside(a.shape, extent), density, 0))


def safe_sqrt(x: Array) -> Array:
    """Square root with derivative 0 instead of infinity at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def total(plane: Array) -> Array:
    """Sum over the pixels of one plane ``[H, W]``."""
    # Products with ones. Rows first: a running float32 sum over 24 million pixels would stall. And no reduction: into
    # one XLA:CPU (jax 0.10) draws what the plane is computed from, of a sum over ten candidates ten planes.
    rows = jnp.dot(plane, jnp.ones_like(plane[0]), precision=lax.Precision.HIGHEST)
    return jnp.dot(rows, jnp.ones_like(rows), precision=lax.Precision.HIGHEST)


def computed_once(function: Callable[..., Any], *operands: Any) -> Any:
    """``function(*operands)``, kept in memory instead of being recomputed by each of its consumers.

    XLA:CPU fuses a shared expression into every consumer, so that the norm of a dual variable with five
    components is computed five times and a threshold over ten weights ten times; it removes
    ``optimization_barrier`` before it fuses, but after it has looked for conditionals that are none. So one on a true
    value behind such a barrier stands: five times faster on the primal-dual iteration. Other backends get
    the plain expression; what is best there has not been measured.
    """

    # Traced once for all three uses.
    traced = jax.jit(function, inline=True)

    def guarded(*args: Any) -> Any:
        true, shapes = lax.optimization_barrier(jnp.bool_(True)), jax.eval_shape(traced, *args)
        return lax.cond(true, traced, lambda *_: jax.tree.map(jnp.zeros_like, shapes), *args)

    return lax.platform_dependent(*operands, cpu=guarded, default=traced)


def _shift(plane: Array, axis: int, by: int) -> Array:
    """``plane`` moved by one pixel towards larger (by = 1) or smaller (by = -1) indices, zero-filled."""
    padding = [(0, 0, 0)] * plane.ndim
    padding[axis] = (by, -by, 0)
    return lax.pad(plane, jnp.zeros((), plane.dtype), padding)
