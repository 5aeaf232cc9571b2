"""The loops: chunks, batches, stopping, warm starts, compilation."""

import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcolor.coupled_tv import (
    InertialForwardBackward,
    PrimalDual,
    Status,
    StopRule,
    solve,
    solve_in_chunks,
)
from jaxcolor.coupled_tv.tiles import _block_length
from jaxcolor.errors import InputError
from tests.coupled_tv_data import COUNT, SHAPE, data, problem

PRIMAL_DUAL = PrimalDual(dual_step=0.05, primal_step=2.5, weight_step=0.05)
INERTIAL = InertialForwardBackward(0.5, 0.9, 0.3, 0.05)
BOTH = pytest.mark.parametrize("solver", [PRIMAL_DUAL, INERTIAL], ids=["primal-dual", "inertial"])


def same(a, b):
    np.testing.assert_array_equal(a.chroma, b.chroma)
    np.testing.assert_array_equal(a.weights, b.weights)
    assert int(a.steps) == int(b.steps)
    assert int(a.status) == int(b.status)


@BOTH
def test_chunks_give_the_same_arrays(solver):
    p = problem(data())
    before = jax.tree.map(np.array, p)
    seen = []
    fused = solve(p, solver, 45, record_every=20)
    chunked = solve_in_chunks(p, solver, 45, chunk=20, progress=lambda n, energy: seen.append((n, energy)))
    same(fused, chunked)
    np.testing.assert_allclose(fused.energies, chunked.energies, rtol=1e-6)
    assert [n for n, _ in seen] == [20, 40, 45]
    assert fused.status == Status.OUT_OF_STEPS
    jax.tree.map(np.testing.assert_array_equal, before, p)


@BOTH
def test_chunks_stop_where_the_compiled_loop_stops(solver):
    p, rule = problem(data()), StopRule(tolerance=0.1, every=7)
    fused, chunked = solve(p, solver, 500, stop=rule), solve_in_chunks(p, solver, 500, stop=rule, chunk=20)
    same(fused, chunked)
    assert fused.status == Status.CONVERGED
    assert int(fused.steps) % 7 == 0
    # A stopping rule cannot see the size of the image: padding and a share change nothing here.
    padded = solve(p.padded_to((16, 20)), solver, 500, stop=rule)
    assert int(padded.steps) == int(fused.steps)
    loose = solve(p, solver, 500, stop=StopRule(tolerance=0.1, share=0.2, every=7))
    assert int(loose.steps) <= int(fused.steps)


def test_batch_is_the_same_as_a_loop():
    problems = [problem(data(seed=s, fidelity=f)) for s, f in ((0, 0.02), (1, 0.2), (2, 0.05))]
    rule = StopRule(0.1)

    def run(p):
        return solve(p, PRIMAL_DUAL, 150, stop=rule, record_every=50)

    batch = jax.vmap(run)(jax.tree.map(lambda *x: jnp.stack(x), *problems))
    assert batch.chroma.shape == (3, *SHAPE, 2)
    assert batch.weights.shape == (3, *SHAPE, COUNT)
    assert len(batch.message()) == 3
    for i, p in enumerate(problems):
        alone = run(p)
        np.testing.assert_allclose(batch.chroma[i], alone.chroma, atol=1e-3)
        np.testing.assert_allclose(batch.weights[i], alone.weights, atol=1e-4)
        np.testing.assert_allclose(batch.energies[i], alone.energies, rtol=1e-5)
        assert (batch.steps[i], batch.status[i]) == (alone.steps, alone.status)
    assert len(set(batch.steps.tolist())) > 1


@BOTH
def test_continuing_is_exact(solver):
    p = problem(data())
    whole = solve(p, solver, 40)
    half = solve(p, solver, 20)
    same(solve(p, solver, 20, init=half), _with(whole, 20))
    same(solve_in_chunks(p, solver, 20, init=half.state), _with(whole, 20))
    kept = jax.tree.map(np.array, half)
    same(solve_in_chunks(p, solver, 20, init=half, donate=True), _with(whole, 20))
    assert all(array.is_deleted() for array in jax.tree.leaves(half.state))
    # What the state shares with nobody only: the problem and the rest of the solution are as they were.
    same(solve_in_chunks(p, solver, 20, init=kept), _with(whole, 20))
    np.testing.assert_array_equal(half.energies, kept.energies)


@BOTH
def test_the_state_of_another_solver_can_be_given_up(solver):
    other = INERTIAL if solver is PRIMAL_DUAL else PRIMAL_DUAL
    p = problem(data())
    first = solve_in_chunks(p, other, 0)
    kept = solve_in_chunks(p, solver, 20, init=first)
    same(solve_in_chunks(p, solver, 20, init=first, donate=True), kept)
    assert all(array.is_deleted() for array in jax.tree.leaves(first.state))
    same(solve_in_chunks(p, solver, 20), kept)


