"""Gradient, divergence, metric and total variation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcolor.coupled_tv import operators
from tests.coupled_tv_data import float64
from tests.reference import coupled_tv as reference

SHAPES = [(1, 1), (1, 2), (2, 1), (1, 7), (7, 1), (2, 2), (3, 5), (8, 8)]


@pytest.mark.parametrize("shape", SHAPES)
def test_adjoint_and_reference(shape):
    rng = np.random.default_rng(1)
    with float64():
        v, x, y = rng.normal(size=(3, *shape))
        gx, gy = operators.gradient(jnp.asarray(v))
        d = operators.divergence(jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_allclose(np.stack([gx, gy], -1), reference.gradient(v))
        np.testing.assert_allclose(d, reference.divergence(np.stack([x, y], -1)), atol=1e-12)
        np.testing.assert_allclose((gx * x + gy * y).sum(), -(v * d).sum(), atol=1e-12)
        inner = operators.divergence_of_inner(gx, gy)
        np.testing.assert_allclose(inner, operators.divergence(gx, gy), atol=1e-12)


def test_adjoint_with_every_extent():
    rng = np.random.default_rng(2)
    v, x, y = (jnp.asarray(a, jnp.float32) for a in rng.normal(size=(3, 4, 5)))

    @jax.jit
    def both(extent):
        gx, gy = operators.gradient(v, extent)
        d = operators.divergence(x, y, extent)
        return gx, gy, d

    for rows, columns in itertools.product(range(1, 5), range(1, 6)):
        gx, gy, d = both((rows, columns))
        inner = np.s_[:rows, :columns]
        alone = reference.gradient(np.asarray(v, float)[inner])
        np.testing.assert_allclose(np.stack([gx, gy], -1)[inner], alone, atol=1e-6)
        field = np.stack([x, y], -1).astype(float)[inner]
        np.testing.assert_allclose(np.asarray(d)[inner], reference.divergence(field), atol=1e-6)
        outside = np.ones(v.shape, bool)
        outside[inner] = False
        for plane in (gx, gy, d):
            assert not np.asarray(plane)[outside].any()
        gx, gy, d = (np.asarray(plane, float) for plane in (gx, gy, d))
        np.testing.assert_allclose((gx * x + gy * y).sum(), -(v * d).sum(), atol=1e-5)


def test_norm_bound():
    v = jnp.asarray((np.indices((40, 40)).sum(0) % 2) * 2.0 - 1)
    for _ in range(50):
        v = -operators.divergence(*operators.gradient(v))
        norm = jnp.linalg.norm(v)
        v = v / norm
    assert 7.9 < float(norm) <= operators.GRADIENT_NORM_SQUARED


def test_metric_is_the_row_sums():
    a = np.random.default_rng(3).uniform(0.5, 9, (5, 6))
    np.testing.assert_allclose(operators.metric(jnp.asarray(a, jnp.float32)), reference.row_sums(a), rtol=1e-5)
    assert float(operators.metric(jnp.ones((1, 1)))[0, 0]) == 0


def test_gradients_are_finite_where_nothing_varies():
    def tv(luminance, u, v, smoothing):
        return operators.coupled_total_variation(luminance, (u, v), 2.0, smoothing)

    flat = jnp.ones((3, 3))
    for smoothing in (0.0, 0.1):
        for slope in jax.grad(tv, (0, 1, 2))(flat, flat, flat, smoothing):
            np.testing.assert_array_equal(slope, 0)


def test_sum_of_a_large_plane():
    v = jnp.full((5000, 4000), 0.7, jnp.float32)
    np.testing.assert_allclose(float(operators.total(v)), 0.7 * v.size, rtol=1e-5)


@pytest.mark.parametrize("loop", [False, True])
def test_what_is_kept_stays_a_computation_of_its_own(loop):
    """XLA:CPU draws into its consumers whatever it may; also where all is known, as in a ``jit`` of one's own."""

    def step(x):
        root = operators.computed_once(lambda x: jnp.sqrt(1 + jnp.square(x)), x)
        return root + jnp.roll(root, 1)

    def run(x):
        return jax.lax.fori_loop(0, 9, lambda _, x: step(x), x) if loop else step(x)

    x = jnp.arange(64.0)
    for program in (jax.jit(run).lower(x), jax.jit(lambda: run(x)).lower()):
        assert (" conditional(" in program.compile().as_text()) == (jax.default_backend() == "cpu")
    want = np.sqrt(1 + np.arange(64.0) ** 2)
    np.testing.assert_allclose(step(x), want + np.roll(want, 1), rtol=1e-6)
