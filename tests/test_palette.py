"""The 313 bins, soft encoding and rebalancing against brute force in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcolor.color.palette import ab_bins, nearest_bins, rebalancing_weights, smooth_prior, soft_encode
from tests.coupled_tv_data import float64
from tests.reference import cic as reference

BINS = np.float64(ab_bins())
CHROMA = st.one_of(st.sampled_from([0.0, 10.0, -35.0]), st.floats(-130, 130), st.floats(-1e3, 1e3))

nearest = jax.jit(nearest_bins, static_argnums=(2,))
encode = jax.jit(soft_encode, static_argnums=(2,))
smooth = jax.jit(smooth_prior)


def priors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    some = np.where(rng.uniform(size=313) < 0.4, 0, rng.exponential(size=313) ** 3)
    return {"uniform": np.full(313, 1 / 313), "with zeros": some / some.sum(), "one bin": np.eye(313)[100]}


def test_bins_are_the_grid_points_of_the_polygon_in_lexicographic_order() -> None:
    bins = ab_bins()
    assert bins.shape == (313, 2)
    assert bins.dtype == np.float32
    np.testing.assert_array_equal(bins, reference.bins())
    assert [tuple(b) for b in bins] == sorted({tuple(b) for b in bins})


def test_bins_are_those_of_the_published_file() -> None:
    # The rows that can be read in issue 23 of the authors' repository, and the number of bins of each a*.
    np.testing.assert_array_equal(ab_bins()[[0, 1, -1]], [[-90, 50], [-90, 60], [100, 0]])
    counts = np.unique(ab_bins()[:, 0], return_counts=True)[1]
    assert counts.tolist() == [5, 8, 10, 12, 14, 15, 16, 16, 17, 18, 18, 18, 19, 20, 19, 20, 20, 19, 19, 10]


@pytest.mark.parametrize("neighbors", [1, 5, 10])
def test_soft_encoding_agrees_with_brute_force(neighbors: int) -> None:
    ab = np.random.default_rng(neighbors).uniform(-120, 120, (6, 7, 2))
    got = encode(jnp.float32(ab), BINS, neighbors)
    want = [[reference.soft_encode(color, BINS, neighbors, 5.0) for color in row] for row in ab]
    np.testing.assert_allclose(got, want, atol=2e-5)
    assert np.all((np.array(got) > 0).sum(-1) <= neighbors)


@given(CHROMA, CHROMA)
def test_nearest_bins_are_nearest_and_weighted_by_distance(a: float, b: float) -> None:
    ab = np.float32([a, b])
    indices, weights = (np.array(x) for x in nearest(ab, BINS, 5))
    distance2 = ((BINS - ab) ** 2).sum(-1)
    # Many bins may be equally far, so distances are compared rather than indices.
    np.testing.assert_allclose(distance2[indices], np.sort(distance2)[:5], rtol=1e-6, atol=1e-4)
    assert len(set(indices.tolist())) == 5
    want = np.exp(-(distance2[indices] - distance2.min()) / 50)
    np.testing.assert_allclose(weights, want / want.sum(), atol=1e-4 * (1 + np.abs(ab).max() / 50))
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-6)


def test_soft_encoding_under_vmap_and_with_gradients() -> None:
    ab = np.random.default_rng(3).uniform(-90, 90, (4, 3, 2)).astype(np.float32)
    mapped = jax.jit(jax.vmap(soft_encode, (0, None)))
    np.testing.assert_allclose(mapped(ab, BINS), encode(ab, BINS), atol=1e-7)
    with float64():
        step = np.array([2e-6, -1e-6])
        moments = jnp.sin(jnp.arange(313.0))

        @jax.jit
        def encoded(ab: jax.Array) -> tuple[jax.Array, jax.Array]:
            value, pull = jax.vjp(lambda ab: soft_encode(ab, BINS) @ moments, ab)
            return value, pull(jnp.ones_like(value))[0]

        ab = jnp.float64(ab)
        want = (encoded(ab + step)[0] - encoded(ab - step)[0]) / 2
        np.testing.assert_allclose(encoded(ab)[1] @ step, want, atol=1e-12)


@pytest.mark.parametrize("name", priors())
@pytest.mark.parametrize("sigma", [5.0, 20.0])
def test_smoothing_agrees_with_the_reference_and_keeps_the_mass(name: str, sigma: float) -> None:
    prior = priors()[name]
    smoothed = np.array(smooth(jnp.float32(prior), BINS, sigma))
    np.testing.assert_allclose(smoothed, reference.smooth_prior(prior, BINS, sigma), atol=1e-6)
    assert np.all(smoothed >= 0)
    np.testing.assert_allclose(smoothed.sum(), 1, atol=1e-5)


def test_smoothing_spreads_equally_to_both_sides() -> None:
    center = int(np.flatnonzero((BINS == [0, 0]).all(1))[0])
    smoothed = np.array(smooth(jnp.eye(313)[center], BINS))
    by_bin = {tuple(b): p for b, p in zip(BINS, smoothed, strict=True)}
    assert smoothed.argmax() == center
    for a, b in [(10, 0), (20, 10), (30, -50)]:
        np.testing.assert_allclose([by_bin[-a, -b], by_bin[b, a]], by_bin[a, b], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", priors())
@pytest.mark.parametrize("uniform_share", [0.0, 0.25, 0.5, 1.0])
def test_rebalancing_weights_agree_with_the_reference(name: str, uniform_share: float) -> None:
    prior = priors()[name]
    weights = np.array(rebalancing_weights(jnp.float32(prior), uniform_share))
    np.testing.assert_allclose(weights, reference.rebalancing_weights(prior, uniform_share), rtol=2e-5)
    np.testing.assert_allclose(prior @ weights, 1, rtol=1e-5)
    seen = prior > 0
    np.testing.assert_array_equal(weights[~seen], 0)
    if uniform_share == 1:
        np.testing.assert_allclose(weights[seen], 1, rtol=1e-5)
    if uniform_share == 0:
        np.testing.assert_allclose(weights[seen] * prior[seen], 1 / seen.sum(), rtol=1e-5)


@given(st.lists(st.floats(0, 1, width=32), min_size=313, max_size=313), st.floats(0, 1))
def test_rebalancing_gives_rarer_colors_more_weight(masses: list[float], uniform_share: float) -> None:
    prior = np.float64(masses) + np.eye(313)[0]
    prior = np.where(prior < 1e-6, 0, prior)
    prior = prior / prior.sum()
    weights = np.array(rebalancing_weights(jnp.float32(prior), uniform_share))
    assert np.all(np.isfinite(weights))
    np.testing.assert_allclose(prior @ weights, 1, rtol=1e-4)
    order = np.argsort(prior[prior > 0])
    assert np.all(np.diff(weights[prior > 0][order]) <= 1e-5 * weights.max())
