"""Colors of a coarse grid that lie beside the photo's edges, and are put back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.registration import _explained, estimate_cell_shift, registered

CELLS, PIXELS = 32, 128
OFFSETS = st.floats(-1.2, 1.2)


def scene(down: float = 0.0, across: float = 0.0, seed: int = 0) -> np.ndarray:
    """Discs of random places, sizes and brightness, ``[PIXELS, PIXELS]``, as a scene moved by so many cells."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:PIXELS, :PIXELS] - np.array([down, across])[:, None, None] * PIXELS / CELLS
    picture = np.full((PIXELS, PIXELS), 50.0)
    for _ in range(25):
        y, x, radius, value = rng.uniform([0, 0, 8, 10], [PIXELS, PIXELS, 24, 90])
        picture[(row - y) ** 2 + (column - x) ** 2 < radius**2] = value
    return picture


def colors_of(picture: np.ndarray) -> np.ndarray:
    """One color for each cell, which is no multiple of the luminance, but is constant where that is."""
    planes = np.stack([40 * np.sin(picture / 9), 40 * np.cos(picture / 13)], -1)
    return planes.reshape(CELLS, PIXELS // CELLS, CELLS, PIXELS // CELLS, 2).mean((1, 3))


def estimate(light: np.ndarray, colors: np.ndarray, extent: tuple[int, int] = (PIXELS, PIXELS)) -> np.ndarray:
    return np.asarray(estimate_cell_shift(jnp.asarray(light, jnp.float32), jnp.asarray(colors, jnp.float32), extent))


@settings(max_examples=10, deadline=None)
@given(OFFSETS, OFFSETS, st.integers(0, 10**6))
def test_a_shift_is_found(down: float, across: float, seed: int) -> None:
    found = estimate(scene(seed=seed), colors_of(scene(down, across, seed)))
    # What is less than the reluctance allows stays; a quarter of a cell is a pixel here.
    assert np.abs(found - [down, across]).max() < 0.45
    assert np.linalg.norm(found - [down, across]) <= max(np.linalg.norm([down, across]), 0.25) + 1e-6


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_colors_in_their_place_stay(seed: int) -> None:
    assert np.abs(estimate(scene(seed=seed), colors_of(scene(seed=seed)))).max() < 0.2


def test_flat_luminance_moves_nothing() -> None:
    assert estimate(np.full((PIXELS, PIXELS), 50.0), colors_of(scene(1, 1))).tolist() == [0, 0]


def test_gray_and_small_grids_are_left_alone() -> None:
    assert estimate(scene(), np.zeros((CELLS, CELLS, 2))).tolist() == [0, 0]
    assert estimate(scene(), colors_of(scene(1, 1))[:15, :15]).tolist() == [0, 0]


def test_a_shift_beyond_the_window_is_not_believed() -> None:
    assert estimate(scene(), colors_of(scene(0, 6))).tolist()[1] == 0


def test_padding_is_not_looked_at() -> None:
    light, colors = scene(), colors_of(scene(0.5, -0.75))
    padded = np.pad(light, ((0, 32), (0, 64)), constant_values=np.nan)
    padded[np.isnan(padded)] = np.random.default_rng(0).uniform(0, 100, np.isnan(padded).sum())
    np.testing.assert_allclose(estimate(padded, colors), estimate(light, colors), atol=0.02)


def test_explained_variance_is_that_of_weighted_least_squares() -> None:
    """Against weighted regressions, cell by cell, solved by NumPy."""
    rng = np.random.default_rng(3)
    light, colors = rng.uniform(0, 100, (9, 11)), rng.uniform(-50, 50, (9, 11, 2))
    row, column = np.mgrid[:9, :11]
    expected = 0.0
    for y in range(2, 7):
        for x in range(2, 9):
            weights = np.exp(-((row - y) ** 2 + (column - x) ** 2) / 2)
            weights /= weights.sum()
            centered = light - (weights * light).sum()
            # A ridge of 2 on the slope: variance that counts as flat.
            for plane in (colors[..., 0], colors[..., 1]):
                rest = plane - (weights * plane).sum()
                slope = (weights * centered * rest).sum() / ((weights * centered**2).sum() + 2.0)
                expected += slope * (weights * centered * rest).sum()
    got = _explained(jnp.asarray(light, jnp.float32)[None, None], jnp.asarray(colors, jnp.float32))
    assert float(got[0, 0]) == pytest.approx(expected, rel=1e-3)


PALETTE = jnp.array([[40.0, 0.0], [-40.0, 10.0], [0.0, -60.0]])


@settings(max_examples=20, deadline=None)
@given(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 10**6))
def test_moving_by_whole_cells_takes_other_cells(down: int, across: int, seed: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(3), (6, 7)).astype(np.float32)
    rows, columns = np.clip(np.arange(6) + down, 0, 5), np.clip(np.arange(7) + across, 0, 6)
    moved = ColorDistribution(jnp.asarray(probabilities), PALETTE).moved(jnp.array([down, across], jnp.float32))
    np.testing.assert_allclose(moved.probabilities, probabilities[rows][:, columns], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(-2, 2), st.integers(0, 10**6))
def test_moving_by_part_of_a_cell_keeps_a_distribution_and_slopes(across: float, seed: int) -> None:
    slope = np.random.default_rng(seed).uniform(0.01, 0.05)
    share = 0.2 + slope * np.arange(12)
    probabilities = np.stack([share, 0.9 - share, np.full(12, 0.1)], -1)[None].astype(np.float32)
    moved = ColorDistribution(jnp.asarray(probabilities), PALETTE).moved(jnp.array([0.0, across])).probabilities
    np.testing.assert_allclose(moved.sum(-1), 1, atol=1e-6)
    # Cubic convolution reproduces what is linear, away from the border.
    np.testing.assert_allclose(moved[0, 4:8, 0], share[4:8] + slope * across, atol=1e-5)


def test_registered_puts_colors_on_the_edges_and_holds_the_shift_constant() -> None:
    light = jnp.asarray(scene(), jnp.float32)
    first = jnp.asarray((colors_of(scene(1.0, -1.0))[..., 0] + 40) / 80, jnp.float32)
    dist = ColorDistribution(jnp.stack([first, 1 - first], -1), jnp.array([[40.0, 0.0], [-40.0, 0.0]]))
    placed, shift = registered(light, dist, (PIXELS, PIXELS))
    np.testing.assert_allclose(shift, [1, -1], atol=0.3)
    truth = colors_of(scene())[..., 0]
    inside = slice(3, -3)
    before, after = (np.abs(d.mean()[..., 0] - truth)[inside, inside].mean() for d in (dist, placed))
    assert after < 0.7 * before

    def total(probabilities: jax.Array) -> jax.Array:
        return registered(light, ColorDistribution(probabilities, dist.palette), (PIXELS, PIXELS))[0].mean().sum()

    slopes = jax.grad(total)(dist.probabilities)
    assert bool(jnp.isfinite(slopes).all())
