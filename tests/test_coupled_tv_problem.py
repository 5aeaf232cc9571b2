"""The problem: energy, inputs, padding, from_distribution."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.coupled_tv import CoupledTVProblem, InertialForwardBackward, PrimalDual, solve
from jaxcolor.coupled_tv.simplex import SORTED_UP_TO
from jaxcolor.errors import InputError
from tests.coupled_tv_data import COUNT, SHAPE, data, float64, problem
from tests.reference import coupled_tv as reference


@pytest.mark.parametrize("smoothing", [0.0, 0.7])
def test_energy_agrees_with_reference(smoothing):
    d = data()
    u = np.random.default_rng(1).normal(0, 30, (*SHAPE, 2))
    w = np.random.default_rng(2).dirichlet(np.ones(COUNT), SHAPE)
    with float64():
        energy = problem(d, np.float64).energy(u, w, smoothing)
        np.testing.assert_allclose(energy, reference.energy(d, u, w, smoothing), rtol=1e-12)


def test_arrays_come_back():
    for count in (COUNT, SORTED_UP_TO + 1):
        d = data(count=count)
        p = problem(d)
        np.testing.assert_array_equal(p.candidates, d.candidates)
        np.testing.assert_allclose(p.weights, d.weights, rtol=1e-6)
        np.testing.assert_allclose(p.mean(), reference.mean(d.weights, d.candidates), atol=1e-4)
        assert (p.shape, p.count) == (SHAPE, count)


def bad(**changes):
    d = data((3, 4), count=2)
    arguments = {"luminance": d.luminance, "candidates": d.candidates, "weights": d.weights} | changes
    return lambda: CoupledTVProblem(**arguments)


NAN = np.full((3, 4), np.nan)
BAD_INPUT = [
    (bad(luminance=np.zeros((3, 4, 1))), r"luminance must have shape \[H, W\]"),
    (bad(luminance=np.zeros((0, 4))), "at least one pixel"),
    (bad(luminance=NAN), "luminance contains NaN"),
    (bad(luminance=np.full((3, 4), 255.0)), r"L\* in \[0, 100\]"),
    (bad(candidates=np.zeros((3, 4, 2))), r"candidates must have shape \[3, 4, k, 2\]"),
    (bad(candidates=np.zeros((3, 4, 0, 2)), weights=np.zeros((3, 4, 0))), "k ≥ 1"),
    (bad(candidates=np.full((3, 4, 2, 2), np.inf)), "candidates contain"),
    (bad(weights=np.ones((3, 4, 3)) / 3), r"weights must have shape \[3, 4, 2\]"),
    (bad(weights=np.stack([NAN, NAN], -1)), "weights contain"),
    (bad(weights=np.broadcast_to([2.0, -1.0], (3, 4, 2))), "must not be negative"),
    (bad(weights=np.ones((3, 4, 2))), "must sum to 1"),
    (bad(fidelity=0), "fidelity must be finite and positive"),
    (bad(fidelity=-1.0), "fidelity must be finite and positive, got -1"),
    (bad(fidelity=np.float32("nan")), "fidelity"),
    (bad(fidelity=np.ones(3)), "fidelity must be a single number"),
    (bad(coupling=-0.5), "coupling must be finite and zero or positive"),
    (bad(coupling=jnp.inf), "coupling"),
    (bad(space="rgb"), "space must be one of lab, yuv"),
]


@pytest.mark.parametrize(("build", "words"), BAD_INPUT)
def test_bad_input_is_refused(build, words):
    with pytest.raises(InputError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_values_are_not_checked_inside_jit():
    d = data((3, 4), count=2)
    build = jax.jit(lambda y, lam: CoupledTVProblem(y, d.candidates, d.weights, lam).fidelity)
    assert float(build(NAN, -1.0)) == -1.0


def distribution(count=7):
    rng = np.random.default_rng(4)
    palette = rng.permutation(np.stack(np.meshgrid(10.0 * np.arange(-4, 3), [0.0]), -1).reshape(-1, 2))[:count]
    return ColorDistribution(
        jnp.asarray(rng.dirichlet(np.ones(count), (3, 4)), jnp.float32), jnp.asarray(palette, jnp.float32)
    )


def test_from_distribution():
    dist, luminance = distribution(), np.full((6, 8), 50.0)
    p = CoupledTVProblem.from_distribution(luminance, dist, candidates=7, fidelity=0.1)
    np.testing.assert_allclose(p.mean(), dist.upsample((6, 8)).mean(), atol=1e-4)
    few = CoupledTVProblem.from_distribution(luminance, dist, candidates=2)
    assert few.count == 2
    np.testing.assert_allclose(few.weights.sum(-1), 1, rtol=1e-6)
    for count in (0, 8):
        with pytest.raises(InputError, match="between 1 and 7"):
            CoupledTVProblem.from_distribution(luminance, dist, candidates=count)
    with pytest.raises(InputError, match=r"\[H, W\]"):
        CoupledTVProblem.from_distribution(luminance[None], dist, candidates=2)


@pytest.mark.parametrize("solver", [PrimalDual(0.05, 2.5, 0.05), InertialForwardBackward()], ids=["pd", "inertial"])
def test_padding_changes_nothing(solver):
    d = data()
    alone = solve(problem(d), solver, 60)
    padded = solve(problem(d).padded_to((13, 14)).padded_to((16, 20)), solver, 60)
    inner = padded.cropped(*SHAPE)
    # Equal up to the rounding of two different programs.
    np.testing.assert_allclose(inner.chroma, alone.chroma, atol=2e-4)
    np.testing.assert_allclose(inner.weights, alone.weights, atol=2e-5)
    np.testing.assert_allclose(padded.energies, alone.energies, rtol=1e-6)
    assert not np.asarray(padded.chroma)[SHAPE[0] :].any()
    with pytest.raises(InputError, match="smaller"):
        problem(d).padded_to((5, 5))


def colored_distribution(seed=0, cells=5, colors=7):
    rng = np.random.default_rng(seed)
    palette = 10.0 * rng.integers(-9, 10, (colors, 2))
    return ColorDistribution(
        jnp.asarray(rng.dirichlet(np.ones(colors), (cells, cells)), jnp.float32), jnp.asarray(palette, jnp.float32)
    )


def test_from_distribution_of_a_padded_photo_is_the_photos():
    luminance = np.random.default_rng(3).uniform(0, 100, SHAPE).astype(np.float32)
    alone = CoupledTVProblem.from_distribution(luminance, colored_distribution(), candidates=COUNT)
    padded = np.pad(luminance, ((0, 5), (0, 2)), mode="edge")
    within = CoupledTVProblem.from_distribution(padded, colored_distribution(), candidates=COUNT, extent=SHAPE)
    corner = (slice(SHAPE[0]), slice(SHAPE[1]))
    np.testing.assert_allclose(within.candidates[corner], alone.candidates)
    np.testing.assert_allclose(within.weights[corner], alone.weights, rtol=1e-5)
    u, w = within.mean(), within.weights
    np.testing.assert_allclose(within.energy(u, w), alone.energy(u[corner], w[corner]), rtol=1e-5)


def test_yuv_candidates_are_the_palettes_colors_as_displayable_at_the_luma():
    color = pytest.importorskip("skimage.color")
    luminance = np.random.default_rng(4).uniform(5, 95, SHAPE).astype(np.float32)
    dist = colored_distribution()
    lab = CoupledTVProblem.from_distribution(luminance, dist, candidates=COUNT)
    yuv = CoupledTVProblem.from_distribution(luminance, dist, candidates=COUNT, space="yuv")
    gray = color.lab2rgb(np.stack([luminance, 0 * luminance, 0 * luminance], -1))
    np.testing.assert_allclose(yuv.luminance, 255 * gray.mean(-1), atol=0.05)
    # Where the color is well inside sRGB at its own luma and at the gray's, nothing was projected.
    levels = np.broadcast_to(luminance[..., None, None], (*SHAPE, COUNT, 1))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rgb = color.lab2rgb(np.concatenate([levels, np.asarray(lab.candidates)], -1))
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    uv = 255 * np.stack([(rgb[..., 2] - luma) / 2.03211, (rgb[..., 0] - luma) / 1.13983], -1)
    y = np.asarray(yuv.luminance)[..., None]
    shown = np.stack(
        [y + 1.13983 * uv[..., 1], y - 0.39465 * uv[..., 0] - 0.58060 * uv[..., 1], y + 2.03211 * uv[..., 0]], -1
    )
    inside = (rgb > 0.01).all(-1) & (rgb < 0.99).all(-1) & (shown > 1).all(-1) & (shown < 254).all(-1)
    assert inside.mean() > 0.1
    np.testing.assert_allclose(np.asarray(yuv.candidates)[inside], uv[inside], atol=0.1)
    # All of them are displayable at the gray's luma.
    u, v = (np.asarray(yuv.candidates[..., i]) for i in (0, 1))
    channels = np.stack([y + 1.13983 * v, y - 0.39465 * u - 0.58060 * v, y + 2.03211 * u])
    assert channels.min() > -0.01
    assert channels.max() < 255.01