def _with(solution, steps):
    return type(solution)(solution.state, solution.status, jnp.int32(steps), solution.energies)


def test_warm_start_from_another_solver():
    p = problem(data())
    warm = solve(p, PRIMAL_DUAL, 100)
    start = solve(p, INERTIAL, 0, init=warm)
    np.testing.assert_array_equal(start.chroma, warm.chroma)
    np.testing.assert_array_equal(start.weights, warm.weights)
    back = solve(p, PRIMAL_DUAL, 5, init=solve(p, INERTIAL, 5, init=warm))
    assert back.energies[-1] < solve(p, PRIMAL_DUAL, 5).energies[-1]
    with pytest.raises(InputError, match="does not fit"):
        solve(problem(data((5, 5))), PRIMAL_DUAL, 5, init=warm)
    with pytest.raises(InputError, match="Solution or a solver's state"):
        solve(p, PRIMAL_DUAL, 5, init=3)


def test_no_steps_and_bad_counts():
    p = problem(data())
    solution = solve(p, PRIMAL_DUAL, 0)
    np.testing.assert_allclose(solution.chroma, p.mean(), atol=1e-4)
    assert solution.energies.shape == (1,)
    for wrong in ({"steps": -1}, {"steps": 1.5}, {"record_every": 0}):
        with pytest.raises(InputError):
            solve(p, PRIMAL_DUAL, **wrong)
    for build in (lambda: StopRule(0.0), lambda: StopRule(share=1.0), lambda: StopRule(every=0)):
        with pytest.raises(InputError):
            build()


@pytest.mark.parametrize("stop", [None, StopRule()])
def test_status_tells_of_values_that_are_not_finite(stop):
    p = problem(data())
    broken = jax.tree.unflatten(jax.tree.structure(p), [x.at[(0,) * x.ndim].set(jnp.inf) for x in jax.tree.leaves(p)])
    for run in (solve, solve_in_chunks):
        assert run(broken, PRIMAL_DUAL, 45, stop=stop).status == Status.NON_FINITE


def test_time_limit_and_interrupt():
    p = problem(data())
    assert solve_in_chunks(p, PRIMAL_DUAL, 45, time_limit=0.0).status == Status.TIME_LIMIT

    def from_progress(steps, energy):
        raise KeyboardInterrupt

    stopped = solve_in_chunks(p, PRIMAL_DUAL, 60, chunk=20, progress=from_progress)
    assert (int(stopped.steps), int(stopped.status)) == (20, Status.INTERRUPTED)
    np.testing.assert_array_equal(stopped.chroma, solve(p, PRIMAL_DUAL, 20).chroma)
    if threading.current_thread() is threading.main_thread():
        # What a shell starts in the background ignores Ctrl-C, and so would the solver.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        ctrl_c = solve_in_chunks(p, PRIMAL_DUAL, 60, chunk=20, progress=lambda *_: signal.raise_signal(signal.SIGINT))
        assert (int(ctrl_c.steps), int(ctrl_c.status)) == (20, Status.INTERRUPTED)
        # In the last chunk too, also where the rule is met by then.
        for stop in (None, StopRule(1e9, every=1)):
            last = solve_in_chunks(p, PRIMAL_DUAL, 5, stop=stop, progress=lambda *_: signal.raise_signal(signal.SIGINT))
            assert int(last.status) == Status.INTERRUPTED
        assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_new_numbers_do_not_compile_again(monkeypatch):
    traces = []
    step = PrimalDual.step
    monkeypatch.setattr(PrimalDual, "step", lambda *a: (traces.append(1), step(*a))[1])
    d = data((6, 7))
    solve(problem(d), PrimalDual(0.05, 2.5, 0.05), 9)
    first = len(traces)
    assert first > 0
    d.fidelity, d.coupling = 0.5, 3
    for number in (0.04, np.float32(0.04), jnp.array(0.04)):
        solve(problem(d), PrimalDual(number, 2.0, weight_step=1), 9)
    solve(problem(d).replace(fidelity=0.3), PrimalDual(0.01, 0.5, 0.2, 1), 9)
    assert len(traces) == first
    # Padded problems of different sizes share one program too, and so do chunked solves of different lengths.
    counts = []
    for shape in ((6, 7), (3, 8), (5, 5)):
        solve(problem(data(shape)).padded_to((8, 8)), PRIMAL_DUAL, 9)
        counts.append(len(traces))
    for steps in (30, 50):
        solve_in_chunks(problem(d), PRIMAL_DUAL, steps)
        counts.append(len(traces))
    assert first < counts[0] == counts[1] == counts[2] < counts[3] == counts[4]


def test_block_length_divides_round_numbers():
    assert [_block_length(n) for n in (0, 1, 2, 100, 200, 500, 1000)][1:] == [1, 1, 10, 10, 20, 25]
    assert all(1 <= _block_length(n) <= 2 * n for n in range(1, 300))


def test_messages():
    assert all(status.message for status in Status)
