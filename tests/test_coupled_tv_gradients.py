"""Derivatives through a fixed number of steps: against finite differences in float64, finite in float32, lean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcolor.coupled_tv import CoupledTVProblem, InertialForwardBackward, PrimalDual, solve
from jaxcolor.coupled_tv.simplex import SORTED_UP_TO
from tests.coupled_tv_data import data, float64, problem

PRIMAL_DUAL = PrimalDual(dual_step=0.05, primal_step=2.5, weight_step=0.02)
INERTIAL = InertialForwardBackward(0.5, 0.9, 0.3, 0.02)
SHAPE = (4, 5)


def loss(arguments, solver, probe, steps=12):
    solution = solve(CoupledTVProblem(*arguments), solver, steps)
    return (solution.chroma * probe).sum() + 10 * (solution.weights[..., 0] * probe[..., 0]).sum()


@pytest.mark.parametrize("count", [2, pytest.param(SORTED_UP_TO + 1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("solver", [PRIMAL_DUAL, INERTIAL], ids=["primal-dual", "inertial"])
def test_gradients_agree_with_finite_differences(solver, count):
    d = data(SHAPE, count)
    rng = np.random.default_rng(6)
    with float64():
        # Interior weights and slightly uneven colors keep away from the kinks.
        weights = 0.5 * d.weights + 0.5 / count
        values = (d.luminance, d.candidates + rng.normal(size=d.candidates.shape), weights, 0.02, 20.0)
        values = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), values)
        probe = jnp.asarray(rng.normal(size=(*SHAPE, 2)))
        both = jax.jit(jax.value_and_grad(loss))
        slopes = both(values, solver, probe)[1]
        for i, value in enumerate(values):
            direction = rng.normal(size=value.shape) * (1e-5 if i < 2 else 1e-7)
            ahead, behind = (
                both((*values[:i], value + sign * direction, *values[i + 1 :]), solver, probe)[0] for sign in (1, -1)
            )
            np.testing.assert_allclose((slopes[i] * direction).sum(), (ahead - behind) / 2, rtol=2e-4)


@pytest.mark.parametrize("solver", [PRIMAL_DUAL, pytest.param(INERTIAL, marks=pytest.mark.slow)])
def test_gradients_are_finite_on_flat_images(solver):
    flat = CoupledTVProblem(jnp.full(SHAPE, 50.0), jnp.zeros((*SHAPE, 2, 2)), jnp.full((*SHAPE, 2), 1 / 2))
    slopes = jax.jit(jax.grad(lambda p: solve(p, solver, 5).chroma.sum() + solve(p, solver, 5).energies[-1]))(flat)
    for leaf in jax.tree.leaves(slopes):
        assert np.isfinite(leaf).all()
    # A gradient with respect to a problem is a problem: its arrays come in the user's layout.
    assert slopes.candidates.shape == (*SHAPE, 2, 2)
    assert slopes.weights.shape == (*SHAPE, 2)


@pytest.mark.parametrize("solver", [PRIMAL_DUAL, INERTIAL], ids=["primal-dual", "inertial"])
def test_a_pixel_that_has_chosen_can_be_moved(solver):
    """Weights of 0 lie on the kink of the projection, where a derivative could be lost, or half of it."""
    luminance, candidates = jnp.full(SHAPE, 50.0), jnp.broadcast_to(jnp.array([[40.0, 0], [0, 40]]), (*SHAPE, 2, 2))
    direction = jnp.broadcast_to(jnp.array([-1.0, 1.0]), (*SHAPE, 2))

    def moved(amount):
        weights = jnp.array([1.0, 0.0]) + amount * direction
        solution = solve(CoupledTVProblem(luminance, candidates, weights), solver, 0)
        return solution.weights, solution.chroma

    weights, chroma = jax.jvp(moved, (0.0,), (1.0,))[1]
    np.testing.assert_array_equal(weights, direction)
    np.testing.assert_allclose(chroma, 40 * direction, rtol=1e-6)


@pytest.mark.slow
def test_forward_mode_agrees_with_reverse_mode():
    p = problem(data(SHAPE, 3))

    def total(fidelity):
        return solve(p.replace(fidelity=fidelity), PRIMAL_DUAL, 12).chroma.sum()

    forward, reverse = jax.jit(jax.jacfwd(total))(jnp.float32(0.02)), jax.jit(jax.jacrev(total))(jnp.float32(0.02))
    np.testing.assert_allclose(forward, reverse, rtol=1e-3)


def test_memory_grows_with_the_square_root_of_the_steps():
    p = problem(data((32, 32), 1))

    def temporaries(steps):
        gradient = jax.jit(jax.grad(lambda p: solve(p, PRIMAL_DUAL, steps).chroma.sum()))
        return gradient.lower(p).compile().memory_analysis().temp_size_in_bytes

    few, many = temporaries(16), temporaries(400)
    # 25 times the steps, five times the checkpoints; storing every state would be near 25.
    assert many < 6 * few
    state = sum(x.nbytes for x in jax.tree.leaves(PRIMAL_DUAL.init(p)))
    assert many < 3 * 2 * 20 * state


def test_forward_mode_in_several_directions_at_once():
    """At this size the sum over the support came out wrong under vmap, see ``along_simplex``."""
    keys, shape, count = jax.random.split(jax.random.key(0), 3), (64, 64), 10
    luminance = jax.random.uniform(keys[0], shape, maxval=100.0)
    candidates = 30 * jax.random.normal(keys[1], (*shape, count, 2))
    weights = jax.random.dirichlet(keys[2], jnp.ones(count), shape)

    def chroma(numbers):
        # Built inside jit of arrays that are known, which are checked as outside.
        made = CoupledTVProblem(luminance, candidates, weights, numbers[0], numbers[1])
        return solve(made, PrimalDual(), steps=2).chroma

    numbers = jnp.array([0.3, 2.0])
    together = jax.jit(jax.jacfwd(chroma))(numbers)
    one = jax.jit(lambda direction: jax.jvp(chroma, (numbers,), (direction,))[1])
    np.testing.assert_allclose(together, jnp.stack([one(d) for d in jnp.eye(2)], -1), rtol=1e-4, atol=1e-3)
