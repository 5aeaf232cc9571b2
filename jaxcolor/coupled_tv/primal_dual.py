"""The primal-dual algorithm for the coupled-TV problem."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxcolor.coupled_tv.checks import check_step
from jaxcolor.coupled_tv.operators import (
    GRADIENT_NORM_SQUARED,
    Pair,
    computed_once,
    divergence_of_inner,
    edge_strength,
    gradient,
)
from jaxcolor.coupled_tv.problem import CoupledTVProblem
from jaxcolor.coupled_tv.weights import Projected, descend, weighted_mean, with_weights_kept
from jaxcolor.errors import InputError
from jaxcolor.trees import Number, Plane, Planes, is_number, register


@dataclass(frozen=True)
class PrimalDualState:
    """What one iteration hands to the next; all planes ``[H, W]``.

    ``chroma`` u = (U, V); ``extrapolated`` ū; ``projected`` w, see :class:`~jaxcolor.coupled_tv.weights.Projected`;
    ``dual`` p, five planes: one for luminance, two for ∇U, two for ∇V. With relaxation |p| may exceed 1, and u is what
    the last prox gave.
    """

    chroma: Pair
    extrapolated: Pair
    projected: Projected
    dual: tuple[Plane, ...]

    @property
    def weights(self) -> Planes:
        """w ``[H, k, W]``."""
        return self.projected.weights()

    def with_weights(self, weights: Planes) -> "PrimalDualState":
        """The same state with other weights, which may be of another number."""
        return replace(self, projected=Projected.of(weights))


register(PrimalDualState, ("chroma", "extrapolated", "projected", "dual"))


@dataclass(frozen=True)
class PrimalDual:
    """Chambolle-Pock iteration with an alternating step on the weights, in the order p, w, u, ū:

        p ← P_B(p + σ (√γ∇Y, ∇ū))                        B: norm over all components together ≤ 1 at each pixel
        w ← P_Δ(w - ρ·(λ/2)·(‖ū - c_i‖²)_i)
        u⁺ = P_R((u + τ div p + τλ Σ_i w_i c_i) / (1 + τλ))      the exact prox, R included
        ū ← 2u⁺ - u

    with ``relaxation`` r ≠ 1 followed by p ← p⁻ + r (p - p⁻) before, and by u ← u + r (u⁺ - u) after the step on u.

    Source: formulas and order as in a public implementation of Pierre et al. 2015, the solver of Mouzon et al. 2019;
    reconstructed, the paper's own text was not available. For fixed w (ρ = 0) it is Chambolle & Pock 2011, algorithm 1,
    and converges for τσ‖∇‖² ≤ 1; with the w step no proof is known (Mouzon et al. say so).

    Derived: p starts at 0 and its luminance part moves along ∇Y only, so one dual variable along that
    direction replaces two, with a = √γ|∇Y| as its data, and every iterate is the same. With ``smoothing`` ε the data is
    a = sqrt(ε² + γ|∇Y|²): the dual prox is still exact and the energy is that of the smoothed total variation.

    Args:
        dual_step: σ > 0.
        primal_step: τ > 0, with 8στ ≤ 1. The bound does not depend on γ, an offset.
            The default pair 1/32 and 4 lies between the two best of eight tried (τ from 1.25 to 200, 8στ = 1; τ = 2.5
            and 5) on one photo and the two-region image, weights fixed; τ = 100 needed about ten times the steps.
        weight_step: ρ ≥ 0. It decides the result: a small one keeps the dominant colors of the distribution, a large
            one snaps to the candidate nearest to the mean. 0 keeps the weights. So does None, which is part of the
            program, so that no step looks at a candidate: with k = 10 one at 256² takes a third of the time on
            two cores. ``solve`` takes None for a 0 that is known.
        relaxation: r in (0, 2), how far p and u go along each step; 1 is the published iteration. For fixed weights it
            converges for any (He and Yuan 2012; Condat 2013, algorithm 3.1). Where λ is small a large one reaches the
            same energy in fewer steps; where few steps suffice, a small duality gap takes it more (README, "Speed").
            It does not move the weights faster, so that a number of steps means the same.
        smoothing: ε ≥ 0 in Lab units per pixel; 0 is the total variation itself.

    Raises:
        InputError: a step that is not a finite number in its range, or 8στ > 1.

    The numbers are pytree leaves: a new one never recompiles.
    ``solve`` with k = 10 in float32 takes 304 bytes a pixel in all: problem 124, state 80, temporaries 100 (XLA:CPU).

    >>> PrimalDual(dual_step=0.01, primal_step=12.5).weight_step > 0
    True
    """

    dual_step: Number = 0.03125
    primal_step: Number = 4.0
    weight_step: Number | None = 1.8e-4
    smoothing: Number = 0.0
    relaxation: Number = 1.0

    reach: ClassVar[int] = 1
    """A step looks at neighbours no farther than this; see :mod:`jaxcolor.coupled_tv.tiles`."""

    def __post_init__(self) -> None:
        check_step("dual_step", self.dual_step, above=0)
        check_step("primal_step", self.primal_step, above=0)
        if self.weight_step is not None:
            check_step("weight_step", self.weight_step)
        check_step("smoothing", self.smoothing)
        check_step("relaxation", self.relaxation, above=0, below=2)
        if is_number(self.dual_step) and is_number(self.primal_step):
            sigma, tau = float(self.dual_step), float(self.primal_step)
            product = GRADIENT_NORM_SQUARED * sigma * tau
            if product > 1 + 1e-6:
                raise InputError(
                    f"8 · dual_step · primal_step must be at most 1 for convergence, got 8 · {sigma:g} · {tau:g} = "
                    f"{product:.4g}; lower one of them"
                )

    def specialised(self) -> "PrimalDual":
        """What :func:`~jaxcolor.coupled_tv.solve.solve` compiles: see ``weight_step``."""
        return with_weights_kept(self)

    def init(self, problem: CoupledTVProblem, start: Any = None) -> PrimalDualState:
        """The state before the first step: p = 0, ū = u.

        u = Σ w_i c_i and w = the problem's weights, or both from ``start``, a state of any solver.
        """
        if start is None:
            chroma, weights = problem.start(), problem.weight_planes
        else:
            chroma, weights = start.chroma, start.weights
        dual = (jnp.zeros_like(problem.luminance),) * 5
        return PrimalDualState(chroma, chroma, Projected.of(weights), dual)

    def step(self, problem: CoupledTVProblem, state: PrimalDualState) -> PrimalDualState:
        """One iteration. Pure; keeps every shape and dtype."""
        tau, fidelity = self.primal_step, problem.fidelity
        dual = self._ascend(problem, state)

        def proximal(chroma: Pair, dual: tuple[Plane, ...], mean: Pair, problem: CoupledTVProblem) -> Pair:
            new = (
                (u + tau * divergence_of_inner(x, y) + tau * fidelity * m) / (1 + tau * fidelity)
                for u, x, y, m in zip(chroma, dual[1::2], dual[2::2], mean, strict=True)
            )
            return problem.project(tuple(new))  # type: ignore[arg-type]

        def toward_mean(chroma: Pair, dual: tuple[Plane, ...], projected: Projected, problem: CoupledTVProblem) -> Pair:
            return proximal(chroma, dual, weighted_mean(projected.weights(), problem.candidate_planes), problem)

        start = self._relaxed(state)
        if self.weight_step is None:
            projected = state.projected
            # The same at every step, and outside the conditional, from where XLA takes it out of the loop.
            mean = weighted_mean(projected.weights(), problem.candidate_planes)
            new = computed_once(proximal, start, dual, mean, problem)
        else:
            amount = self.weight_step * (fidelity / 2)
            projected = descend(state.weights, state.extrapolated, problem.candidate_planes, amount)
            new = computed_once(toward_mean, start, dual, projected, problem)
        ahead = tuple(2 * n - u for n, u in zip(new, start, strict=True))
        return PrimalDualState(new, ahead, projected, dual)

    def _relaxed(self, state: PrimalDualState) -> Pair:
        """Where the next step on u begins: r times as far as the last one went, from where that began, 2u - ū."""
        r = self.relaxation
        return tuple((2 - r) * u - (1 - r) * e for u, e in zip(state.chroma, state.extrapolated, strict=True))  # type: ignore[return-value]

    def _ascend(self, problem: CoupledTVProblem, state: PrimalDualState) -> tuple[Plane, ...]:
        """p ← (1 - r) p + r P_B(p + σ (a, ∇ū)); zero where there is no neighbour to take a difference with."""
        r, sigma, extent = self.relaxation, self.dual_step, problem.extent
        strength = edge_strength(problem.luminance, problem.coupling, self.smoothing, extent)

        def moved(dual: tuple[Plane, ...], chroma: Pair, strength: Array) -> tuple[Plane, ...]:
            slopes = (strength, *gradient(chroma[0], extent), *gradient(chroma[1], extent))
            return tuple(p + sigma * s for p, s in zip(dual, slopes, strict=True))

        def shrinkage(*operands: Any) -> Array:
            first, *rest = (p * p for p in moved(*operands))
            return jax.lax.rsqrt(jnp.maximum(sum(rest, start=first), 1))

        operands = (state.dual, state.extrapolated, strength)
        scale = computed_once(shrinkage, *operands)
        return tuple((1 - r) * p + r * (m * scale) for p, m in zip(state.dual, moved(*operands), strict=True))

    def energy(self, problem: CoupledTVProblem, state: PrimalDualState) -> Array:
        """What this solver minimises, a scalar: the problem's energy, with its own smoothing."""
        return problem.energy_of_planes(state.chroma, state.weights, self.smoothing)

    def change(self, state: PrimalDualState) -> Pair:
        """``u^n - u^{n-1}``, two planes, zero at the start; with relaxation from where the step began."""
        return tuple(e - u for e, u in zip(state.extrapolated, state.chroma, strict=True))  # type: ignore[return-value]


register(PrimalDual, ("dual_step", "primal_step", "weight_step", "smoothing", "relaxation"))
