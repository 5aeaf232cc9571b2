"""Calibration against SciPy, closed forms and drawn truths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from jaxcolor.cic import calibration
from jaxcolor.cic.calibration import Reliability, best_exponent, calibrate, reliability
from jaxcolor.cic.predict import CIC
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.palette import ab_bins
from jaxcolor.errors import InputError


def drawn(seed: int, exponent: float, count: int = 400, bins: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and bins drawn with the probabilities softmax(exponent * logits)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, bins))
    return logits, np.array([rng.choice(bins, p=p) for p in softmax(exponent * logits, axis=1)])


@given(st.integers(0, 10**6), st.floats(0.1, 8))
def test_best_exponent_is_the_minimum_that_scipy_finds(seed: int, exponent: float) -> None:
    logits, bins = drawn(seed, exponent)

    def likelihood(octave: float) -> float:
        scaled = 2**octave * logits
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(bins)), bins]))

    want = minimize_scalar(likelihood, bounds=(-6, 6), method="bounded", options={"xatol": 1e-6}).x
    got = float(best_exponent(jnp.float32(logits), jnp.int32(bins)))
    np.testing.assert_allclose(np.log2(got), want, atol=1e-2)
    # A constant per row changes nothing.
    shifted = best_exponent(jnp.float32(logits + 5), jnp.int32(bins))
    np.testing.assert_allclose(shifted, got, rtol=1e-3)


def test_best_exponent_recovers_the_temperature_of_drawn_truths_and_stays_in_its_interval() -> None:
    logits, bins = drawn(0, 2.6, count=4000)
    np.testing.assert_allclose(best_exponent(jnp.float32(logits), jnp.int32(bins)), 2.6, rtol=0.1)
    best = jnp.int32(logits.argmax(1))
    np.testing.assert_allclose(best_exponent(jnp.float32(logits), best), 64, rtol=1e-3)
    np.testing.assert_allclose(best_exponent(-jnp.float32(logits), best), 1 / 64, rtol=1e-3)
    impossible = jnp.float32(np.where(logits < logits.max(1, keepdims=True), -np.inf, 0))
    assert np.isfinite(best_exponent(impossible, best))


@pytest.mark.parametrize("logit_scale", [1.0, 2.606])
def test_calibrate_finds_the_scale_that_truths_were_drawn_with(
    monkeypatch: pytest.MonkeyPatch, logit_scale: float
) -> None:
    """Truths are drawn with half the temperature of the network: the scale to find is twice its own."""
    rng = np.random.default_rng(0)
    net = CIC({}, logit_scale=logit_scale)

    def predicted(net: CIC, photo: np.ndarray) -> tuple[None, ColorDistribution, jax.Array]:
        log_p = np.log(rng.dirichlet(np.full(313, 0.1), (16, 16)) + 1e-9)
        p = softmax(2 * log_p, axis=-1).reshape(-1, 313)
        bins = [rng.choice(313, p=each) for each in p]
        cells = ab_bins()[bins].reshape(16, 16, 2)
        return None, ColorDistribution(jax.nn.softmax(jnp.float32(log_p)), jnp.asarray(ab_bins())), jnp.asarray(cells)

    monkeypatch.setattr(calibration, "predict_photo", predicted)
    found = calibrate(net, [np.zeros((64, 64, 3), np.uint8)] * 30)
    np.testing.assert_allclose(found, 2 * logit_scale, rtol=0.15)
    with pytest.raises(InputError, match="at least one photo"):
        calibrate(net, [])


def test_reliability_is_counted_as_numpy_counts() -> None:
    rng = np.random.default_rng(0)
    p, bins = rng.dirichlet(np.full(5, 0.3), (9, 8)), rng.integers(0, 5, (9, 8))
    got = np.asarray(reliability(jnp.float32(p), jnp.asarray(bins), intervals=10))
    want, error = np.zeros((3, 10)), 0.0
    for each, true in zip(p.reshape(-1, 5), bins.ravel(), strict=True):
        want[:, int(each.max() * 10)] += [1, each.max(), each.argmax() == true]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for count, confidence, correct in want.T[want[0] > 0]:
        error += count / 72 * abs(correct / count - confidence / count)
    np.testing.assert_allclose(Reliability(*want).error(), error)
    # Certainty belongs to the last interval.
    assert reliability(jnp.eye(5)[None], jnp.arange(5)[None], intervals=4)[:, -1].tolist() == [5, 5, 5]
