"""Distributions over a palette: read-outs, up-sampling and the strongest modes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcolor.color import distribution
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.errors import InputError
from tests.coupled_tv_data import float64
from tests.reference import cic as reference

annealed_mean = jax.jit(ColorDistribution.annealed_mean)
upsample = jax.jit(ColorDistribution.upsample, static_argnums=1)


def random_distribution(height: int = 4, width: int = 5, colors: int = 12, seed: int = 0) -> ColorDistribution:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(colors, 0.3), (height, width))
    palette = rng.uniform(-100, 100, (colors, 2))
    return ColorDistribution(jnp.float32(probabilities), jnp.float32(palette))


@given(st.integers(0, 10_000), st.floats(0.05, 1.0))
def test_annealed_mean_agrees_with_the_reference(seed: int, temperature: float) -> None:
    dist = random_distribution(seed=seed)
    p, palette = np.float64(dist.probabilities), np.float64(dist.palette)
    got = annealed_mean(dist, temperature)
    np.testing.assert_allclose(got, reference.annealed_mean(p, palette, temperature), atol=3e-3)
    # Mean and annealed mean lie among the colors.
    assert np.all((got >= palette.min(0) - 1e-3) & (got <= palette.max(0) + 1e-3))


def test_annealing_goes_from_the_mode_to_the_mean() -> None:
    dist = random_distribution()
    np.testing.assert_allclose(annealed_mean(dist, 1.0), dist.mean(), atol=1e-3)
    np.testing.assert_allclose(annealed_mean(dist, 1e-4), dist.palette[dist.modes()], atol=1e-2)
    np.testing.assert_array_equal(dist.modes(), np.argmax(dist.probabilities, -1))
    np.testing.assert_allclose(dist.annealed(0.38).probabilities.sum(-1), 1, atol=1e-5)


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_pale_and_undecided_cells_take_a_share_of_the_annealed(seed: int, share: float) -> None:
    # Colors near each other and far from each other, so that all kinds of cells occur.
    dist = random_distribution(seed=seed)
    dist = ColorDistribution(dist.probabilities, dist.palette * (0.1, 0.3, 1.0)[seed % 3])
    p, palette = np.float64(dist.probabilities), np.float64(dist.palette)
    annealed = p ** (1 / 0.38)
    annealed /= annealed.sum(-1, keepdims=True)
    want = p.copy()
    for cell in np.ndindex(4, 5):
        mean, lively = p[cell] @ palette, annealed[cell] @ palette
        deviation = np.sqrt(p[cell] @ ((palette - mean) ** 2).sum(-1))
        if mean @ mean < lively @ lively:
            want[cell] += share * np.clip((deviation - 10) / 10, 0, 1) * (annealed[cell] - p[cell])
    np.testing.assert_allclose(dist.enlivened(share).probabilities, want, atol=2e-5)


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_what_is_dropped_goes_to_the_nearest_color_that_is_kept(seed: int, count: int) -> None:
    dist = random_distribution(seed=seed)
    palette, want = np.asarray(dist.palette), np.zeros((4, 5, 12))
    for row, column in np.ndindex(4, 5):
        cell = np.asarray(dist.probabilities[row, column])
        kept = np.argsort(-cell)[:count]
        for color, probability in enumerate(cell):
            nearest = kept[np.linalg.norm(palette[kept] - palette[color], axis=-1).argmin()]
            want[row, column, nearest] += probability
    np.testing.assert_allclose(dist.concentrated(count).probabilities, want, atol=1e-6)


@pytest.mark.parametrize("count", [0, 13])
def test_concentration_on_an_impossible_number_of_colors_is_refused(count: int) -> None:
    with pytest.raises(InputError, match="between 1 and 12"):
        random_distribution().concentrated(count)


def test_certain_cells_keep_their_color_with_finite_gradients() -> None:
    dist = ColorDistribution(jnp.eye(3)[None], jnp.array([[50.0, 0.0], [0.0, -20.0], [-70.0, 90.0]]))
    np.testing.assert_allclose(annealed_mean(dist)[0], dist.palette, atol=1e-4)

    @jax.jit
    def total(d: ColorDistribution, temperature: float) -> jax.Array:
        return (d.annealed_mean(temperature) + d.entropy()[..., None]).sum()

    gradients = jax.grad(total, argnums=(0, 1))(dist, 0.38)
    assert np.all(np.isfinite(gradients[1]))
    assert np.all(np.isfinite(gradients[0].palette))
    assert np.all(np.isfinite(gradients[0].probabilities))


def test_moments_and_entropy() -> None:
    dist = random_distribution()
    p, palette = np.float64(dist.probabilities), np.float64(dist.palette)
    moments = jax.jit(lambda d: (d.mean(), d.variance(), d.entropy()))
    mean, variance, entropy = moments(dist)
    np.testing.assert_allclose(mean, p @ palette, atol=1e-3)
    spread = ((palette - (p @ palette)[..., None, :]) ** 2).sum(-1)
    np.testing.assert_allclose(variance, (p * spread).sum(-1), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(entropy, -(p * np.log(np.maximum(p, 1e-300))).sum(-1), atol=1e-5)
    assert np.all((entropy >= 0) & (entropy <= math.log(12)))
    uniform = ColorDistribution(jnp.full((1, 1, 313), 1 / 313), jnp.zeros((313, 2)))
    certain = ColorDistribution(jnp.eye(313)[:1, None], jnp.ones((313, 2)))
    np.testing.assert_allclose([uniform.entropy(), certain.entropy()], [[[math.log(313)]], [[0]]], atol=1e-4)
    np.testing.assert_array_equal(certain.variance(), 0)


def test_read_outs_differentiate_as_differences_do() -> None:
    with float64():
        start = random_distribution(2, 2, 6)
        p, palette = jnp.float64(start.probabilities), jnp.float64(start.palette)
        direction = np.random.default_rng(5).normal(size=p.shape) * 1e-7 * p

        @jax.jit
        def total(p: jax.Array) -> jax.Array:
            d = ColorDistribution(p, palette)
            candidates, weights = d.strongest((5, 3), 4)
            strongest = (candidates * weights[..., None] ** 2).sum()
            return d.annealed_mean(0.5).sum() + d.entropy().sum() + d.variance().sum() + strongest

        got = (jax.jit(jax.grad(total))(p) * direction).sum()
        np.testing.assert_allclose(got, (total(p + direction) - total(p - direction)) / 2, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 5), (16, 20), (23, 41), (4, 17)])
def test_upsampling_is_bilinear_and_keeps_distributions(shape: tuple[int, int]) -> None:
    dist = random_distribution()
    up = upsample(dist, shape).probabilities
    np.testing.assert_allclose(up, jax.image.resize(dist.probabilities, (*shape, 12), "bilinear"), atol=1e-6)
    np.testing.assert_allclose(up.sum(-1), 1, atol=1e-5)
    assert np.all(up >= 0)


def assert_strongest(dist: ColorDistribution, shape: tuple[int, int], count: int, found: tuple) -> None:
    """The found candidates are ``count`` different colors with the greatest up-sampled probabilities, in order."""
    candidates, weights = map(np.array, found)
    height, width = shape
    assert candidates.shape == (height, width, count, 2)
    assert weights.shape == (height, width, count)
    full = np.float64(upsample(dist, shape).probabilities)
    largest = -np.sort(-full, axis=-1)[..., :count]
    np.testing.assert_allclose(weights, largest / largest.sum(-1, keepdims=True), atol=2e-5)
    # Nearly equal probabilities may change places, so colors are looked up rather than compared.
    same = np.all(candidates[..., None, :] == np.float32(dist.palette), axis=-1)
    assert np.all(same.sum(-1) == 1)
    assert np.all(same.sum(-2) <= 1)
    np.testing.assert_allclose((same * full[..., None, :]).sum(-1), largest, atol=1e-5)


@pytest.mark.parametrize(
    ("grid", "shape", "count"),
    [
        ((4, 5), (17, 23), 10),
        ((4, 5), (1, 1), 1),
        ((4, 5), (1, 40), 3),
        ((4, 5), (40, 1), 12),
        ((4, 5), (3, 2), 2),
        ((1, 1), (6, 7), 4),
        ((1, 6), (9, 5), 4),
    ],
)
def test_strongest_are_the_top_of_the_upsampled_distribution(
    grid: tuple[int, int], shape: tuple[int, int], count: int
) -> None:
    dist = random_distribution(*grid)
    assert_strongest(dist, shape, count, dist.strongest(shape, count))


@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.3, 30.0]))
@settings(max_examples=12, deadline=None)
def test_shortlist_loses_nothing(seed: int, concentration: float) -> None:
    # Nearly even distributions (30) have too many colors of nearly the same weight for any shortlist.
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(40, concentration), (4, 5))
    dist = ColorDistribution(jnp.float32(probabilities), jnp.float32(rng.uniform(-100, 100, (40, 2))))
    assert_strongest(dist, (17, 23), 3, dist.strongest((17, 23), 3))


@pytest.mark.parametrize("block_pixels", [1, 23, 60, 23 * 17])
def test_blocks_do_not_show(block_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dist, shape = random_distribution(), (17, 23)
    want = dist.strongest(shape, 3)
    monkeypatch.setattr(distribution, "_BLOCK_PIXELS", block_pixels)
    distribution._strongest.clear_cache()
    found = dist.strongest(shape, 3)
    distribution._strongest.clear_cache()
    assert_strongest(dist, shape, 3, found)
    np.testing.assert_allclose(found[1], want[1], atol=1e-6)


def test_sizes_padded_to_one_shape_share_one_program_and_equal_the_unpadded() -> None:
    dist = random_distribution()
    distribution._strongest.clear_cache()
    for shape in [(17, 23), (20, 9), (24, 24), (1, 1)]:
        found = dist.strongest(shape, 3, padded=(24, 24))
        assert found[0].shape == (24, 24, 3, 2)
        assert_strongest(dist, shape, 3, [x[: shape[0], : shape[1]] for x in found])
        assert all(np.all(np.isfinite(x)) for x in found)
    assert distribution._strongest._cache_size() == 1
    traced = jax.jit(lambda size: dist.strongest((size, size + 3), 3, padded=(24, 24)))(17)
    assert_strongest(dist, (17, 20), 3, [x[:17, :20] for x in traced])


def test_trees_may_hold_anything() -> None:
    dist = random_distribution()
    assert jax.tree.map(lambda x: x.dtype, dist).palette == dist.palette.dtype
    assert float(jax.tree.map(jnp.sum, dist).palette) == pytest.approx(float(dist.palette.sum()))


def test_vmap_equals_a_loop() -> None:
    dists = [random_distribution(seed=i) for i in range(3)]
    stacked = ColorDistribution(jnp.stack([d.probabilities for d in dists]), dists[0].palette)
    axes = ColorDistribution(0, None)

    @jax.jit
    def read_out(d: ColorDistribution) -> tuple[jax.Array, ...]:
        return d.annealed_mean(), d.entropy(), *d.strongest((9, 8), 3)

    mapped = jax.jit(jax.vmap(read_out, in_axes=(axes,)))(stacked)
    for i, d in enumerate(dists):
        alone = read_out(ColorDistribution(d.probabilities, dists[0].palette))
        for got, want in zip(mapped, alone, strict=True):
            np.testing.assert_allclose(got[i], want, atol=1e-4)


@pytest.mark.parametrize("count", [0, -1, 13, 314])
def test_impossible_counts_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=rf"between 1 and 12.*got {count}"):
        random_distribution().strongest((8, 8), count)


@pytest.mark.parametrize(
    ("probabilities", "palette"), [((3, 4), (4, 2)), ((3, 3, 4), (5, 2)), ((3, 3, 4), (4, 3)), ((2, 2, 4), (4,))]
)
def test_shapes_that_do_not_fit_are_refused(probabilities: tuple[int, ...], palette: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="palette"):
        ColorDistribution(jnp.zeros(probabilities), jnp.zeros(palette))


def test_leaves_need_not_be_arrays() -> None:
    dist = random_distribution()
    for change in (lambda x: None, lambda x: x.shape, lambda x: x.ndim, lambda x: x.sharding, lambda x: (x, x)):
        assert isinstance(jax.tree.map(change, dist), ColorDistribution)


def test_dtype_is_kept() -> None:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_distribution())
    outputs = jax.eval_shape(lambda d: (d.mean(), d.annealed_mean(), d.upsample((9, 9)), d.strongest((9, 9), 2)), half)
    assert {x.dtype for x in jax.tree.leaves(outputs)} == {jnp.dtype(jnp.bfloat16)}
