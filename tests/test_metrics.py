"""Metrics against published numbers, scikit-image and plain NumPy."""

import inspect
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.special import ndtr, ndtri
from skimage.color import deltaE_ciede2000, rgb2hsv
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxcolor import metrics
from jaxcolor.errors import InputError

# Compiled once per shape: operation by operation, most of the time would go into compiling each.
alignment_gain = jax.jit(metrics.alignment_gain)
band_error = jax.jit(metrics.band_error, static_argnames="distance")
colorfulness = jax.jit(metrics.colorfulness)
delta_e_2000 = jax.jit(metrics.delta_e_2000)
delta_e_2000_gradients = jax.jit(jax.grad(metrics.delta_e_2000, argnums=(0, 1)))
edge_width = jax.jit(metrics.edge_width, static_argnames="distance")
edges = jax.jit(metrics.edges)
leak_fraction = jax.jit(metrics.leak_fraction)
saturation = jax.jit(metrics.saturation)
variation_away_from_edges = jax.jit(metrics.variation_away_from_edges, static_argnames="distance")

# Sharma, Wu and Dalal 2005, Table 1: L*, a*, b* of both colors and their ΔE2000.
SHARMA = np.loadtxt(
    io.StringIO("""
    50 2.6772 -79.7751 50 0 -82.7485 2.0425
    50 3.1571 -77.2803 50 0 -82.7485 2.8615
    50 2.8361 -74.0200 50 0 -82.7485 3.4412
    50 -1.3802 -84.2814 50 0 -82.7485 1.0000
    50 -1.1848 -84.8006 50 0 -82.7485 1.0000
    50 -0.9009 -85.5211 50 0 -82.7485 1.0000
    50 0 0 50 -1 2 2.3669
    50 -1 2 50 0 0 2.3669
    50 2.4900 -0.0010 50 -2.4900 0.0009 7.1792
    50 2.4900 -0.0010 50 -2.4900 0.0010 7.1792
    50 2.4900 -0.0010 50 -2.4900 0.0011 7.2195
    50 2.4900 -0.0010 50 -2.4900 0.0012 7.2195
    50 -0.0010 2.4900 50 0.0009 -2.4900 4.8045
    50 -0.0010 2.4900 50 0.0010 -2.4900 4.8045
    50 -0.0010 2.4900 50 0.0011 -2.4900 4.7461
    50 2.5 0 50 0 -2.5 4.3065
    50 2.5 0 73 25 -18 27.1492
    50 2.5 0 61 -5 29 22.8977
    50 2.5 0 56 -27 -3 31.9030
    50 2.5 0 58 24 15 19.4535
    50 2.5 0 50 3.1736 0.5854 1.0000
    50 2.5 0 50 3.2972 0 1.0000
    50 2.5 0 50 1.8634 0.5757 1.0000
    50 2.5 0 50 3.2592 0.3350 1.0000
    60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
    63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
    61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
    35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
    22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
    36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
    90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
    90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
    6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
    2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
    """)
)


