"""Seconds to an energy: on the convex problem with fixed weights, and to rest on the full problem.

With fixed weights the energy P(u) has a dual, so the optimum is known to lie between P of the best u and D of the best
dual variable. For w moving along there is no dual, and the flow of the weights goes on for long after the picture is
done; what can be timed is when the picture comes to rest, and the energy then stands beside it.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcolor.coupled_tv as ctv
from jaxcolor.coupled_tv.operators import divergence, edge_strength

from .solver import GAMMA, LAM, RHO, SIGMA, TAU, instance, scico_pdhg
from .timing import Table, Timing

TARGETS = (1e-3, 1e-4)
REPETITIONS = 3
Curve = list[tuple[float, float]]


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """Seconds to a relative distance to the optimum; then seconds to rest."""
    size = 48 if quick else 256
    yield from to_optimum(size, 400 if quick else 4000, peers)
    yield to_rest(size, 200 if quick else 4000)


def solvers(weight_step: float) -> dict[str, Any]:
    """Ours, with and without moving weights."""
    changes = {} if weight_step else {"weight_step": 0.0}
    return {
        "primal-dual": ctv.PrimalDual(SIGMA, TAU, weight_step),
        "primal-dual, τ = 1": ctv.PrimalDual(1 / 8, 1.0, weight_step),
        "inertial, ε = 0.5": ctv.InertialForwardBackward(**changes),
        "inertial, ε = 0.05": ctv.InertialForwardBackward(smoothing=0.05, **changes),
    }


def convex_problem(size: int) -> tuple[ctv.CoupledTVProblem, np.ndarray, np.ndarray]:
    """The problem whose one candidate is the mean of an instance's; its luminance, its mean."""
    luminance, candidates, weights = instance(size, 10)
    mean = np.einsum("hwk,hwkc->hwc", weights, candidates)
    return (
        ctv.CoupledTVProblem(luminance, mean[:, :, None], np.ones((size, size, 1)), LAM, GAMMA),
        luminance,
        mean,
    )


def to_optimum(size: int, longest: int, peers: bool) -> Iterator[Table]:
    """One table for each target; a solver that does not get there is named in a note, with how near it came."""
    problem, luminance, mean = convex_problem(size)
    optimum, gap = certified_optimum(problem, 5 * longest)
    curves: dict[str, Curve] = {}
    for name, solver in solvers(0.0).items():
        curves[f"jaxcolor {name}"] = curve(problem, solver, longest, TARGETS[-1] * optimum + optimum)
    about = [f"the optimum is known to {gap:.1e}"]
    if peers:
        try:
            curves["scico PDHG"] = scico_curve(problem, luminance, mean, optimum, min(longest, 800))
        except ImportError:
            about.append("scico is not installed: its row is left out")
    for target in TARGETS:
        rows, notes = {}, list(about)
        for name, points in curves.items():
            reached = [seconds for seconds, energy in points if energy <= (1 + target) * optimum]
            if reached:
                rows[name] = Timing(reached[0], reached[0], reached[0])
            else:
                nearest = min(energy for _, energy in points) / optimum - 1
                notes.append(f"{name} came to {nearest:.1e} in {points[-1][0]:.1f} s")
        title = f"fixed weights, {size}²: seconds to a relative distance of {target:g} to the optimum"
        yield Table(title, rows, "jaxcolor primal-dual", unit="s", notes=notes)


def certified_optimum(problem: ctv.CoupledTVProblem, steps: int) -> tuple[float, float]:
    """The energy after very many steps, and its relative duality gap, in float64 NumPy."""
    state = ctv.solve(problem, ctv.PrimalDual(SIGMA, TAU, 0.0), steps).state
    primal = energy_of(problem, np.stack(state.chroma, -1))
    return primal, (primal - dual_energy(problem, state.dual)) / primal


