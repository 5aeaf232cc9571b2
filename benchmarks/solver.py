"""An iteration of the solvers and a whole solve, beside C, PyTorch, NumPy and scico, in one run."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

import jaxcolor.coupled_tv as ctv

from . import bound, scico_peer
from .peers import Arrays, compiled, planes, textbook, without_gradients
from .roofline import least_bytes
from .timing import Steps, Table, compile_seconds, measure, measure_in_turns, measure_steps, measure_within, seconds

SIGMA, TAU, RHO, LAM, GAMMA = 0.03125, 4.0, 1.8e-4, 0.01, 240.0
C, TRIAD, COMPILED = "fused C", "triad of the least bytes", "PyTorch compiled, planes"
# Beside C's own row it tells whether the cores share a cache, as long as the image fits into one. XLA:CPU, which gives
# rows to whichever thread is free, is slowed where they do not.
TURNING = "fused C, cores change rows"
PRIMAL_DUAL, INERTIAL = "jaxcolor primal-dual", "jaxcolor inertial"
# So long may the measured run of a slow peer take.
SECONDS = 1.0


def instance(size: int | tuple[int, int], count: int) -> Arrays:
    """A smooth luminance with edges, and random candidates of the palette's grid with random weights; float32."""
    rng = np.random.default_rng(0)
    height, width = (size, size) if isinstance(size, int) else size
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    luminance = 50 + 30 * np.sign(np.sin(9 * x + 4 * np.cos(5 * y))) + rng.normal(0, 2, (height, width))
    candidates = 10.0 * rng.integers(-9, 10, (height, width, count, 2))
    weights = rng.dirichlet(np.ones(count), (height, width))
    luminance, candidates, weights = (v.astype(np.float32) for v in (np.clip(luminance, 0, 100), candidates, weights))
    return luminance, candidates, weights


def problem_of(size: int | tuple[int, int], count: int) -> ctv.CoupledTVProblem:
    """The problem of an instance."""
    return ctv.CoupledTVProblem(*instance(size, count), LAM, GAMMA)


def convex_problem(size: int | tuple[int, int]) -> ctv.CoupledTVProblem:
    """The problem whose one candidate is the mean of an instance's, so that its weights stay."""
    luminance, candidates, weights = instance(size, 10)
    mean = np.einsum("hwk,hwkc->hwc", weights, candidates)
    return ctv.CoupledTVProblem(luminance, mean[:, :, None], np.ones((*luminance.shape, 1), np.float32), LAM, GAMMA)


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """Iterations over candidates and sizes, whole solves and how they grow, iterations with fixed weights."""
    sizes = (64,) if quick else (128, 256, 512, 1024)
    # 1000² beside 1024², where rows and planes of 2^n bytes might fall into the same places of the caches.
    more = () if quick else (1000, 2048)
    for count in (10,) if quick else (4, 10, 32):
        for size in sorted((*sizes, *(more if count == 10 else ()))):
            yield iteration(size, count, peers)
    for size in (64,) if quick else (256, 512):
        yield whole(size, 20 if quick else 500, peers)
    yield growth((32, 64) if quick else (256, 512, 1024, 2048, 4096), 100)
    for size in (64,) if quick else (128, 256, 512, 1024):
        yield fixed_weights(size, peers)


def iteration(size: int, count: int, peers: bool) -> Table:
    """Seconds of a step by implementation; what a solve does once is left out."""
    arrays = instance(size, count)
    problem = ctv.CoupledTVProblem(*arrays, LAM, GAMMA)
    steps = max(20, min(200, int(2.5e8 / (size**2 * count))))
    solver, inertial = ctv.PrimalDual(SIGMA, TAU, RHO), ctv.InertialForwardBackward()
    ways = {PRIMAL_DUAL: ours(problem, solver, steps), INERTIAL: ours(problem, inertial, steps)}
    table = Table(f"primal-dual iteration, {size}², {count} candidates, float32", {}, C, size, kind="iteration")
    table.compile = {name: compile_seconds(way.run, way.many) for name, way in ways.items()}
    moved = least_bytes(size**2, count)
    try:
        fused, build = bound.fastest(problem, solver)
        sweep = bound.triad(moved)
    except bound.NoCompiler as error:
        table.notes.append(f"{error}: the C loop and the ratios to it are left out")
    else:
        ways |= {
            C: Steps(fused, 4, 4 + steps),
            TURNING: Steps(partial(fused, turning=True), 4, 4 + steps),
            TRIAD: Steps(partial(_repeated, sweep), 4, 4 + steps),
        }
        table.notes += [f"{C}: {build}", *fused.notes]
    if peers:
        ways |= _peers(arrays, problem, solver, table.notes)
    table.rows = measure_steps(ways)
    for name in table.rows.keys() & {PRIMAL_DUAL, C, TRIAD}:
        table.values[name] = {"GB/s": moved / table.rows[name].median / 1e9}
    if C in table.rows and table.rows[PRIMAL_DUAL].median < table.rows[C].median:
        table.notes.append("jaxcolor is faster than the C loop here, which therefore is no bound")
    return table


def ours(problem: ctv.CoupledTVProblem, solver: Any, steps: int) -> Steps:
    """A solver of jaxcolor, with square numbers of steps, which compile to two loops without a rest."""

    def run(count: int) -> None:
        jax.block_until_ready(ctv.solve(problem, solver, count))

    return Steps(run, 4, math.ceil(math.sqrt(4 + steps)) ** 2)


