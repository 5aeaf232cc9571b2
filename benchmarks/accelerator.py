"""What the two long computations take on a GPU or TPU, beside what an H100 could do at best."""

from collections.abc import Iterator
from functools import partial

import jax

import jaxcolor.coupled_tv as ctv
from jaxcolor.deep_prior import PRESETS

from .prior import jax_steps
from .roofline import H100, least_bytes, prior_cost
from .solver import problem_of
from .timing import Table, Timing, compile_seconds, measure, measure_within, seconds

SIZE, CANDIDATES, SOLVER_STEPS, PRIOR_STEPS = 256, 10, 500, 2000
SOLVER = f"{SOLVER_STEPS} primal-dual steps at {SIZE}², k = {CANDIDATES}"
PRIOR = f"{PRIOR_STEPS} deep-prior steps at {SIZE}²"


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """One table: timings where there is an accelerator, and what they are to be compared with."""
    kind = jax.devices()[0].device_kind
    here = jax.default_backend() != "cpu"
    table = Table(f"on {kind}" if here else "on an accelerator", {}, "")
    if here:
        table.rows, table.compile = measured(SIZE, SOLVER_STEPS, 25 if quick else PRIOR_STEPS)
    least = least_bytes(SIZE**2, CANDIDATES)
    solver = SOLVER_STEPS * least / H100.bandwidth
    cost = prior_cost(PRESETS["paper"].network, SIZE)
    table.notes = [
        f"{SOLVER}: {'' if here else 'not measured (no GPU); '}bandwidth roofline of an {H100.name} "
        f"({H100.bandwidth / 1e12:g} TB/s, {least / 1e6:.1f} MB a step): {1e3 * solver:.2f} ms",
        f"{PRIOR}: {'' if here else 'not measured (no GPU); '}roofline of an {H100.name} "
        f"({cost.bytes / 1e9:.2f} GB and {cost.operations / 1e9:.0f} GFLOP a step, {H100.operations / 1e12:g} TFLOP/s "
        f"in float32): {PRIOR_STEPS * cost.bytes / H100.bandwidth:.2f} s for the memory, "
        f"{PRIOR_STEPS * cost.operations / H100.operations:.2f} s for the operations",
    ]
    table.values = {"roofline": {"solver ms": 1e3 * solver, "prior s": PRIOR_STEPS * cost.seconds(H100)}}
    yield table


def measured(size: int, solver_steps: int, prior_steps: int) -> tuple[dict[str, Timing], dict[str, float]]:
    """Both on this device, and the seconds of their compilation."""
    problem, solver = problem_of(size, CANDIDATES), ctv.PrimalDual()

    def solve() -> None:
        jax.block_until_ready(ctv.solve(problem, solver, solver_steps))

    steps = jax_steps(PRESETS["paper"], size)
    solver_name, prior_name = f"{solver_steps} primal-dual steps, {size}²", f"{prior_steps} deep-prior steps, {size}²"
    compiled = {solver_name: compile_seconds(solve), prior_name: compile_seconds(steps, 1)}
    prior = measure_within(partial(seconds, steps, prior_steps), 60)
    return {solver_name: measure(solve), prior_name: prior}, compiled