def energy_of(problem: ctv.CoupledTVProblem, chroma: np.ndarray) -> float:
    """P(u) = Σ sqrt(γ|∇Y|² + |∇U|² + |∇V|²) + λ/2 Σ |u - c|², in float64."""

    def slopes(plane: np.ndarray) -> np.ndarray:
        right, below = np.zeros_like(plane), np.zeros_like(plane)
        right[:, :-1], below[:-1] = np.diff(plane, axis=1), np.diff(plane, axis=0)
        return right**2 + below**2

    y, (u, v) = (np.asarray(x, np.float64) for x in (problem.luminance, np.moveaxis(np.asarray(chroma), -1, 0)))
    mean = np.asarray(problem.mean(), np.float64)
    variation = np.sqrt(GAMMA * slopes(y) + slopes(u) + slopes(v)).sum()
    return float(variation + LAM / 2 * ((chroma - mean) ** 2).sum())


def dual_energy(problem: ctv.CoupledTVProblem, dual: tuple[Any, ...]) -> float:
    """D(p) = Σ p₀ a - <div p, c> - |div p|² / 2λ, a lower bound of P for |p| ≤ 1; p₀ lies along ∇Y."""
    with jax.enable_x64(True):
        planes = [jnp.asarray(np.asarray(p), jnp.float64) for p in dual]
        norm = jnp.maximum(jnp.sqrt(sum(p * p for p in planes)), 1)
        planes = [p / norm for p in planes]
        strength = edge_strength(jnp.asarray(np.asarray(problem.luminance), jnp.float64), GAMMA, 0.0)
        value = (planes[0] * strength).sum()
        mean = np.asarray(problem.mean(), np.float64)
        for channel, (x, y) in enumerate((planes[1:3], planes[3:5])):
            spread = divergence(x, y)
            value = value - (spread * mean[..., channel]).sum() - (spread**2).sum() / (2 * LAM)
        return float(value)


def curve(problem: ctv.CoupledTVProblem, solver: Any, longest: int, enough: float) -> Curve:
    """(seconds, energy) after more and more steps; every run begins anew, so nothing but the solve is in its time."""
    points: Curve = []
    steps = 5
    while steps <= longest:
        solution = jax.block_until_ready(ctv.solve(problem, solver, steps))
        seconds = []
        for _ in range(REPETITIONS):
            began = time.perf_counter()
            jax.block_until_ready(ctv.solve(problem, solver, steps))
            seconds.append(time.perf_counter() - began)
        points.append((float(np.median(seconds)), energy_of(problem, np.asarray(solution.chroma))))
        if points[-1][1] <= enough:
            break
        steps = int(steps * 1.25) + 1
    return points


def scico_curve(
    problem: ctv.CoupledTVProblem, luminance: np.ndarray, mean: np.ndarray, optimum: float, longest: int
) -> Curve:
    """The same of scico's solver."""
    points: Curve = []
    steps = 5
    while steps <= longest and not (points and points[-1][1] <= (1 + TARGETS[-1]) * optimum):
        run: Callable[[], Any] = scico_pdhg(luminance, mean, steps)
        began = time.perf_counter()
        result = run()
        points.append((time.perf_counter() - began, energy_of(problem, np.moveaxis(np.asarray(result), 0, -1))))
        steps = int(steps * 1.5) + 1
    return points


def to_rest(size: int, longest: int) -> Table:
    """The full problem, ten candidates: seconds until the default rule of rest holds, with the energy beside them."""
    problem = ctv.CoupledTVProblem(*instance(size, 10), LAM, GAMMA)
    rule = ctv.StopRule()
    rows, values, notes = {}, {}, []
    for name, solver in solvers(RHO).items():
        solution = jax.block_until_ready(ctv.solve(problem, solver, longest, stop=rule))
        began = time.perf_counter()
        jax.block_until_ready(ctv.solve(problem, solver, longest, stop=rule))
        seconds = time.perf_counter() - began
        name = f"jaxcolor {name}"
        rows[name] = Timing(seconds, seconds, seconds)
        energy = float(problem.energy(solution.chroma, solution.weights))
        values[name] = {"steps": int(solution.steps), "energy": energy}
        if solution.status != ctv.Status.CONVERGED:
            notes.append(f"{name} was not at rest after {longest} steps")
    title = f"full problem, {size}²: seconds until all but {rule.share:g} of the pixels move by less than "
    return Table(
        f"{title}{rule.tolerance:g} a step", rows, "jaxcolor primal-dual", unit="s", notes=notes, values=values
    )