def _repeated(function: Callable[[], object], times: int) -> None:
    for _ in range(times):
        function()


def _peers(arrays: Arrays, problem: ctv.CoupledTVProblem, solver: ctv.PrimalDual, notes: list[str]) -> dict[str, Steps]:
    """PyTorch, compiled and eager, and NumPy; the last two for ten candidates up to 1024² only."""
    ways: dict[str, Steps] = {}
    slow = problem.count == 10 and problem.shape[0] <= 1024
    if not slow:
        notes.append("NumPy and PyTorch's eager mode, which are slow, are left out here")
    try:
        import torch
    except ImportError:
        notes.append("PyTorch is not installed: its rows are left out")
    else:
        in_planes = planes(torch, arrays, problem, solver)
        # It makes few programs of one function, and then no more: those of the problems before are not needed.
        torch.compiler.reset()
        try:
            ways[COMPILED] = Steps(compiled(torch, in_planes).run, 2, 22)
        except Exception as error:  # no C++ compiler, or a Python that torch.compile does not know
            notes.append(f"torch.compile does not work here ({type(error).__name__}): its row is left out")
        if slow:
            for name, way in {"planes": in_planes, "textbook": textbook(torch, arrays, problem, solver)}.items():
                ways[f"PyTorch eager, {name}"] = Steps.within(without_gradients(torch, way).run, SECONDS)
    if slow:
        ways["NumPy, textbook"] = Steps.within(textbook(np, arrays, problem, solver).run, SECONDS)
    return ways


def whole(size: int, steps: int, peers: bool) -> Table:
    """A whole solve from the arrays on, ten candidates."""
    arrays = instance(size, 10)
    problem, solver = ctv.CoupledTVProblem(*arrays, LAM, GAMMA), ctv.PrimalDual(SIGMA, TAU, RHO)
    title = f"whole solve, {steps} primal-dual steps, {size}², 10 candidates, float32"
    table = Table(title, {}, "jaxcolor", size, kind="solve")
    solve = ours(problem, solver, steps).run
    table.compile = {"jaxcolor": compile_seconds(solve, steps)}
    fast: dict[str, Callable[[], object]] = {"jaxcolor": partial(solve, steps)}
    slow: dict[str, Callable[[], object]] = {}
    try:
        fast[C] = partial(bound.fastest(problem, solver)[0], steps)
    except bound.NoCompiler as error:
        table.notes.append(f"{error}: the C loop is left out")
    if peers:
        ways = _peers(arrays, problem, solver, table.notes)
        fast |= {name: partial(way.run, steps) for name, way in ways.items() if name == COMPILED}
        slow = {name: partial(way.run, steps) for name, way in ways.items() if name != COMPILED}
    table.rows = measure_in_turns(fast, 5)
    for name, run in slow.items():
        if "NumPy" in name and size > 256:
            table.notes.append("NumPy, which would take minutes, is left out")
        else:
            table.rows[name] = measure_within(partial(seconds, run), 10 * SECONDS)
    return table


def growth(sizes: Sequence[int], steps: int) -> Table:
    """How the seconds of a solve grow with the pixels; large images are the smallest one, repeated."""
    title = f"solve, {steps} primal-dual steps, 10 candidates, float32, by size"
    table = Table(title, {}, f"{sizes[0]}²", unit="s")
    least, solver = instance(sizes[0], 10), ctv.PrimalDual(SIGMA, TAU, RHO)
    for size in sizes:
        times = size // sizes[0]
        arrays = (np.tile(array, (times, times, *(1,) * (array.ndim - 2))) for array in least)
        solve = partial(ours(ctv.CoupledTVProblem(*arrays, LAM, GAMMA), solver, steps).run, steps)
        table.rows[f"{size}²"] = measure(solve, 3)
    exponent, _ = np.polyfit(np.log(np.square(sizes)), np.log([row.median for row in table.rows.values()]), 1)
    table.notes.append(f"seconds grow with the pixels to the power {exponent:.3f} (fitted to all rows)")
    return table


def fixed_weights(size: int, peers: bool) -> Table:
    """A step on the convex problem, and one that keeps the weights of ten candidates."""
    problem, solver = convex_problem(size), ctv.PrimalDual(SIGMA, TAU, 0.0)
    ways = {"jaxcolor": ours(problem, solver, 60), "jaxcolor, 10 candidates": ours(problem_of(size, 10), solver, 60)}
    table = Table(f"primal-dual iteration with fixed weights, {size}², float32", {}, "jaxcolor", size, kind="fixed")
    table.compile = {"jaxcolor": compile_seconds(ways["jaxcolor"].run, ways["jaxcolor"].many)}
    if peers:
        try:
            ways |= {
                "scico PDHG": Steps(scico_peer.steps_of(scico_peer.pdhg(problem, solver)), 4, 24),
                "scico PDHG, step compiled": Steps(
                    scico_peer.compiled_steps_of(scico_peer.pdhg(problem, solver)), 4, 24
                ),
            }
        except ImportError:
            table.notes.append("scico is not installed: its rows are left out")
    table.rows = measure_steps(ways)
    return table
