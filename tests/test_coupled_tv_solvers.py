"""Both solvers against the float64 reference, and what must hold for every problem."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcolor.color.gamut import project_yuv
from jaxcolor.coupled_tv import InertialForwardBackward, PrimalDual, solve
from jaxcolor.coupled_tv.simplex import SORTED_UP_TO
from jaxcolor.errors import InputError
from tests.coupled_tv_data import COUNT, SHAPE, data, float64, problem
from tests.reference import coupled_tv as reference

PRIMAL_DUAL = PrimalDual(dual_step=0.05, primal_step=2.5, weight_step=0.05)
INERTIAL = InertialForwardBackward(smoothing=0.5, inertia=0.9, weight_inertia=0.3, weight_step=0.05)
FIXED = PrimalDual(0.05, 2.5, weight_step=0.0, smoothing=0.5)


def expected(d, solver, steps):
    if isinstance(solver, PrimalDual):
        numbers = (solver.dual_step, solver.primal_step, solver.weight_step, solver.smoothing)
        return reference.primal_dual(d, steps, *numbers)
    numbers = (solver.smoothing, solver.inertia, solver.weight_inertia, solver.weight_step)
    return reference.inertial(d, steps, *numbers)


@pytest.mark.parametrize("solver", [PRIMAL_DUAL, INERTIAL, FIXED], ids=["primal-dual", "inertial", "smoothed"])
@pytest.mark.parametrize("steps", [1, 100])
def test_float32_agrees_with_reference(solver, steps):
    d = data()
    solution = solve(problem(d), solver, steps)
    u, w = expected(d, solver, steps)
    np.testing.assert_allclose(solution.chroma, u, atol=1e-3)
    np.testing.assert_allclose(solution.weights, w, atol=1e-4)
    end = reference.energy(d, u, w, 0.0 if solver is PRIMAL_DUAL else 0.5)
    np.testing.assert_allclose(solution.energies[-1], end, rtol=1e-5)


@pytest.mark.parametrize("solver", [PRIMAL_DUAL, INERTIAL], ids=["primal-dual", "inertial"])
@pytest.mark.parametrize("count", [COUNT, SORTED_UP_TO + 1])
def test_float64_agrees_with_reference(solver, count):
    d = data(count=count)
    with float64():
        solution = solve(problem(d, np.float64), solver, 100)
        u, w = expected(d, solver, 100)
        assert solution.chroma.dtype == jnp.float64
        np.testing.assert_allclose(solution.chroma, u, atol=1e-8)
        np.testing.assert_allclose(solution.weights, w, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5)])
def test_tiny_images(shape):
    d = data(shape, count=1)
    for solver in (PRIMAL_DUAL, INERTIAL):
        solution = solve(problem(d), solver, 3)
        u, _ = expected(d, solver, 3)
        np.testing.assert_allclose(solution.chroma, u, atol=1e-4)


def test_yuv_stays_in_the_exact_gamut():
    rng = np.random.default_rng(5)
    luma = rng.uniform(0, 255, SHAPE)
    d = data()
    d.luminance, d.candidates = luma, rng.uniform(-120, 120, d.candidates.shape)

    def project(u):
        return np.stack(project_yuv(jnp.asarray(u[..., 0]), jnp.asarray(u[..., 1]), jnp.asarray(luma)), -1)

    with float64():
        solution = solve(problem(d, np.float64, space="yuv"), PRIMAL_DUAL, 20)
        u, w = reference.primal_dual(d, 20, 0.05, 2.5, 0.05, project=project)
        np.testing.assert_allclose(solution.chroma, u, atol=1e-8)
        np.testing.assert_allclose(solution.weights, w, atol=1e-9)
    np.testing.assert_allclose(project(np.asarray(solution.chroma)), solution.chroma, atol=1e-3)


def test_both_solvers_reach_one_energy_with_fixed_weights():
    d = data()
    primal_dual = solve(problem(d), FIXED, 1000)
    inertial = solve(problem(d), InertialForwardBackward(smoothing=0.5, weight_step=0.0), 1000)
    np.testing.assert_allclose(primal_dual.energies[-1], inertial.energies[-1], rtol=2e-6)
    np.testing.assert_allclose(primal_dual.chroma, inertial.chroma, atol=0.02)


FIXED_OF_EACH = [FIXED, InertialForwardBackward(smoothing=0.5, inertia=0.9, weight_step=0.0)]


@pytest.mark.parametrize("solver", FIXED_OF_EACH, ids=["primal-dual", "inertial"])
def test_fixed_weights_agree_with_reference(solver):
    d = data()
    with float64():
        solution = solve(problem(d, np.float64), solver, 100)
        u, _ = expected(d, solver, 100)
        np.testing.assert_allclose(solution.chroma, u, atol=1e-8)
        np.testing.assert_array_equal(solution.weights, d.weights)


@pytest.mark.parametrize("solver", FIXED_OF_EACH, ids=["primal-dual", "inertial"])
def test_a_weight_step_of_zero_need_not_be_known(solver):
    p, moved = problem(data()), solve(problem(data()), dataclasses.replace(solver, weight_step=0.05), 20)

    @jax.jit
    def ended(weight_step):
        return solve(p, dataclasses.replace(solver, weight_step=weight_step), 20, init=moved)

    for name, unknown, known in zip(
        ("chroma", "weights"),
        *[(s.chroma, s.weights) for s in (ended(0.0), solve(p, solver, 20, init=moved))],
        strict=True,
    ):
        np.testing.assert_allclose(known, unknown, atol=2e-4, err_msg=name)
    np.testing.assert_array_equal(solve(p, solver, 20, init=moved).weights, moved.weights)


@pytest.mark.parametrize("solver", FIXED_OF_EACH, ids=["primal-dual", "inertial"])
def test_a_weight_step_of_zero_has_a_derivative(solver):
    def chroma(weight_step):
        return solve(p, dataclasses.replace(solver, weight_step=weight_step), 8).chroma

    with float64():
        p, step = problem(data(), np.float64), 1e-9
        slope = jax.jacfwd(chroma)(0.0)
        assert np.abs(slope).max() > 1
        np.testing.assert_allclose(slope, (chroma(step) - chroma(0.0)) / step, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("inertia", [0.0, 0.95])
@pytest.mark.parametrize("rho", [0.0, None, 1e-3, 1.0])
def test_lyapunov_decreases(inertia, rho):
    solver = InertialForwardBackward(0.5, inertia, 0.5, rho)
    with float64():
        p = problem(data(), np.float64)
        solver = jax.tree.map(jnp.asarray, solver)

        @jax.jit
        def values(p, solver):
            def body(state, _):
                state = solver.step(p, state)
                return state, solver.lyapunov(p, state)

            state = solver.init(p)
            return solver.lyapunov(p, state), jax.lax.scan(body, state, None, length=200)[1]

        first, rest = values(p, solver)
        sequence = np.concatenate([[first], rest])
    assert (np.diff(sequence) <= 1e-9 * sequence[0]).all()
    assert sequence[-1] < sequence[0]


SYMMETRIES = {
    "flip columns": lambda x: x[:, ::-1],
    "flip rows": lambda x: x[::-1],
    "transpose": lambda x: np.swapaxes(x, 0, 1),
}


@pytest.mark.parametrize("name", SYMMETRIES)
def test_converged_result_has_the_symmetries_of_the_square(name):
    # Forward differences are not symmetric under flips: only the transpose is exact, flips need a constant luminance
    # and a minimiser whose gradient lies along one axis. Here every row (or column) is the same.
    turn = SYMMETRIES[name]
    d = data((12, 12), count=3)
    if name != "transpose":
        axis = 0 if name == "flip columns" else 1
        for key in ("luminance", "candidates", "weights"):
            value = getattr(d, key)
            setattr(d, key, np.repeat(value.take([0], axis), 12, axis))
    turned = reference.Data(*(turn(v) for v in (d.luminance, d.candidates, d.weights)), d.fidelity, d.coupling)
    if name == "flip columns" or name == "flip rows":
        d.coupling = turned.coupling = 0.0
    solution, other = solve(problem(d), FIXED, 400), solve(problem(turned), FIXED, 400)
    np.testing.assert_allclose(turn(np.asarray(solution.chroma)), other.chroma, atol=0.02)


@settings(max_examples=10)
@given(st.permutations(range(COUNT)))
def test_order_of_candidates_does_not_matter(order):
    order = list(order)
    d = data()
    mixed = reference.Data(d.luminance, d.candidates[:, :, order], d.weights[:, :, order], d.fidelity, d.coupling)
    for solver in (PRIMAL_DUAL, INERTIAL):
        solution, other = solve(problem(d), solver, 20), solve(problem(mixed), solver, 20)
        np.testing.assert_allclose(solution.chroma, other.chroma, atol=1e-3)
        np.testing.assert_allclose(np.asarray(solution.weights)[:, :, order], other.weights, atol=1e-4)


@given(st.floats(-40, 40, width=32), st.floats(-40, 40, width=32))
@settings(max_examples=10)
def test_shifting_all_colors_shifts_the_result(a, b):
    d = data()
    shifted = reference.Data(d.luminance, d.candidates + np.array([a, b]), d.weights, d.fidelity, d.coupling)
    solution, other = solve(problem(d), PRIMAL_DUAL, 20), solve(problem(shifted), PRIMAL_DUAL, 20)
    np.testing.assert_allclose(solution.chroma + np.array([a, b]), other.chroma, atol=2e-3)


@pytest.mark.parametrize("count", [COUNT, SORTED_UP_TO + 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_step_keeps_every_shape_and_dtype(count, dtype):
    with float64():
        p = problem(data(count=count), dtype)
        for solver in (PRIMAL_DUAL, INERTIAL):
            state = jax.eval_shape(solver.init, p)
            after = jax.eval_shape(solver.step, p, state)
            assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
                lambda x: (x.shape, x.dtype), after
            )
            assert {x.dtype for x in jax.tree.leaves(state)} == {jnp.dtype(dtype)}


def test_chroma_stays_in_the_hull_of_the_candidates():
    d = data()
    solution = solve(problem(d), PRIMAL_DUAL, 100)
    assert np.abs(solution.chroma).max() <= np.abs(d.candidates).max() + 1e-3


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: PrimalDual(0.1, 2.0), "8 · 0.1 · 2 = 1.6"),
        (lambda: PrimalDual(-0.1, 2.0), "dual_step must be"),
        (lambda: PrimalDual(weight_step=float("nan")), "weight_step must be"),
        (lambda: InertialForwardBackward(smoothing=0.0), "smoothing must be"),
        (lambda: InertialForwardBackward(weight_inertia=1.0), "weight_inertia must be"),
        (lambda: InertialForwardBackward(inertia=1.2), "inertia must be"),
    ],
)
def test_steps_that_cannot_work_are_refused(build, words):
    with pytest.raises(InputError, match=words):
        build()
