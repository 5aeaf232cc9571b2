"""Projection of one vector onto the probability simplex Δ = {w ≥ 0, Σ w_i = 1}; callers vmap it over pixels.

The projection is ``max(v - θ, 0)`` with one threshold θ per vector (Duchi et al. 2008, Chen & Ye 2011), and with
the entries in decreasing order ``θ = max_j (v_1 + … + v_j - 1) / j``. Two ways to θ, the same result:

* up to ``SORTED_UP_TO`` entries, a sorting network of minima and maxima: no branch, no loop, and over whole planes
  nothing but elementwise operations;
* beyond, Newton's method (Michelot 1986) ``θ ← (Σ_{v_i > θ} v_i - 1) / #{v_i > θ}``, which increases to θ in finitely
  many steps: the program stays small at any k.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcolor.coupled_tv.trees import Planes

SORTED_UP_TO = 16
"""Longest vector that is sorted by a network: 60 comparators at 16, and compile time grows with their number."""


def project_simplex(v: Array) -> Array:
    """The point of the simplex nearest to one vector ``v`` ``[k]``, k ≥ 1; ``jax.vmap`` it for more.

    Exact up to rounding. Derivatives in both modes are those of the projection, ``dw = dv - mean(dv over the
    support)`` on the support and 0 off it, and do not pass through the search for the threshold.

    >>> [round(float(w), 3) for w in project_simplex(jnp.array([0.5, 0.9, -3.0]))]
    [0.3, 0.7, 0.0]
    """
    # The projection does not change when all entries shift; near 0 nothing is lost to rounding.
    v = v - lax.stop_gradient(v.max())
    entries: Planes = tuple(v) if v.shape[0] <= SORTED_UP_TO else v
    return jax.nn.relu(v - simplex_threshold(entries))


@jax.custom_jvp
def simplex_threshold(entries: Planes) -> Array:
    """θ with ``Σ max(v_i - θ, 0) = 1``, elementwise over ``entries``.

    ``entries`` is a tuple of k arrays of one shape (the sorting network) or one array ``[k, ...]`` (Newton's method).
    """
    if isinstance(entries, tuple):
        return _threshold_by_sorting(entries)
    return _threshold_by_newton(jnp.asarray(entries))


@simplex_threshold.defjvp
def _simplex_threshold_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Array, Array]:
    # Σ over the support of (v_i - θ) = 1, so dθ is the mean of dv over the support, which is never empty.
    (entries,), (moved,) = primals, tangents
    threshold = simplex_threshold(entries)
    if isinstance(entries, tuple):
        shares = [(v > threshold).astype(threshold.dtype) for v in entries]
        slope = sum((s * dv for s, dv in zip(shares, moved, strict=True)), jnp.zeros_like(threshold))
        return threshold, slope / jnp.maximum(sum(shares), 1)
    support = (entries > threshold).astype(threshold.dtype)
    return threshold, (support * moved).sum(0) / jnp.maximum(support.sum(0), 1)


def _threshold_by_sorting(entries: tuple[Array, ...]) -> Array:
    v = list(entries)
    for i, j in _sorting_network(len(v)):
        v[i], v[j] = jnp.maximum(v[i], v[j]), jnp.minimum(v[i], v[j])
    # Relative to the largest entry, so that nothing is lost to rounding when all entries are large.
    largest, partial, best = v[0], jnp.zeros_like(v[0]), jnp.full_like(v[0], -1)
    for count, value in enumerate(v[1:], start=2):
        partial = partial + (value - largest)
        best = jnp.maximum(best, (partial - 1) * (1 / count))
    return largest + best


def _threshold_by_newton(v: Array) -> Array:
    largest = v.max(0)
    v = v - largest

    def improve(threshold: Array) -> Array:
        support = v > threshold
        # The largest entry, now 0, stays in the support: θ < 0, even when rounding says otherwise.
        return (jnp.where(support, v, 0).sum(0) - 1) / jnp.maximum(support.sum(0), 1).astype(v.dtype)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, moved, count = carry
        return moved & (count <= v.shape[0])

    def advance(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        threshold, _, count = carry
        better = improve(threshold)
        return jnp.maximum(better, threshold), jnp.any(better > threshold), count + 1

    # θ ≥ max - 1, attained when one entry takes all: below it no entry can be in the support.
    start = improve(jnp.full_like(largest, -1))
    return largest + lax.while_loop(unfinished, advance, (start, jnp.array(True), jnp.array(0)))[0]


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
