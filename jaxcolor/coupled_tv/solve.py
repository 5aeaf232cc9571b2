"""The loops: one compiled call, or a host loop over compiled chunks, over the same step of any solver.

A solver has ``init(problem, start)``, ``step(problem, state)``, ``energy(problem, state)`` and ``change(state)``; its
state has ``chroma`` and ``weights``. It may have ``specialised()``, which returns the solver that is compiled, and
``reach``: how many rows and columns away the farthest pixel is that a step looks at, where all arrays of the state are
planes ``[H, ..., W]``; without it every step is of the whole image. If it has a ``weight_step`` that is None, its steps
keep the weights and depend on them and the candidates by their mean only, and its state has ``with_weights``.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcolor.coupled_tv.checks import check_count
from jaxcolor.coupled_tv.operators import inside
from jaxcolor.coupled_tv.problem import CoupledTVProblem
from jaxcolor.coupled_tv.solution import Solution, Status, StopRule
from jaxcolor.coupled_tv.tiles import advance
from jaxcolor.errors import InputError
from jaxcolor.interrupt import deferred_interrupt

_RUNNING = -1


class Solver(Protocol):
    """What :func:`solve` asks of a solver; all four are pure."""

    def init(self, problem: CoupledTVProblem, start: Any = None) -> Any: ...
    def step(self, problem: CoupledTVProblem, state: Any) -> Any: ...
    def energy(self, problem: CoupledTVProblem, state: Any) -> Array: ...
    def change(self, state: Any) -> tuple[Array, Array]: ...


def solve(
    problem: CoupledTVProblem,
    solver: Solver,
    steps: int = 500,
    init: Any = None,
    stop: StopRule | None = None,
    record_every: int | None = None,
) -> Solution:
    """Run a solver in one compiled call.

    Args:
        problem: the problem.
        solver: :class:`PrimalDual`, :class:`InertialForwardBackward` or anything with their methods.
        steps: number of steps, at most. Static: another count compiles anew.
        init: None starts from the problem's weights; a :class:`Solution` or a state continues. From the same solver it
            continues exactly; from another solver chroma and weights are taken over.
        stop: a :class:`StopRule`; None takes all steps.
        record_every: None records the energy before the first and after the last step, n also after every n steps.

    Returns:
        A :class:`Solution`. Never raises for what happens on the way: ``solution.status`` tells.

    Raises:
        InputError: steps < 0, record_every < 1, or an ``init`` of another shape.

    Works under ``jax.jit`` and ``jax.vmap``, with the arrays, steps and status that each problem has alone; on CPU
    problems that are not small are then solved one after another, which keeps each in the caches. Without ``stop``
    also under ``jax.grad`` and ``jax.jvp``: states are stored at about sqrt(steps) checkpoints and the rest is
    recomputed, so that reverse mode holds about 2 sqrt(steps) states. With ``stop`` only forward mode.

    >>> problem = CoupledTVProblem(jnp.zeros((4, 4)), jnp.zeros((4, 4, 3, 2)), jnp.full((4, 4, 3), 1 / 3))
    >>> from jaxcolor.coupled_tv.primal_dual import PrimalDual
    >>> solution = solve(problem, PrimalDual(), steps=3)
    >>> solution.chroma.shape, int(solution.steps), solution.message()
    ((4, 4, 2), 3, 'all steps were taken')
    """
    _check_counts(steps, record_every)
    solver = _prepared(solver, problem.luminance.dtype)
    given = None if init is None else start(problem, solver, init)
    return _solve(problem, solver, given, stop, steps, record_every)


def start(problem: CoupledTVProblem, solver: Solver, init: Any = None) -> Any:
    """The state from which a solve begins: see ``init`` of :func:`solve`."""
    if init is None:
        return _init(problem, solver)
    given = init.state if isinstance(init, Solution) else init
    if not hasattr(given, "chroma") or not hasattr(given, "weights"):
        raise InputError(f"init must be a Solution or a solver's state, got {type(init).__name__}")

    def state_and_parts(problem: CoupledTVProblem) -> tuple[Any, ...]:
        state = solver.init(problem)
        return state, state.chroma, state.weights

    expected, *parts = jax.eval_shape(state_and_parts, problem)
    for name, part in zip(("chroma", "weights"), parts, strict=True):
        have, want = (jax.tree.map(np.shape, x) for x in (getattr(given, name), part))
        if have != want:
            raise InputError(f"init does not fit the problem: its {name} have shapes {have}, expected {want}")
    if type(given) is type(expected):
        return given
    return solver.init(problem, given)


def solve_in_chunks(
    problem: CoupledTVProblem,
    solver: Solver,
    steps: int = 500,
    init: Any = None,
    stop: StopRule | None = None,
    chunk: int = 50,
    progress: Callable[[int, float], None] | None = None,
    time_limit: float | None = None,
    donate: bool = False,
) -> Solution:
    """:func:`solve` as a host loop over compiled chunks: progress, a time limit, and Ctrl-C that keeps the result.

    Arrays, steps and status are those of ``solve(..., record_every=chunk)``, but that no chunk follows one after which
    values are infinite or NaN; ``energies`` ends with the last chunk taken. Compiled once for any number of steps. Each
    chunk works in place in the buffers of the last; the caller's arrays are never touched, unless donated.

    Args:
        chunk: steps between two looks at the clock. Each costs about as much as four steps where these are in tiles.
        progress: called as ``progress(steps so far, energy)`` after every chunk.
        time_limit: seconds; a chunk is begun only before it. None: no limit.
        donate: give up the state of ``init``, whose memory is free then while the solver runs. Its arrays are deleted.

    On Ctrl-C the running chunk is finished and the state returned with ``Status.INTERRUPTED``; a second Ctrl-C
    raises ``KeyboardInterrupt`` at once. So does a ``KeyboardInterrupt`` that ``progress`` raises end the solve.
    """
    _check_counts(steps, chunk)
    began = time.monotonic()
    solver = _prepared(solver, problem.luminance.dtype)
    # A copy, because chunks are donated and the caller may hold the arrays of init and of the problem.
    state = jax.tree.map(jnp.copy, start(problem, solver, init))
    if donate:
        for array in jax.tree.leaves(init.state if isinstance(init, Solution) else init):
            array.delete()
    energies = [_energy(problem, solver, state)]
    count, status, done = jnp.int32(0), jnp.int32(_RUNNING), 0
    ended = Status.OUT_OF_STEPS
    with deferred_interrupt() as interrupted:
        while done < steps and int(status) == _RUNNING and not interrupted():
            if time_limit is not None and time.monotonic() - began >= time_limit:
                ended = Status.TIME_LIMIT
                break
            limit = jnp.int32(min(done + chunk, steps))
            state, count, status, energy = _chunk(problem, solver, state, stop, count, status, limit)
            energies.append(energy)
            done = int(count)
            try:
                if progress is not None:
                    progress(done, float(energy))
            except KeyboardInterrupt:
                ended = Status.INTERRUPTED
                break
        # Also in the last chunk, and where the problem is solved by now: whoever wants to stop wants nothing after it.
        if interrupted():
            ended = Status.INTERRUPTED
    final = status if int(status) != _RUNNING and ended != Status.INTERRUPTED else jnp.int32(ended)
    return Solution(state, _judge(state, final), count, jnp.stack(energies))


def _check_counts(steps: int, record_every: int | None) -> None:
    check_count("steps", steps, 0)
    if record_every is not None:
        check_count("the number of steps between records", record_every, 1)


def _prepared(solver: Solver, dtype: Any) -> Any:
    """A solver's numbers as arrays of one dtype: 0.1, np.float32(0.1) and jnp.array(0.1) share one program.

    What is part of the program all the same, the solver's ``specialised`` says.
    """
    specialised = getattr(solver, "specialised", lambda: solver)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), specialised())


@jax.jit
def _init(problem: CoupledTVProblem, solver: Solver) -> Any:
    return solver.init(problem)


@jax.jit
def _energy(problem: CoupledTVProblem, solver: Solver, state: Any) -> Array:
    return solver.energy(problem, state)


@partial(jax.jit, static_argnames=("steps", "record_every"))
def _solve(
    problem: CoupledTVProblem,
    solver: Solver,
    state: Any,
    stop: StopRule | None,
    steps: int,
    record_every: int | None,
) -> Solution:
    state = solver.init(problem) if state is None else state
    first = solver.energy(problem, state)
    period = record_every or max(steps, 1)

    def segment(carry: Any, limit: Any, length: int) -> tuple[Any, Array]:
        state, count, status = carry
        if stop is None:
            carry = advance(problem, solver, state, length), count + length, status
        else:
            carry = _until_rest(problem, solver, carry, stop, limit)
        return carry, solver.energy(problem, carry[0])

    whole, rest = divmod(steps, period)
    carry = (state, jnp.int32(0), jnp.int32(_RUNNING))
    energies = [first[None]]
    if whole == 1:
        carry, last = segment(carry, jnp.int32(period), period)
        energies.append(last[None])
    elif whole > 1:
        limits = period * jnp.arange(1, whole + 1, dtype=jnp.int32)
        body = jax.checkpoint(partial(segment, length=period), prevent_cse=False)
        carry, recorded = lax.scan(body, carry, limits)
        energies.append(recorded)
    if rest:
        carry, last = segment(carry, jnp.int32(steps), rest)
        energies.append(last[None])
    state, count, status = carry
    status = jnp.where(status == _RUNNING, jnp.int32(Status.OUT_OF_STEPS), status)
    return Solution(state, _judge(state, status), count, jnp.concatenate(energies))


@partial(jax.jit, donate_argnames="state")
def _chunk(
    problem: CoupledTVProblem,
    solver: Solver,
    state: Any,
    stop: StopRule | None,
    count: Array,
    status: Array,
    limit: Array,
) -> tuple[Any, Array, Array, Array]:
    if stop is None:
        state = advance(problem, solver, state, limit - count)
        status = jnp.where(_finite(state), status, jnp.int32(Status.NON_FINITE))
        count = limit
    else:
        state, count, status = _until_rest(problem, solver, (state, count, status), stop, limit)
    return state, count, status, solver.energy(problem, state)


def _until_rest(problem: CoupledTVProblem, solver: Solver, carry: Any, stop: StopRule, limit: Array) -> Any:
    """Steps until the rule is met or ``limit`` steps are taken; ``carry`` is (state, count, status)."""
    image = inside(problem.shape, problem.extent)

    def unfinished(carry: Any) -> Array:
        _, count, status = carry
        return (status == _RUNNING) & (count < limit)

    def to_next_look(carry: Any) -> Any:
        state, count, status = carry
        # Looks are at multiples of ``every``, wherever a chunk or a record ends.
        target = jnp.minimum(count + stop.every - count % stop.every, limit)
        state = advance(problem, solver, state, target - count)
        x, y = solver.change(state)
        restless = jnp.sum(image & ~(x * x + y * y <= jnp.square(stop.tolerance)), dtype=jnp.int32)
        rested = (restless <= stop.share * problem.pixels()) & (target % stop.every == 0)
        status = jnp.where(rested, jnp.int32(Status.CONVERGED), status)
        return state, target, jnp.where(_finite(state), status, jnp.int32(Status.NON_FINITE))

    return lax.while_loop(unfinished, to_next_look, carry)


@jax.jit
def _judge(state: Any, status: Array) -> Array:
    return jnp.where(_finite(state), status, jnp.int32(Status.NON_FINITE))


def _finite(state: Any) -> Array:
    """Whether chroma and weights are finite: an infinite value anywhere else reaches them with the next step."""
    return jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves((state.chroma, state.weights))]).all()
