"""The loss of the deep prior against NumPy in float64, its down-sampling, and the published presets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcolor.color.palette import ab_bins
from jaxcolor.deep_prior.network import SkipNetwork
from jaxcolor.deep_prior.objective import Data, Objective, downsampling_matrix, from_unit, to_unit
from jaxcolor.deep_prior.presets import PRESETS, Preset
from jaxcolor.errors import InputError
from tests.coupled_tv_data import float64

SIZE, GRID = (13, 18), (4, 5)


def arrays(seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    luminance = rng.uniform(0, 100, SIZE)
    return luminance, rng.uniform(0, 1, (*SIZE, 3)), rng.uniform(0, 1, (*GRID, 2))


def matrix(size: int, cells: int) -> np.ndarray:
    """The down-sampling by its definition: a sum over an endless line of repeated border pixels."""
    scale, weights = max(size / cells, 1.0), np.zeros((cells, size))
    for cell in range(cells):
        center = (cell + 0.5) * size / cells - 0.5
        for tap in range(-4 * size - 40, 5 * size + 40):
            d = (tap - center) / scale
            if abs(d) < 2:
                kernel = 1.0 if d == 0 else 2 * np.sin(np.pi * d) * np.sin(np.pi * d / 2) / (np.pi * d) ** 2
                weights[cell, min(max(tap, 0), size - 1)] += kernel
    return weights / weights.sum(1, keepdims=True)


def reference(o: Objective, luminance: np.ndarray, f: np.ndarray, target: np.ndarray) -> list[float]:
    """The three parts, written down once more with plain loops of slices."""
    y, rows, columns = luminance / 100, matrix(SIZE[0], GRID[0]), matrix(SIZE[1], GRID[1])
    small = np.einsum("ij,jkc,lk->ilc", rows, f, columns)
    color = ((small[..., 1:] - target) ** 2).sum()
    if o.coarse_luminance:
        color += ((small[..., 0] - rows @ y @ columns.T) ** 2).sum()
    planes = f.copy()
    if o.photo_in_variation:
        planes[..., 0] = y
    squares = np.full(SIZE, float(o.smoothing) ** 2)
    for plane, weight in zip(np.moveaxis(planes, -1, 0), (o.coupling, 1, 1), strict=True):
        squares[:-1] += weight * np.diff(plane, axis=0) ** 2
        squares[:, :-1] += weight * np.diff(plane, axis=1) ** 2
    variation = o.variation * 256 / np.sqrt(SIZE[0] * SIZE[1]) * np.sqrt(squares).sum()
    return [color / (3 * GRID[0] * GRID[1]), o.fidelity * ((f[..., 0] - y) ** 2).mean(), variation]


@pytest.mark.parametrize("name", ["paper", "author"])
def test_losses_and_gradient_agree_with_the_reference(name: str):
    objective = PRESETS[name].objective
    luminance, picture, target = arrays()
    want = reference(objective, luminance, picture, target)
    with float64():
        data = Data.of(luminance, ab_bins(), GRID)
        whole = jax.jit(lambda f: jnp.stack(data.losses(f, jnp.asarray(target), objective)))
        np.testing.assert_allclose(whole(picture), want, rtol=2e-6)
        direction = np.random.default_rng(1).normal(size=picture.shape)
        slope = jax.jvp(whole, (jnp.asarray(picture),), (jnp.asarray(direction),))[1]
        ahead, behind = (
            np.array(reference(objective, luminance, picture + h * direction, target)) for h in (1e-6, -1e-6)
        )
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-4, atol=1e-9)
    data = Data.of(np.float32(luminance), np.float32(ab_bins()), GRID)
    got = data.losses(jnp.asarray(picture, jnp.float32), jnp.asarray(target, jnp.float32), objective)
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize("name", ["paper", "author"])
def test_padding_counts_nowhere(name: str):
    luminance, picture, target = (np.float32(x) for x in arrays())
    objective, palette = PRESETS[name].objective, np.float32(ab_bins())
    border = ((0, 3), (0, 6))
    padded = Data.of(np.pad(luminance, border, constant_values=77), palette, GRID, SIZE)
    larger = jnp.asarray(np.pad(picture, (*border, (0, 0)), constant_values=0.3))
    want = Data.of(luminance, palette, GRID).losses(jnp.asarray(picture), jnp.asarray(target), objective)
    np.testing.assert_allclose(padded.losses(larger, jnp.asarray(target), objective), want, rtol=1e-5)
    slope = jax.grad(lambda f: sum(padded.losses(f, jnp.asarray(target), objective)))(larger)
    assert not np.asarray(slope)[SIZE[0] :].any()
    assert not np.asarray(slope)[:, SIZE[1] :].any()


@given(st.integers(1, 300), st.integers(1, 70))
def test_down_sampling_keeps_constants_and_follows_its_definition(size: int, cells: int):
    got = downsampling_matrix(size, cells)
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)
    if size <= 40:
        np.testing.assert_allclose(got, matrix(size, cells), atol=1e-6)


def test_down_sampling_by_four_has_the_published_kernel():
    distance = np.abs(np.arange(1, 17) + 0.5 - 9) / 4
    kernel = 2 * np.sin(np.pi * distance) * np.sin(np.pi * distance / 2) / (np.pi * distance) ** 2
    row = np.zeros(256)
    row[4 * 20 - 6 : 4 * 20 + 10] = kernel / kernel.sum()
    np.testing.assert_allclose(downsampling_matrix(256, 64)[20], row, atol=1e-7)


def test_down_sampling_and_its_adjoint():
    luminance, picture, target = (np.float32(x) for x in arrays())
    data = Data.of(luminance, np.float32(ab_bins()), GRID)
    small, pulled = jax.vjp(data.coarse, jnp.asarray(picture[..., 1:]))
    (back,) = pulled(jnp.asarray(target))
    np.testing.assert_allclose((small * target).sum(), (back * picture[..., 1:]).sum(), rtol=1e-5)


def test_assignment_is_to_the_nearest_color():
    luminance, picture, _ = (np.float32(x) for x in arrays())
    data = Data.of(luminance, np.float32(ab_bins()), GRID)
    small = from_unit(np.asarray(data.coarse(jnp.asarray(picture)))[..., 1:])
    nearest = ab_bins()[((np.asarray(small)[:, :, None] - ab_bins()) ** 2).sum(-1).argmin(-1)]
    np.testing.assert_allclose(from_unit(data.nearest(jnp.asarray(picture))), nearest, atol=1e-3)


@given(st.lists(st.floats(-110, 110, width=32), min_size=2, max_size=2))
def test_units(chroma: list[float]):
    unit = to_unit(np.float32(chroma))
    assert ((unit >= 0) & (unit <= 1)).all()
    np.testing.assert_allclose(from_unit(unit), chroma, atol=1e-4)


def test_published_numbers():
    """Every field, as the paper prints it and as the first author's program has it."""
    network = SkipNetwork(channels=128, scales=5, skip_channels=4, residual=False)
    common = {"network": network, "learning_rate": 2e-2, "decay": 0, "steps": 2000, "guided": False}
    assert PRESETS["paper"] == Preset(
        objective=Objective(1.0, 5e-7, 80.0, 1e-5**0.5, photo_in_variation=False, coarse_luminance=False),
        start="mean",
        assign_from=200,
        assign_every=200,
        **common,
    )
    assert PRESETS["author"] == Preset(
        objective=Objective(1.0, 5e-6, 100.0, 1e-5**0.5, photo_in_variation=True, coarse_luminance=True),
        start="mode",
        assign_from=800,
        assign_every=200,
        **common,
    )
    paper, author = PRESETS["paper"], PRESETS["author"]
    assert [n for n in range(1, 1001) if paper.assigns_after(n)] == [200, 400, 600, 800, 1000]
    assert [n for n in range(1, 1201) if author.assigns_after(n)] == [800, 1000, 1200]
    assert {paper.rate(n, 2000) for n in range(2000)} == {2e-2}


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Objective(variation=-1), "variation must be"),
        (lambda: Objective(smoothing=0), "smoothing must be"),
        (lambda: Preset(learning_rate=0), "learning_rate must be"),
        (lambda: Preset(start="median"), "start must be 'mean', 'mode' or 'guide'"),
        (lambda: Preset(learning_rate="a"), "learning_rate must be"),
        (lambda: Preset(steps=2.5), "steps must be a whole number"),
        (lambda: Preset(network="x"), "network must be a SkipNetwork"),
        (lambda: SkipNetwork(skip_channels=0), "skip_channels must be"),
        (lambda: SkipNetwork(scales=0), "scales must be"),
        (lambda: SkipNetwork(channels=0), "channels must be"),
        (lambda: Preset(assign_from=0), "assign_from must be"),
        (lambda: Preset(assign_every=0), "assign_every must be"),
        (lambda: Data.of(np.zeros((2, 3, 1)), ab_bins(), GRID), r"luminance must have shape \[H, W\]"),
        (lambda: Data.of(np.full((2, 3), 200.0), ab_bins(), GRID), "0, 100"),
        (lambda: Data.of(np.zeros((2, 3)), ab_bins(), GRID, (3, 3)), "extent must lie inside"),
    ],
)
def test_bad_numbers_are_refused(build, words: str):
    with pytest.raises(InputError, match=words):
        build()
