"""The projection onto the simplex, against brute force and its definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcolor.coupled_tv.simplex import SORTED_UP_TO, _sorting_network, project_simplex
from jaxcolor.errors import InputError
from tests.coupled_tv_data import float64
from tests.reference import coupled_tv as reference

COUNTS = [1, 2, 3, 10, SORTED_UP_TO, SORTED_UP_TO + 1, 40, 313]
project_rows = jax.jit(jax.vmap(project_simplex))


def brute_force(v):
    """The best of the projections onto the affine hulls of all faces that are feasible."""
    points = []
    for size in range(1, len(v) + 1):
        for face in map(list, itertools.combinations(range(len(v)), size)):
            w = np.zeros(len(v))
            w[face] = v[face] - (v[face].sum() - 1) / size
            points.append(w)
    feasible = [w for w in points if w.min() >= 0]
    return min(feasible, key=lambda w: np.sum((w - v) ** 2))


def compared(vectors, comparators):
    entries = list(vectors.T)
    for i, j in comparators:
        entries[i], entries[j] = np.maximum(entries[i], entries[j]), np.minimum(entries[i], entries[j])
    return np.stack(entries, axis=1)


def sorts_every_zero_one_vector(size, comparators):
    # By the zero-one principle it then sorts everything.
    bits = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    return (np.diff(compared(bits, comparators), axis=1) <= 0).all()


@pytest.mark.parametrize("size", range(1, 17))
def test_network_sorts_every_zero_one_vector(size):
    assert sorts_every_zero_one_vector(size, _sorting_network(size))


@pytest.mark.parametrize("size", range(17, SORTED_UP_TO + 1))
def test_larger_network_sorts_both_parts_and_then_merges_all_that_they_can_be(size):
    # 2^32 vectors are too many, but of a sorted vector of zeros and ones only the number of ones is free.
    network = _sorting_network(size)
    merging = next(n for n, (i, j) in enumerate(network) if i < 16 <= j)
    assert sorts_every_zero_one_vector(16, [pair for pair in network[:merging] if pair[1] < 16])
    assert sorts_every_zero_one_vector(size - 16, [(i - 16, j - 16) for i, j in network[:merging] if i >= 16])
    ones = np.array(list(itertools.product(range(17), range(size - 15))))
    parts = [(np.arange(length) < ones[:, [n]]).astype(int) for n, length in enumerate((16, size - 16))]
    assert (np.diff(compared(np.hstack(parts), network[merging:]), axis=1) <= 0).all()


@given(st.integers(17, SORTED_UP_TO), st.integers(0, 2**32 - 1))
def test_larger_network_sorts_random_vectors(size, seed):
    vectors = np.random.default_rng(seed).normal(size=(20, size))
    np.testing.assert_array_equal(compared(vectors, _sorting_network(size)), -np.sort(-vectors))


@pytest.mark.parametrize("count", [3, 10, SORTED_UP_TO])
def test_nan_anywhere_reaches_every_weight(count):
    v = np.random.default_rng(count).normal(0, 1, (count, count)).astype(np.float32)
    v[np.arange(count), np.arange(count)] = np.nan
    assert np.isnan(project_rows(v)).all()


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_agrees_with_brute_force(count):
    v = np.random.default_rng(count).normal(0, 1, (50, count)).astype(np.float32)
    expected = np.array([brute_force(row.astype(np.float64)) for row in v])
    np.testing.assert_allclose(project_rows(v), expected, atol=1e-6)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_agrees_with_sorting_in_float64(count, scale):
    v = np.random.default_rng(count).normal(0, scale, (200, count)).astype(np.float32)
    w = np.asarray(project_rows(v))
    np.testing.assert_allclose(w, reference.project_simplex(v.astype(np.float64)), atol=2e-6 * max(scale, 1))
    np.testing.assert_allclose(w.sum(-1), 1, atol=1e-5 * max(scale, 1))


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4))
def test_properties(values):
    v = jnp.array(values, jnp.float32)
    w = project_rows(v[None])[0]
    assert float(w.min()) >= 0
    scale = max(1.0, float(jnp.abs(v).max()))
    np.testing.assert_allclose(float(w.sum()), 1, atol=1e-6 * scale)
    np.testing.assert_allclose(project_rows(w[None])[0], w, atol=1e-6)
    np.testing.assert_allclose(project_rows(v[None, ::-1])[0], w[::-1], atol=1e-6 * scale)


@pytest.mark.parametrize("count", [3, 40])
def test_ties_and_corners(count):
    same = jnp.full((1, count), 7.0)
    np.testing.assert_allclose(project_rows(same)[0], 1 / count, atol=1e-6)
    corner = jnp.zeros((1, count)).at[0, 1].set(50.0)
    np.testing.assert_array_equal(project_rows(corner)[0], jnp.zeros(count).at[1].set(1.0))
    assert bool(jnp.isnan(project_rows(same.at[0, 0].set(jnp.nan))).all())


@pytest.mark.parametrize("count", [1, 5, 40])
def test_derivatives(count):
    with float64():
        v = np.random.default_rng(3).normal(0, 0.3, count)
        jacobian = jax.jit(jax.jacrev(project_simplex))(v)
        np.testing.assert_allclose(jacobian, jax.jit(jax.jacfwd(project_simplex))(v), atol=1e-12)
        step = 1e-6 * np.eye(count)
        ahead, behind = project_rows(v + step), project_rows(v - step)
        np.testing.assert_allclose(jacobian, (ahead - behind).T / 2e-6, atol=1e-6)
        support = reference.project_simplex(v) > 0
        expected = np.where(np.outer(support, support), np.eye(count) - 1 / support.sum(), 0)
        np.testing.assert_allclose(jacobian, expected, atol=1e-12)


def test_dtype_is_kept():
    for count in (3, 40):
        for dtype in (jnp.bfloat16, jnp.float32):
            shape = jax.ShapeDtypeStruct((count,), dtype)
            assert jax.eval_shape(project_simplex, shape).dtype == dtype


def test_integers_and_one_vector_at_a_time() -> None:
    np.testing.assert_allclose(project_simplex(jnp.array([1, 2, 3])), [0, 0, 1])
    with pytest.raises(InputError, match=r"takes one vector \[k\], got shape \(2, 3\)"):
        project_simplex(jnp.zeros((2, 3)))
