"""Seconds to an energy: on the convex problem with fixed weights, and to a small residual on the full problem.

With fixed weights the energy P has a dual D, a lower bound, so (P - D) / P tells how near the optimum is. With weights
that move there is none, and the energy goes on falling for long after the picture is done; what tells how near a point
is to being stationary is the residual of both blocks of variables, and the energy stands beside it.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxcolor.coupled_tv as ctv
from jaxcolor.coupled_tv.tiles import advance

from .optimality import dual_energy, energy, residuals
from .solver import RHO, SIGMA, TAU, convex_problem, problem_of
from .timing import Table, Timing, measure_in_turns

GAPS, FRACTIONS = (1e-3, 1e-4), (0.1, 0.01)
REPETITIONS = 5
SMOOTHING, RELAXATION = 0.5, 1.9


class Point(NamedTuple):
    """What a solver has reached: chroma ``[H, W, 2]``, weights ``[H, W, k]``, and dual planes if it has any."""

    chroma: np.ndarray
    weights: np.ndarray
    dual: Sequence[np.ndarray] | None


class Way(NamedTuple):
    """A solver as it is timed: ``begin()`` a state, ``advance(state, steps)`` it and wait, ``look(state)`` at it."""

    begin: Callable[[], Any]
    advance: Callable[[Any, int], Any]
    look: Callable[[Any], Point]


@dataclass
class Course:
    """What a solver passes through: steps, and after them the point, its value and the seconds of every repetition.

    The seconds are of runs that stop at every one of these steps, so they are more than :meth:`arrive` takes.
    """

    way: Way
    steps: list[int] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    times: list[list[float]] = field(default_factory=list)

    def arrival(self, target: float) -> int | None:
        """Where the value is first at most ``target``; None if it never is."""
        return next((i for i, value in enumerate(self.values) if value <= target), None)

    def arrive(self, at: int) -> None:
        """The solver alone, from its start to there, in one run."""
        self.way.advance(self.way.begin(), self.steps[at])

    def curve(self) -> list[tuple[float, float]]:
        """(median seconds, value)."""
        return [(Timing.of(times).median, value) for times, value in zip(self.times, self.values, strict=True)]


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """Seconds to a relative gap, then to a fraction of the first residual."""
    size, longest = (32, 100) if quick else (256, 4000)
    yield from to_optimum(size, longest, peers)
    yield from to_rest(size, longest)


def grid(longest: int, growth: float) -> list[int]:
    """Numbers of steps, each so many times the one before, and at least one more."""
    steps = [5]
    while (more := max(int(growth * steps[-1]), steps[-1] + 1)) <= longest:
        steps.append(more)
    return steps


def follow(way: Way, longest: int, value: Callable[[Point], float], enough: float, growth: float = 1.1) -> Course:
    """The course of a solver until its value is ``enough``.

    Values are computed in a first run, which also compiles and is not timed; the runs that are timed take the same
    steps and stop to look at the clock only.
    """
    course, state, done = Course(way), way.begin(), 0
    for steps in grid(longest, growth):
        state, done = way.advance(state, steps - done), steps
        course.steps.append(steps)
        course.points.append(way.look(state))
        course.values.append(value(course.points[-1]))
        if course.values[-1] <= enough:
            break
    runs = [_timed(way, course.steps) for _ in range(REPETITIONS)]
    course.times = [list(times) for times in zip(*runs, strict=True)]
    return course


def _timed(way: Way, steps: Sequence[int]) -> list[float]:
    """Seconds of the solver alone after each of so many steps."""
    state, times = way.begin(), [0.0]
    for before, after in itertools.pairwise([0, *steps]):
        began = time.perf_counter()
        state = way.advance(state, after - before)
        times.append(times[-1] + time.perf_counter() - began)
    return times[1:]


def arrivals(courses: dict[str, Course], target: float) -> tuple[dict[str, Timing], dict[str, Point], list[str]]:
    """Seconds to the target and the point there by name, and a note for everyone who did not get there."""
    runs, points, notes = {}, {}, []
    for name, course in courses.items():
        if (at := course.arrival(target)) is not None:
            runs[name], points[name] = partial(course.arrive, at), course.points[at]
        else:
            took = Timing.of(course.times[-1]).median
            notes.append(f"{name} came to {min(course.values):.1e} in {course.steps[-1]} steps, {1e3 * took:.0f} ms")
    return measure_in_turns(runs, REPETITIONS), points, notes


def ours(problem: ctv.CoupledTVProblem, solver: Any) -> Way:
    """A solver of jaxcolor; any number of steps is one program."""
    start = jax.block_until_ready(ctv.solve(problem, solver, 0).state)
    steps = partial(jax.jit(advance), problem, jax.tree.map(lambda x: np.asarray(x, np.float32), solver.specialised()))

    def look(state: Any) -> Point:
        solution = np.stack(state.chroma, -1), np.swapaxes(np.asarray(state.weights), -1, -2)
        return Point(*solution, getattr(state, "dual", None))

    return Way(lambda: start, lambda state, more: jax.block_until_ready(steps(state, np.int32(more))), look)


def scico(problem: ctv.CoupledTVProblem, solver: ctv.PrimalDual, compiled: bool) -> Way:
    """scico's solver, its steps as it makes them or as one program of JAX's; raises ImportError without it."""
    from . import scico_peer

    theirs = scico_peer.pdhg(problem, solver)
    start = theirs.x, theirs.z
    run = (scico_peer.compiled_steps_of if compiled else scico_peer.steps_of)(theirs)

    def begin() -> Any:
        theirs.x, theirs.z = theirs.x_old, theirs.z_old = start
        return theirs

    def advance(state: Any, more: int) -> Any:
        run(more)
        return state

    def look(state: Any) -> Point:
        chroma, dual = scico_peer.chroma_and_dual(state)
        return Point(chroma, np.asarray(problem.weights), dual)

    return Way(begin, advance, look)


def to_optimum(size: int, longest: int, peers: bool) -> Iterator[Table]:
    """One table for each gap."""
    problem = convex_problem(size)
    optimum, certified = certified_optimum(problem, 5 * longest)

    def gap(point: Point) -> float:
        primal = energy(problem, point.chroma, point.weights)
        return (primal - (certified if point.dual is None else dual_energy(problem, point.dual))) / primal

    ways = {f"jaxcolor {name}": ours(problem, solver) for name, solver in solvers(0.0).items()}
    about = [f"the optimum is known to {(optimum - certified) / optimum:.1e} of it"]
    if peers:
        try:
            for name, compiled in {"scico PDHG": False, "scico PDHG, step compiled": True}.items():
                ways[name] = scico(problem, ctv.PrimalDual(SIGMA, TAU, 0.0), compiled)
        except ImportError:
            about.append("scico is not installed: its rows are left out")
    courses = {name: follow(way, longest, gap, GAPS[-1]) for name, way in ways.items()}
    for target in GAPS:
        title = (
            f"fixed weights, {size}²: seconds to a relative duality gap (P - D) / P of {target:g}; "
            "for inertial, without a dual variable, D is the best that is known"
        )
        yield _table(title, size, courses, target, "gap", about)


def _table(
    title: str,
    size: int,
    courses: dict[str, Course],
    target: float,
    kind: str,
    notes: Sequence[str] = (),
    energy_at: Callable[[Point], float] | None = None,
) -> Table:
    rows, points, missed = arrivals(courses, target)
    table = Table(title, rows, "jaxcolor primal-dual", size, notes=[*notes, *missed], kind=kind)
    table.values = {name: {"steps": courses[name].steps[courses[name].arrival(target) or 0]} for name in rows}
    if energy_at is not None:
        for name, point in points.items():
            table.values[name]["energy"] = energy_at(point)
    table.curves = {name: course.curve() for name, course in courses.items()}
    return table


def solvers(weight_step: float, smoothing: float | None = None) -> dict[str, Any]:
    """Ours: with a given ``smoothing`` all of them minimise one smoothed energy."""
    both = {"weight_step": weight_step}
    smoothings = (0.5, 0.05) if smoothing is None else (smoothing,)
    return {
        "primal-dual": ctv.PrimalDual(SIGMA, TAU, weight_step, smoothing or 0.0),
        f"primal-dual, relaxation {RELAXATION:g}": ctv.PrimalDual(
            SIGMA, TAU, weight_step, smoothing or 0.0, RELAXATION
        ),
        "primal-dual, τ = 1": ctv.PrimalDual(1 / 8, 1.0, weight_step, smoothing or 0.0),
        **{f"inertial, ε = {epsilon:g}": ctv.InertialForwardBackward(epsilon, **both) for epsilon in smoothings},
    }


def certified_optimum(problem: ctv.CoupledTVProblem, steps: int) -> tuple[float, float]:
    """P after very many steps, and D, a lower bound of every P."""
    state = ctv.solve(problem, ctv.PrimalDual(SIGMA, TAU, 0.0), steps).state
    return energy(problem, np.stack(state.chroma, -1), np.asarray(problem.weights)), dual_energy(problem, state.dual)


def to_rest(size: int, longest: int) -> Iterator[Table]:
    """The full problem, ten candidates, smoothed for all: one table for each fraction of the first residuals."""
    problem = problem_of(size, 10)
    first = residuals(problem, np.asarray(problem.mean()), np.asarray(problem.weights), SMOOTHING, RHO)

    def fraction(point: Point) -> float:
        now = residuals(problem, point.chroma, point.weights, SMOOTHING, RHO)
        return max(residual / start for residual, start in zip(now, first, strict=True))

    courses = {
        f"jaxcolor {name}": follow(ours(problem, solver), longest, fraction, FRACTIONS[-1], growth=1.25)
        for name, solver in solvers(RHO, SMOOTHING).items()
    }
    for target in FRACTIONS:
        title = (
            f"full problem, {size}², 10 candidates, smoothed by ε = {SMOOTHING:g}: seconds until the root mean squares "
            f"over pixels of u - P_R(u - ∇J) and w - P_Δ(w - t λ/2 |u - c|²), t = {RHO:g}, are {target:g} of what they "
            "were at the start"
        )
        reached = partial(_smoothed_energy, problem)
        yield _table(title, size, courses, target, "residual", energy_at=reached)


def _smoothed_energy(problem: ctv.CoupledTVProblem, point: Point) -> float:
    return energy(problem, point.chroma, point.weights, SMOOTHING)
