"""What every solver does with the weights w and the candidates c of all pixels, for few and for many candidates.

Up to ``SORTED_UP_TO`` candidates each w_i is a plane of its own: XLA:CPU is several times slower when they are
stacked, because every write to a part of an array is a copy. Beyond that, one array ``[k, H, W]`` keeps
programs and compile times small at any k.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxcolor.coupled_tv.operators import Pair, computed_once
from jaxcolor.coupled_tv.simplex import SORTED_UP_TO, simplex_threshold
from jaxcolor.coupled_tv.trees import Number, Planes


def split(values: Array) -> Planes:
    """``[H, W, k]`` as k planes."""
    count = values.shape[-1]
    if count <= SORTED_UP_TO:
        return tuple(values[..., i] for i in range(count))
    return jnp.moveaxis(values, -1, -3)


def join(planes: Planes) -> Array:
    """The array ``[H, W, k]`` of k planes, the inverse of :func:`split`."""
    return jnp.stack(planes, -1) if isinstance(planes, tuple) else jnp.moveaxis(planes, -3, -1)


def weighted_mean(weights: Planes, candidates: tuple[Planes, Planes]) -> Pair:
    """``Σ_i w_i c_i``, two planes."""
    return _sum(_each(jnp.multiply, weights, candidates[0])), _sum(_each(jnp.multiply, weights, candidates[1]))


def spread(chroma: Pair, weights: Planes, candidates: tuple[Planes, Planes]) -> Array:
    """``Σ_i w_i ‖u - c_i‖²``, one plane: the data term without λ/2."""
    u, v = chroma
    return _sum(_each(lambda w, a, b: w * ((u - a) ** 2 + (v - b) ** 2), weights, *candidates))


def descend(
    weights: Planes, chroma: Pair, candidates: tuple[Planes, Planes], amount: Number, always: Array
) -> tuple[Planes, Pair]:
    """``w ← P_Δ(w - amount·(‖u - c_i‖²)_i)``; returns the new weights and their ``Σ_i w_i c_i``.

    ``always`` is a true value unknown at compile time, see :func:`computed_once`. The mean is returned along
    because the pass that finds the threshold has all that it needs at hand.
    """

    def moved(weights: Planes, chroma: Pair) -> Planes:
        u, v = chroma
        return _each(lambda w, a, b: w - amount * ((u - a) ** 2 + (v - b) ** 2), weights, *candidates)

    def project(values: Planes, threshold: Array) -> Planes:
        return _each(lambda value: jax.nn.relu(value - threshold), values)

    def threshold_and_mean(weights: Planes, chroma: Pair) -> tuple[Array, Array, Array]:
        values = moved(weights, chroma)
        threshold = simplex_threshold(values)
        return threshold, *weighted_mean(project(values, threshold), candidates)

    threshold, a, b = computed_once(always, threshold_and_mean, weights, chroma)
    return project(moved(weights, chroma), threshold), (a, b)


def extrapolate(new: Planes, old: Planes, inertia: Number) -> Planes:
    """``new + inertia (new - old)``."""
    return _each(lambda n, o: n + inertia * (n - o), new, old)


def squared_distance(first: Planes, second: Planes) -> Array:
    """``Σ_i (first_i - second_i)²``, one plane."""
    return _sum(_each(lambda p, q: (p - q) ** 2, first, second))


def _each(function: Callable[..., Array], *planes: Planes) -> Planes:
    """An elementwise ``function`` of the i-th planes, for every i."""
    if isinstance(planes[0], tuple):
        return tuple(function(*row) for row in zip(*planes, strict=True))
    return function(*planes)


def _sum(planes: Planes) -> Array:
    return sum(planes[1:], start=planes[0]) if isinstance(planes, tuple) else planes.sum(-3)
