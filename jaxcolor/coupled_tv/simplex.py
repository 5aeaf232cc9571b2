"""Projection of one vector onto the probability simplex Δ = {w ≥ 0, Σ w_i = 1}, and its threshold for whole planes.

The projection is ``max(v - θ, 0)`` with one threshold θ per vector (Duchi et al. 2008, Chen & Ye 2011), and with
the entries in decreasing order ``θ = max_j (v_1 + … + v_j - 1) / j``. Two ways to θ, the same result:

* up to ``SORTED_UP_TO`` entries, a sorting network of minima and maxima: no branch, no loop, and over whole planes
  nothing but elementwise operations;
* beyond, Newton's method (Michelot 1986) ``θ ← (Σ_{v_i > θ} v_i - 1) / #{v_i > θ}``, which increases to θ in finitely
  many steps: the program stays small at any k.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcolor.errors import InputError

SORTED_UP_TO = 32
"""Longest vector that is sorted by a network: 191 comparators at 32, and compile time grows with their number.

A primal-dual step with 32 candidates takes 0.28 times what it takes with Newton's method (256² and 512², two CPU
cores), and 3.1 to 3.5 seconds to compile instead of 0.8 to 1.0.
"""


@jax.custom_jvp
def project_simplex(v: Array) -> Array:
    """The point of the simplex nearest to one vector ``v`` ``[k]``, k ≥ 1; ``jax.vmap`` it for more.

    Exact up to rounding. Derivatives in both modes are those of the projection, ``dw = dv - mean(dv over the
    support)`` on the support and 0 off it, and do not pass through the search for the threshold.

    >>> [round(float(w), 3) for w in project_simplex(jnp.array([0.5, 0.9, -3.0]))]
    [0.3, 0.7, 0.0]
    """
    if jnp.ndim(v) != 1:
        raise InputError(f"project_simplex takes one vector [k], got shape {jnp.shape(v)}; use jax.vmap for more")
    v = jnp.asarray(v)
    v = v if jnp.issubdtype(v.dtype, jnp.floating) else v.astype(jnp.float32)
    # The projection does not change when all entries shift; near 0 nothing is lost to rounding.
    v = v - v.max()
    threshold = threshold_by_sorting(list(v)) if v.shape[0] <= SORTED_UP_TO else threshold_by_newton(v)
    return lax.max(v - threshold, jnp.zeros_like(v))


@project_simplex.defjvp
def _project_simplex_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    projected = project_simplex(*primals)
    return projected, along_simplex(projected, *tangents)


def along_simplex(projected: Array, direction: Array, axis: int = 0) -> Array:
    """Derivative of the projection in a ``direction``, where it gave ``projected``; vectors lie along ``axis``."""
    # A choice, not a product with zeros and ones: of their sum XLA:CPU (jax 0.10) makes wrong code under vmap.
    support = projected > 0
    return jnp.where(support, direction - along_threshold(support, direction, axis), 0)


def along_threshold(support: Array, direction: Array, axis: int = 0) -> Array:
    """Derivative of the threshold in a ``direction``; ``axis`` is kept, with length 1.

    Σ over the support of (v_i - θ) = 1, so dθ is the mean of dv over the support, which is never empty.
    """
    size = jnp.maximum(support.sum(axis, keepdims=True), 1).astype(direction.dtype)
    return jnp.where(support, direction, 0).sum(axis, keepdims=True) / size


def threshold_by_sorting(entries: Sequence[Array]) -> Array:
    """θ with ``Σ max(v_i - θ, 0) = 1``, elementwise over k arrays of one shape."""
    v = list(entries)
    for i, j in _sorting_network(len(v)):
        v[i], v[j] = _maximum(v[i], v[j]), _minimum(v[i], v[j])
    # Relative to the largest entry, so that nothing is lost to rounding when all entries are large.
    largest, partial, best = v[0], jnp.zeros_like(v[0]), jnp.full_like(v[0], -1)
    for count, value in enumerate(v[1:], start=2):
        partial = partial + (value - largest)
        best = _maximum(best, (partial - 1) * (1 / count))
    return largest + best


def _maximum(x: Array, y: Array) -> Array:
    """x where x > y, else y: one x86 instruction where ``lax.max`` takes three, two of them for NaN.

    Of a NaN and a number the second is taken; with :func:`_minimum`, which takes the first, none of two is lost.
    """
    return lax.select(lax.gt(x, y), x, y)


def _minimum(x: Array, y: Array) -> Array:
    """y where x > y, else x."""
    return lax.select(lax.gt(x, y), y, x)


def threshold_by_newton(v: Array, axis: int = 0) -> Array:
    """θ with ``Σ max(v_i - θ, 0) = 1`` of all vectors along ``axis``."""
    largest = v.max(axis, keepdims=True)
    v = v - largest

    def improve(threshold: Array) -> Array:
        support = v > threshold
        # The largest entry, now 0, stays in the support: θ < 0, even when rounding says otherwise.
        return (jnp.where(support, v, 0).sum(axis, keepdims=True) - 1) / jnp.maximum(
            support.sum(axis, keepdims=True), 1
        ).astype(v.dtype)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, moved, count = carry
        return moved & (count <= v.shape[axis])

    def advance(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        threshold, _, count = carry
        better = improve(threshold)
        return jnp.maximum(better, threshold), jnp.any(better > threshold), count + 1

    # θ ≥ max - 1, attained when one entry takes all: below it no entry can be in the support.
    start = improve(jnp.full_like(largest, -1))
    least = lax.while_loop(unfinished, advance, (start, jnp.array(True), jnp.array(0)))[0]
    return jnp.squeeze(largest + least, axis)


def _sorting_network(size: int) -> list[tuple[int, int]]:
    """Comparators (i, j), i < j, that sort ``size`` entries: Batcher's odd-even merge sort (1968)."""
    pairs = []
    width = 1
    while width < size:
        step = width
        while step >= 1:
            for first in range(step % width, size - step, 2 * step):
                for i in range(first, min(first + step, size - step)):
                    if i // (2 * width) == (i + step) // (2 * width):
                        pairs.append((i, i + step))
            step //= 2
        width *= 2
    return pairs
