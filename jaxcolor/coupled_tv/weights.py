"""What every solver does with the weights w and the candidates c of all pixels.

Both are :data:`~jaxcolor.trees.Planes` ``[..., H, k, W]``. Sums over few candidates are written layer by
layer, which XLA:CPU compiles to one vectorised pass where a reduction is not one. Derivatives are written for
the whole array: the derivative of cutting out one layer would be an array of zeros around it, k times.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxcolor.coupled_tv.operators import Pair, computed_once
from jaxcolor.coupled_tv.simplex import SORTED_UP_TO, along_threshold, threshold_by_newton, threshold_by_sorting
from jaxcolor.trees import Number, Plane, Planes, is_number, register


def split(values: Array) -> Planes:
    """``[..., H, W, k]`` as planes."""
    return jnp.swapaxes(values, -1, -2)


def join(planes: Planes) -> Array:
    """The array ``[..., H, W, k]`` of planes, the inverse of :func:`split`."""
    return jnp.swapaxes(planes, -1, -2)


def weighted_mean(weights: Planes, candidates: tuple[Planes, Planes]) -> Pair:
    """``Σ_i w_i c_i``, two planes."""
    return _sum_of_products(weights, candidates[0]), _sum_of_products(weights, candidates[1])


def spread(chroma: Pair, weights: Planes, candidates: tuple[Planes, Planes]) -> Array:
    """``Σ_i w_i ‖u - c_i‖²``, one plane: the data term without λ/2."""
    u, v = (plane[..., None, :] for plane in chroma)
    return _sum_of_products(weights, (u - candidates[0]) ** 2 + (v - candidates[1]) ** 2)


@dataclass(frozen=True)
class Projected:
    """Weights ``w = max(v - θ, 0)``, kept as v, ``vectors`` ``[..., H, k, W]``, and θ, ``threshold`` ``[..., H, W]``.

    A solver that keeps these, and lets whoever needs w compute it, writes k + 1 planes and reads v once more for θ;
    writing w would mean to compute v twice, from everything that it depends on, or to read and write it once more.
    """

    vectors: Planes
    threshold: Plane

    @classmethod
    def of(cls, weights: Planes) -> "Projected":
        """Weights that lie on the simplex already."""
        return cls(weights, jnp.zeros_like(weights[..., 0, :]))

    def weights(self) -> Planes:
        """w, on the simplex."""
        above = self.vectors - self.threshold[..., None, :]
        # Where v = θ derivatives are those of v - θ: weights from outside, with θ = 0, have their own also where they
        # are 0. So that NaN stays, it is asked what lies below.
        return jnp.where(above < 0, 0, above)


register(Projected, ("vectors", "threshold"))


def descend(weights: Planes, chroma: Pair, candidates: tuple[Planes, Planes], amount: Number) -> Projected:
    """``w ← P_Δ(w - amount·(‖u - c_i‖²)_i)``. One weight is always 1."""
    if weights.shape[-2] == 1:
        return Projected.of(jnp.ones_like(weights))
    u, v = (plane[..., None, :] for plane in chroma)
    moved = weights - amount * ((u - candidates[0]) ** 2 + (v - candidates[1]) ** 2)
    return Projected(moved, computed_once(_threshold, moved))


def with_weights_kept(solver: Any) -> Any:
    """The same solver, whose ``weight_step`` is None if it is known to be 0, so that no step looks at a candidate."""
    step = solver.weight_step
    return replace(solver, weight_step=None) if is_number(step) and float(step) == 0 else solver


@jax.custom_jvp
def _threshold(vectors: Planes) -> Plane:
    """θ with ``Σ_i max(v_i - θ, 0) = 1``."""
    if vectors.shape[-2] > SORTED_UP_TO:
        return threshold_by_newton(vectors, axis=-2)
    return threshold_by_sorting([layer[..., 0, :] for layer in _layers(vectors)])


@_threshold.defjvp
def _threshold_jvp(primals: tuple[Planes], tangents: tuple[Planes]) -> tuple[Plane, Plane]:
    (vectors,), (direction,) = primals, tangents
    threshold = _threshold(vectors)
    return threshold, along_threshold(vectors >= threshold[..., None, :], direction, axis=-2)[..., 0, :]


@jax.custom_jvp
def _sum_of_products(first: Planes, second: Planes) -> Array:
    if first.shape[-2] > SORTED_UP_TO:
        return (first * second).sum(-2)
    products = [(p * q)[..., 0, :] for p, q in zip(_layers(first), _layers(second), strict=True)]
    return sum(products[1:], start=products[0])


@_sum_of_products.defjvp
def _sum_of_products_jvp(primals: tuple[Planes, Planes], tangents: tuple[Planes, Planes]) -> tuple[Array, Array]:
    (p, q), (dp, dq) = primals, tangents
    return _sum_of_products(p, q), (dp * q + p * dq).sum(-2)


def _layers(planes: Planes) -> list[Planes]:
    """The k layers, each still with its axis of length 1."""
    return [planes[..., i : i + 1, :] for i in range(planes.shape[-2])]
