"""Up-sampling led by luminance: against plain loops, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.guidance import Guidance, strongest_by_luminance
from jaxcolor.coupled_tv import CoupledTVProblem
from jaxcolor.errors import InputError

SHAPE, GRID, COLORS = (11, 13), (4, 5), 7


def example(seed: int = 0) -> tuple[np.ndarray, ColorDistribution]:
    rng = np.random.default_rng(seed)
    luminance = np.where(rng.random(SHAPE) < 0.5, 30, 60) + rng.normal(0, 3, SHAPE)
    palette = 15.0 * rng.permutation(np.stack(np.meshgrid([-2, 0, 2], [-3, 0, 3]), -1).reshape(-1, 2))[:COLORS]
    dist = ColorDistribution(
        jnp.array(rng.dirichlet(np.ones(COLORS), GRID), jnp.float32), jnp.array(palette, jnp.float32)
    )
    return luminance.astype(np.float32), dist


def looped(luminance: np.ndarray, dist: ColorDistribution, count: int, guidance: Guidance):
    """Mean color [H, W, 2] of the weighted candidates, one pixel and one cell at a time, in float64."""
    p, palette = np.asarray(dist.probabilities, float), np.asarray(dist.palette, float)
    light, (rows, columns) = luminance.astype(float), luminance.shape
    y, x = ((np.arange(n) + 0.5) * g / n - 0.5 for n, g in zip(luminance.shape, GRID, strict=True))
    spread, difference, uncertainty, reach = (float(x) for x in vars(guidance).values())
    variance = np.einsum("ijq,qc->ij", p, palette**2) - (np.einsum("ijq,qc->ijc", p, palette) ** 2).sum(-1)
    cells, mixed = np.zeros(GRID), np.zeros_like(p)
    for i, j in np.ndindex(*GRID):
        triangle = np.outer(np.maximum(1 - abs(y - i), 0), np.maximum(1 - abs(x - j), 0))
        cells[i, j] = (triangle * light).sum() / triangle.sum()
        near = np.outer(
            *(np.exp(-((np.arange(g) - c) ** 2) / (2 * reach**2)) for g, c in zip(GRID, (i, j), strict=True))
        )
        mixed[i, j] = np.tensordot(near / near.sum(), p, 2)
    means = np.zeros((rows, columns, 2))
    for r, c in np.ndindex(rows, columns):
        corner = [min(max(int(np.floor(v)), 0), g - 2) for v, g in zip((y[r], x[c]), GRID, strict=True)]
        a, b = (min(max(v, 0), g - 1) - k for v, k, g in zip((y[r], x[c]), corner, GRID, strict=True))
        four = mixed[corner[0] : corner[0] + 2, corner[1] : corner[1] + 2]
        blended = np.einsum("i,j,ijq->q", [1 - a, a], [1 - b, b], four)
        varied = np.array([1 - a, a]) @ variance[corner[0] : corner[0] + 2, corner[1] : corner[1] + 2] @ [1 - b, b]
        wide = spread**2 * (1 + varied / uncertainty)
        chosen, weights = np.argsort(-blended)[:count], np.zeros(count)
        for i, j in np.ndindex(5, 5):
            place = int(np.round(y[r])) + i - 2, int(np.round(x[c])) + j - 2
            cell = tuple(min(max(v, 0), g - 1) for v, g in zip(place, GRID, strict=True))
            far = (place[0] - y[r]) ** 2 + (place[1] - x[c]) ** 2
            alike = np.exp(-((light[r, c] - cells[cell]) ** 2) / (2 * difference**2)) + 1e-8
            weights += np.exp(-far / (2 * wide)) * alike * p[cell][chosen]
        means[r, c] = weights @ palette[chosen] / weights.sum()
    return means


def test_candidates_and_weights_agree_with_a_loop_over_cells() -> None:
    luminance, dist = example()
    guidance = Guidance(0.6, 6.0, 300.0, 0.9)
    candidates, weights = strongest_by_luminance(dist, jnp.asarray(luminance), 3, guidance)
    assert candidates.shape == (*SHAPE, 3, 2)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    mean = (np.asarray(weights)[..., None] * candidates).sum(-2)
    np.testing.assert_allclose(mean, looped(luminance, dist, 3, guidance), atol=2e-3)


def test_padding_changes_nothing() -> None:
    luminance, dist = example(1)
    plain = strongest_by_luminance(dist, jnp.asarray(luminance), 3)
    padded = np.pad(luminance, ((0, 5), (0, 3)), constant_values=99)
    found = jax.jit(lambda extent: strongest_by_luminance(dist, jnp.asarray(padded), 3, extent=extent))(SHAPE)
    for want, have in zip(plain, found, strict=True):
        np.testing.assert_allclose(have[: SHAPE[0], : SHAPE[1]], want, atol=1e-5)


def test_a_problem_with_guidance_has_these_candidates() -> None:
    luminance, dist = example(2)
    guidance = Guidance(0.7, 4.0)
    problem = CoupledTVProblem.from_distribution(luminance, dist, 3, guidance=guidance)
    candidates, weights = strongest_by_luminance(dist.concentrated(3), jnp.asarray(luminance), 3, guidance)
    np.testing.assert_allclose(problem.candidates, candidates, atol=1e-5)
    np.testing.assert_allclose(problem.weights, weights, atol=1e-5)


def test_color_stays_on_its_side_of_an_edge_that_cells_do_not_see() -> None:
    luminance = np.where(np.arange(40) < 17, 30.0, 70.0) * np.ones((8, 1))
    left = np.clip(2.6 - np.arange(10) / 2, 0, 1)  # color changes over two cells, beside the edge
    probabilities = np.stack([left, 1 - left], -1)[None] * np.ones((2, 1, 1))
    dist = ColorDistribution(jnp.array(probabilities, jnp.float32), jnp.array([[50.0, 0.0], [-50.0, 0.0]]))
    truth = np.where(luminance < 50, 50, -50)

    def error(guidance: Guidance | None) -> float:
        problem = CoupledTVProblem.from_distribution(luminance.astype(np.float32), dist, 2, guidance=guidance)
        return float(np.abs(np.asarray(problem.mean())[..., 0] - truth).mean())

    assert error(Guidance()) < 0.8 * error(None)


def test_numbers_must_be_positive() -> None:
    with pytest.raises(InputError, match="spread must be a positive number; got 0"):
        Guidance(spread=0)
    with pytest.raises(InputError, match="candidates must be between 1 and 7"):
        strongest_by_luminance(example()[1], jnp.asarray(example()[0]), 8)
