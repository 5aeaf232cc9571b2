"""The problem: energy, inputs, padding, from_distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.coupled_tv import CoupledTVProblem, InertialForwardBackward, PrimalDual, solve
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
    for count in (COUNT, 20):
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
