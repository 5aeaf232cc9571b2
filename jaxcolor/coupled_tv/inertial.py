"""Inertial forward-backward algorithm for the smoothed coupled-TV problem (derived)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from jaxcolor.coupled_tv.checks import check_step
from jaxcolor.coupled_tv.operators import (
    Extent,
    Pair,
    computed_once,
    divergence_of_inner,
    edge_strength,
    gradient,
    inside,
    metric,
    total,
)
from jaxcolor.coupled_tv.problem import CoupledTVProblem
from jaxcolor.coupled_tv.weights import descend, weighted_mean, with_weights_kept
from jaxcolor.trees import Number, Planes, register


@dataclass(frozen=True)
class InertialState:
    """u^k and u^{k-1} (pairs of planes), w^k and w^{k-1} (``[H, k, W]``)."""

    chroma: Pair
    previous_chroma: Pair
    weights: Planes
    previous_weights: Planes

    def with_weights(self, weights: Planes) -> "InertialState":
        """The same state with other weights, at rest, which may be of another number."""
        return replace(self, weights=weights, previous_weights=weights)


register(InertialState, ("chroma", "previous_chroma", "weights", "previous_weights"))


@dataclass(frozen=True)
class InertialForwardBackward:
    """Inertial structure-adapted alternating forward-backward iteration. **Derived** for this project.

    Mouzon et al. 2019 finish with algorithm 2 of Tan, Pierre, Nikolova 2019, a block-coordinate forward-backward scheme
    on a smoothed total variation. Its text was not available: smoothing, metric, inertia, step sizes and order here
    are our own, so this is not that algorithm and none of its numbers are quoted.

    With ``F(u) = Σ sqrt(a² + |∇u|²)``, ``a² = ε² + γ|∇Y|²`` and one metric value l(x) per pixel, the row sums of
    |∇ᵀ diag(1/a) ∇|, which bound the Hessian of F:

        v ← u + α (u - u⁻)
        u⁺ = P_R((l v - ∇F(v) + λ Σ_i w_i c_i) / (l + λ))
        q ← w + β (w - w⁻)
        w⁺ = P_Δ(q - ρ·(λ/2)·(‖u⁺ - c_i‖²)_i)

    The Lyapunov function :meth:`lyapunov` decreases at every step for α ≤ 1, β < 1 and any ρ > 0
    (``tests/test_coupled_tv_solvers.py`` checks it), and limits are critical points. Natural images have
    a ≫ ε nearly everywhere, so the metric moves much farther than the global step ε/8.

    Args:
        smoothing: ε > 0, in Lab units per pixel.
        inertia: α in [0, 1].
        weight_inertia: β in [0, 1); it changes which critical point is reached.
        weight_step: ρ ≥ 0, or None, as in :class:`PrimalDual`; 0 and None keep the weights.

    Raises :class:`InputError` for numbers outside their range. Numbers are pytree leaves. ``solve`` with k = 10 in
    float32 takes at most 352 bytes a pixel in all on XLA:CPU. The defaults of ε, α and β were not tuned; ρ is that of
    ``PrimalDual``.
    """

    smoothing: Number = 0.5
    inertia: Number = 0.9
    weight_inertia: Number = 0.0
    weight_step: Number | None = 1.8e-4

    reach: ClassVar[int] = 1
    """A step looks at neighbours no farther than this; see :mod:`jaxcolor.coupled_tv.tiles`."""

    def __post_init__(self) -> None:
        check_step("smoothing", self.smoothing, above=0)
        check_step("inertia", self.inertia, below=1 + 1e-6)
        check_step("weight_inertia", self.weight_inertia, below=1)
        if self.weight_step is not None:
            check_step("weight_step", self.weight_step)

    def specialised(self) -> "InertialForwardBackward":
        """What :func:`~jaxcolor.coupled_tv.solve.solve` compiles: see ``weight_step``."""
        return with_weights_kept(self)

    def init(self, problem: CoupledTVProblem, start: Any = None) -> InertialState:
        """The state before the first step, at rest: from the problem's weights, or from a state of any solver."""
        if start is None:
            chroma, weights = problem.start(), problem.weight_planes
        else:
            chroma, weights = start.chroma, start.weights
        return InertialState(chroma, chroma, weights, weights)

    def step(self, problem: CoupledTVProblem, state: InertialState) -> InertialState:
        """One iteration. Pure; keeps every shape and dtype."""
        fidelity = problem.fidelity
        strength = self._strength(problem)
        ahead = tuple(u + self.inertia * (u - old) for u, old in zip(state.chroma, state.previous_chroma, strict=True))
        slopes = _total_variation_gradient(ahead, strength, problem.extent)  # type: ignore[arg-type]
        local = metric(strength, problem.extent)
        if self.weight_step is None:
            # The same at every step, and outside a conditional, from where XLA takes it out of the loop.
            mean = weighted_mean(state.weights, problem.candidate_planes)
        else:
            mean = computed_once(weighted_mean, state.weights, problem.candidate_planes)
        moved = (
            (local * v - slope + fidelity * m) / (local + fidelity)
            for v, slope, m in zip(ahead, slopes, mean, strict=True)
        )
        new = problem.project(tuple(moved))  # type: ignore[arg-type]
        if self.weight_step is None:
            return InertialState(new, state.chroma, state.weights, state.weights)
        extrapolated = state.weights + self.weight_inertia * (state.weights - state.previous_weights)
        amount = self.weight_step * (fidelity / 2)
        weights = descend(extrapolated, new, problem.candidate_planes, amount).weights()
        return InertialState(new, state.chroma, weights, state.weights)

    def energy(self, problem: CoupledTVProblem, state: InertialState) -> Array:
        """What this solver minimises, a scalar: the energy with the smoothed total variation."""
        return problem.energy_of_planes(state.chroma, state.weights, self.smoothing)

    def lyapunov(self, problem: CoupledTVProblem, state: InertialState) -> Array:
        """``J(u, w) + Σ_x c_u(x)|u - u⁻|² + c_w Σ_x |w - w⁻|²``, a scalar that never increases.

        c_u = (l (1 + α²) + λ) / 4 and c_w = 1 / (2ρ), the middle of the admissible intervals lα²/2 … (l + λ)/2 and
        β/(2ρ) … (1 - β/2)/ρ. Derived. For ρ = 0 the weights rest and their term is 0.
        """
        local = metric(self._strength(problem), problem.extent)
        factor = (local * (1 + jnp.square(self.inertia)) + problem.fidelity) / 4
        (u, v), (u_old, v_old) = state.chroma, state.previous_chroma
        image = inside(problem.shape, problem.extent)
        kinetic = total(jnp.where(image, factor * ((u - u_old) ** 2 + (v - v_old) ** 2), 0))
        moved = total(jnp.where(image, jnp.square(state.weights - state.previous_weights).sum(-2), 0))
        step = jnp.asarray(0 if self.weight_step is None else self.weight_step, moved.dtype)
        return (
            self.energy(problem, state) + kinetic + jnp.where(step > 0, moved / (2 * jnp.where(step > 0, step, 1)), 0)
        )

    def change(self, state: InertialState) -> Pair:
        """``u^n - u^{n-1}``, two planes, zero at the start."""
        return tuple(u - old for u, old in zip(state.chroma, state.previous_chroma, strict=True))  # type: ignore[return-value]

    def _strength(self, problem: CoupledTVProblem) -> Array:
        return edge_strength(problem.luminance, problem.coupling, self.smoothing, problem.extent)


register(InertialForwardBackward, ("smoothing", "inertia", "weight_inertia", "weight_step"))


def _total_variation_gradient(chroma: Pair, strength: Array, extent: Extent) -> Pair:
    """``∇F(u) = -div(∇u / sqrt(a² + |∇u|²))``, two planes; the denominator is shared."""

    def steepness(chroma: Pair, strength: Array) -> Array:
        (ux, uy), (vx, vy) = gradient(chroma[0], extent), gradient(chroma[1], extent)
        return lax.rsqrt(strength * strength + ux * ux + uy * uy + vx * vx + vy * vy)

    scale = computed_once(steepness, chroma, strength)

    def slope(plane: Array) -> Array:
        x, y = gradient(plane, extent)
        return -divergence_of_inner(x * scale, y * scale)

    return slope(chroma[0]), slope(chroma[1])