def random_lab(seed: int, *shape: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.uniform([0, -100, -100], [100, 100, 100], (*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("order", [1, -1])
def test_delta_e_2000_gives_the_published_numbers(order: int) -> None:
    first, second = (SHARMA[:, :3], SHARMA[:, 3:6])[::order]
    with jax.enable_x64(True):
        result = np.asarray(delta_e_2000(jnp.array(first), jnp.array(second)))
    np.testing.assert_allclose(result, SHARMA[:, 6], atol=5.1e-5)


def test_delta_e_2000_in_float32_agrees_with_scikit_image() -> None:
    first, second = random_lab(0, 4000), random_lab(1, 4000)
    result = delta_e_2000(first, second)
    np.testing.assert_allclose(
        result, deltaE_ciede2000(first.astype(float), second.astype(float)), rtol=1e-4, atol=1e-4
    )
    assert result.dtype == jnp.float32
    white_and_black = delta_e_2000(jnp.array([100.0, 0, 0]), jnp.array([0.0, 0, 0]))
    np.testing.assert_allclose(white_and_black, 100.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((50, 0, 0), (50, 0, 0)),
        ((0, 0, 0), (100, 0, 0)),
        ((50, 0, 0), (50, 20, -30)),
        ((50, 20, -30), (50, 20, -30)),
        ((50, 1e-30, 0), (40, 20, 5)),
        ((50, 1e-7, 1e-7), (50, 0, 1e-5)),
        ((50, -10, 0), (50, 10, 0)),
    ],
)
def test_delta_e_2000_has_finite_gradients(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    gradients = delta_e_2000_gradients(np.array(first, np.float32), np.array(second, np.float32))
    assert np.isfinite(gradients).all()


def test_delta_e_2000_gradient_agrees_with_finite_differences() -> None:
    with jax.enable_x64(True):
        first, second = random_lab(2, 20).astype(float), random_lab(3, 20).astype(float)

        def total(lab: jax.Array) -> jax.Array:
            return metrics.delta_e_2000(lab, second).sum()

        compiled = jax.jit(total)
        gradient = np.asarray(jax.jit(jax.grad(total))(jnp.array(first)))
        direction = np.random.default_rng(0).normal(size=first.shape)
        slope = (compiled(first + 1e-6 * direction) - compiled(first - 1e-6 * direction)) / 2e-6
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_delta_e_2000_is_symmetric_and_zero_for_equal_colors(seed: int) -> None:
    first, second = random_lab(seed, 8), random_lab(seed + 1, 8)
    np.testing.assert_allclose(delta_e_2000(first, second), delta_e_2000(second, first), rtol=2e-4, atol=1e-4)
    assert not np.asarray(delta_e_2000(first, first)).any()


def test_psnr_agrees_with_scikit_image() -> None:
    first, second = np.random.default_rng(0).random((2, 9, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(
        metrics.psnr(first, second), peak_signal_noise_ratio(first, second, data_range=1), rtol=1e-5
    )
    np.testing.assert_allclose(metrics.psnr(first, first + 0.1), 20.0, rtol=1e-4)
    np.testing.assert_allclose(
        metrics.psnr(255 * first, 255 * second, peak=255), metrics.psnr(first, second), rtol=1e-4
    )
    assert np.isposinf(metrics.psnr(first, first))


def test_colorfulness_and_saturation_agree_with_numpy() -> None:
    rgb = np.random.default_rng(1).random((13, 11, 3)) ** 2
    red, green, blue = np.moveaxis(255 * rgb, -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
    expected = np.linalg.norm(opponents.std(axis=1)) + 0.3 * np.linalg.norm(opponents.mean(axis=1))
    np.testing.assert_allclose(colorfulness(jnp.array(rgb)), expected, rtol=1e-5)
    np.testing.assert_allclose(saturation(jnp.array(rgb)), rgb2hsv(rgb)[..., 1].mean(), rtol=1e-5)


def test_gray_and_black_are_colorless_with_finite_gradients() -> None:
    gray = jnp.linspace(0, 1, 12).reshape(4, 3, 1) * jnp.ones(3)
    for measure in (metrics.colorfulness, metrics.saturation):
        value, gradient = jax.jit(jax.value_and_grad(measure))(gray)
        np.testing.assert_allclose(value, 0, atol=1e-5)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_area_under_curve_agrees_with_its_definition(weighted: bool) -> None:
    generator = np.random.default_rng(2)
    chroma, truth = generator.uniform(-90, 90, (2, 9, 8, 2)).astype(np.float32)
    chroma[0, :2] = truth[0, :2]  # exact hits,
    chroma[1, 0] = truth[1, 0] + [3, 4]  # an error on a threshold
    weights = generator.random((9, 8)).astype(np.float32) if weighted else np.ones((9, 8), np.float32)
    error = np.linalg.norm(chroma - truth, axis=-1)
    curve = np.array([(weights * (error <= t)).sum() / weights.sum() for t in range(151)])
    expected = (curve[1:] + curve[:-1]).sum() / 2 / 150
    result = metrics.area_under_curve(chroma, truth, weights if weighted else None)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.area_under_curve(truth, truth), 1.0, rtol=1e-6)
    assert metrics.area_under_curve(truth, truth + 200) == 0


@pytest.mark.parametrize("distance", [0, 1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (11, 2), (9, 13)])
def test_near_is_a_square_dilation(shape: tuple[int, int], distance: int) -> None:
    mask = np.random.default_rng(distance).random(shape) < 0.15
    square = np.ones((2 * distance + 1, 2 * distance + 1), bool)
    np.testing.assert_array_equal(metrics.near(jnp.array(mask), distance), ndimage.binary_dilation(mask, square))


def test_edges_take_the_strongest_share_and_nothing_flat() -> None:
    assert not edges(jnp.ones((5, 6))).any()
    ramp = jnp.cumsum(jnp.arange(101.0))[None]
    assert np.flatnonzero(edges(ramp, 0.1)[0]).tolist() == list(range(90, 100))
    step = jnp.zeros((8, 8)).at[:, 4:].set(1.0)
    assert np.argwhere(edges(step)).tolist() == [[row, 3] for row in range(8)]


def two_regions(shift: int, size: int = 32) -> tuple[jax.Array, jax.Array]:
    """Luminance with one vertical edge; chroma whose edge is ``shift`` pixels to the right of it."""
    columns = jnp.broadcast_to(jnp.arange(size), (size, size))
    luminance = jnp.where(columns < size // 2, 30.0, 70.0)
    chroma = jnp.where((columns < size // 2 + shift)[..., None], jnp.array([40.0, 10.0]), jnp.array([-20.0, 30.0]))
    return luminance, chroma


def test_bleeding_measures_see_a_shifted_color_edge() -> None:
    luminance, aligned = two_regions(0)
    shifted = two_regions(5)[1]
    assert variation_away_from_edges(luminance, aligned) == 0
    np.testing.assert_allclose(variation_away_from_edges(luminance, shifted), 1, rtol=1e-5)
    assert variation_away_from_edges(luminance, shifted, distance=5) == 0
    assert alignment_gain(luminance, shifted) == 0
    light, color = 40.0, np.hypot(60, 20)
    expected = (light + color - np.hypot(light, color)) / min(light, color)
    np.testing.assert_allclose(alignment_gain(luminance, aligned), expected, rtol=1e-5)
    np.testing.assert_allclose(
        alignment_gain(luminance, aligned, coupling=4.0),
        alignment_gain(2 * luminance, aligned),
        rtol=1e-5,
    )


# Few shapes, since each compiles anew.
@given(st.sampled_from([(1, 7), (6, 1), (8, 9)]), st.floats(0.01, 100), st.integers(0, 2**32 - 1))
def test_bleeding_measures_stay_in_range(shape: tuple[int, int], coupling: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    luminance = generator.uniform(0, 100, shape).astype(np.float32)
    chroma = generator.uniform(-90, 90, (*shape, 2)).astype(np.float32)
    assert -1e-5 <= alignment_gain(luminance, chroma, coupling) <= 1 + 1e-5
    assert 0 <= variation_away_from_edges(luminance, chroma, distance=1) <= 1 + 1e-5


def test_band_error_tells_edges_from_the_rest() -> None:
    luminance, true_chroma = two_regions(0)
    truth = jnp.concatenate([luminance[..., None], true_chroma], axis=-1)
    result = jnp.concatenate([luminance[..., None], two_regions(3)[1]], axis=-1)
    error = band_error(result, truth, distance=4)
    assert error.elsewhere == 0
    # Of the 9 columns 11..19 around the edge pixel 15, the 3 columns 16..18 have the other region's color.
    full = float(delta_e_2000(result, truth).max())
    np.testing.assert_allclose(error.near, full * 3 / 9, rtol=1e-5)
    assert np.isnan(band_error(truth, truth.at[..., 1:].set(0)).near)


def test_leak_fraction_counts_pixels_on_the_wrong_color() -> None:
    _, truth = two_regions(0)
    is_right = jnp.broadcast_to(jnp.arange(32) >= 16, (32, 32))
    left, right = truth[0, 0], truth[0, -1]
    assert leak_fraction(truth, left, right, is_right) == 0
    leaked = two_regions(2)[1]
    assert leak_fraction(leaked, left, right, is_right) == 2 / 32
    border = jnp.broadcast_to(jnp.abs(jnp.arange(32) - 15.5) < 2, (32, 32))
    assert leak_fraction(leaked, left, right, is_right, ignore=border) == 0
    assert leak_fraction(jnp.zeros_like(truth) + (left + right) / 2, left, right, is_right) == 0


def test_measures_work_under_jit_vmap_and_grad() -> None:
    generator = np.random.default_rng(4)
    labs = generator.uniform(0, 60, (3, 10, 12, 3)).astype(np.float32)
    truths = generator.uniform(0, 60, (3, 10, 12, 3)).astype(np.float32)

    def everything(lab: jax.Array, truth: jax.Array) -> jax.Array:
        light, chroma, true_chroma = lab[..., 0], lab[..., 1:], truth[..., 1:]
        return jnp.stack(
            [
                metrics.psnr(lab, truth, 100.0),
                metrics.colorfulness(lab / 60),
                metrics.saturation(lab / 60),
                metrics.area_under_curve(chroma, true_chroma, light),
                metrics.variation_away_from_edges(light, chroma, 1),
                metrics.alignment_gain(light, chroma, 25.0),
                metrics.band_error(lab, truth, 1).near,
                metrics.leak_fraction(chroma, true_chroma[0, 0], true_chroma[0, 1], light > 30),
            ]
        )

    batched = jax.jit(jax.vmap(everything))(labs, truths)
    compiled = jax.jit(everything)
    single = np.stack([compiled(a, b) for a, b in zip(labs, truths, strict=True)])
    np.testing.assert_allclose(batched, single, rtol=1e-4)
    derivative = jax.jit(jax.grad(lambda lab: everything(lab, truths[0]).sum()))
    gradient = derivative(labs[0])
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
    assert np.isfinite(derivative(np.full((10, 12, 3), 50, np.float32))).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_tiny_pictures_have_finite_measures(shape: tuple[int, int]) -> None:
    lab = jnp.array(random_lab(7, *shape))
    assert np.isfinite(variation_away_from_edges(lab[..., 0], lab[..., 1:]))
    assert np.isfinite(alignment_gain(lab[..., 0], lab[..., 1:]))
    assert np.isfinite(colorfulness(lab / 100))


def gaussian_edge(sigma: float, angle: float = 0.0, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A luminance edge through the middle, and chroma with a softer one at the same place, both Gaussian-blurred."""
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    across = np.cos(angle) * column + np.sin(angle) * row
    luminance = 30 + 40 * ndtr(across / 0.8)
    rise = ndtr(across / sigma)
    return luminance.astype(np.float32), np.stack([60 * rise - 20, 10 - 30 * rise], -1).astype(np.float32)


@pytest.mark.parametrize("angle", [0.0, 0.6, np.pi / 2])
@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_edge_width_of_a_blurred_edge_is_that_of_the_normal_distribution(sigma: float, angle: float) -> None:
    luminance, chroma = gaussian_edge(sigma, angle)
    expected = sigma * (ndtri(0.9) - ndtri(0.1))
    # Interpolation between pixels, and between the samples, blurs a little more; the window cuts off a little.
    assert expected - 0.1 < edge_width(luminance, chroma) < expected + 0.4


def test_edge_width_agrees_with_a_loop_over_edge_pixels() -> None:
    generator = np.random.default_rng(5)
    luminance = ndimage.gaussian_filter(generator.uniform(0, 100, (18, 23)), 1.5).astype(np.float32)
    chroma = ndimage.gaussian_filter(generator.uniform(-90, 90, (18, 23, 2)), (1, 1, 0)).astype(np.float32)
    mask, widths = np.asarray(edges(luminance, 0.2)), []
    padded = np.pad(luminance.astype(float), 1, mode="edge")
    for row, column in np.argwhere(mask):
        normal = np.array(
            [
                padded[row + 2, column + 1] - padded[row, column + 1],
                padded[row + 1, column + 2] - padded[row + 1, column],
            ]
        )
        normal /= np.linalg.norm(normal)
        places = np.array([row, column])[:, None] + normal[:, None] * np.arange(-4, 5)
        line = np.stack([ndimage.map_coordinates(chroma[..., i], places, order=1, mode="nearest") for i in (0, 1)], -1)
        change = line[-1] - line[0]
        if np.linalg.norm(change) >= 10:
            rise = (line - line[0]) @ change / (change @ change)
            fine = np.interp(np.linspace(0, 8, 80_001), np.arange(9), rise)
            widths.append(8 * ((fine > 0.1) & (fine < 0.9)).mean())
    result = metrics.edge_width(luminance, chroma, distance=4, share=0.2)
    np.testing.assert_allclose(result, np.median(widths), atol=2e-3)


def test_edge_width_without_color_edges_is_unknown() -> None:
    luminance, chroma = gaussian_edge(2.0)
    assert np.isnan(edge_width(luminance, 0 * chroma))
    assert np.isnan(edge_width(0 * luminance, chroma))


def test_kept_apart_agrees_with_a_loop_over_windows() -> None:
    generator = np.random.default_rng(6)
    truth, result = generator.integers(0, 4, (2, 9, 12))
    edge = generator.random((9, 12)) < 0.4
    edge[0, 0] = edge[-1, -1] = True  # windows that are cut off by the border
    shares = []
    for row, column in np.argwhere(edge):
        window = np.s_[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        apart = truth[window] != truth[row, column]
        kept = apart & (result[window] != result[row, column])
        shares.append(kept.sum() / apart.sum() if apart.any() else 1.0)
    measured = metrics.kept_apart(jnp.array(edge), jnp.array(truth), jnp.array(result), radius=2)
    np.testing.assert_allclose(measured, np.mean(shares), rtol=1e-6)
    assert np.isnan(metrics.kept_apart(jnp.zeros((3, 3), bool), jnp.zeros((3, 3), int), jnp.zeros((3, 3), int)))


def test_cluster_discrepancy_ratio_sees_blurred_and_missing_edges() -> None:
    row, column = np.mgrid[:96, :96]
    truth = np.stack(
        [np.where(np.hypot(row - 48, column - 48) < 30, 50.0, -30.0), np.where(3 * row + column > 200, 40.0, 0.0)], -1
    )
    blurred = ndimage.gaussian_filter(truth, (9, 9, 0))
    same, soft, gray = (metrics.cluster_discrepancy_ratio(c, truth) for c in (truth, blurred, 0 * truth))
    assert same == (1.0, 1.0)
    assert 0 <= soft.a < 0.95
    assert soft.b < 0.95
    assert gray.a < 0.95
    assert np.isnan(metrics.cluster_discrepancy_ratio(truth, 0 * truth)).all()
    with pytest.raises(InputError, match="of one shape"):
        metrics.cluster_discrepancy_ratio(truth[..., 0], truth[..., 0])


def test_ssim_agrees_with_scikit_image() -> None:
    generator = np.random.default_rng(8)
    first = generator.random((19, 23, 3)).astype(np.float32)
    second = np.clip(first + 0.2 * generator.normal(size=first.shape), 0, 1).astype(np.float32)
    # Its mean leaves out a border of the window's radius, as ours does.
    expected = structural_similarity(
        first, second, data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    np.testing.assert_allclose(jax.jit(metrics.ssim)(first, second), expected, rtol=1e-5)


PUBLIC = [name for name in dir(metrics) if inspect.isfunction(inspect.unwrap(getattr(metrics, name)))]


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"edges", "near"}))
def test_every_measure_says_its_range_and_what_fools_it(name: str) -> None:
    text = inspect.getdoc(getattr(metrics, name))
    assert text is not None
    for word in ("Returns:", "Example"):
        assert word in text
    assert "What fools it" in text or name == "kept_apart"
    assert "better" in text or "No direction" in text or "on the scale of" in text


def test_integers_do_not_wrap_around() -> None:
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 256, (16, 18, 3), np.uint8) for _ in range(2))
    for measure in (metrics.psnr, metrics.ssim):
        expected = measure(jnp.asarray(first / 255, jnp.float32), jnp.asarray(second / 255, jnp.float32))
        np.testing.assert_allclose(measure(first, second, peak=255), expected, rtol=1e-4)
