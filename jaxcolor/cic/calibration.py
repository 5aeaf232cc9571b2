"""How far the network's probabilities can be believed, and the temperature at which they can be believed most.

The truth of a cell of the network's grid is the mean color (a*, b*) of its pixels; its true bin is the color of the
palette nearest to that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcolor.cic.predict import CIC
from jaxcolor.cic.training.loss import cross_entropy, luminance_and_targets
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.errors import InputError

# The exponent is sought between 2^-6 and 2^6; 30 bisections leave 12 / 2^30 octaves.
OCTAVES, BISECTIONS = 6.0, 30
# Of every photo each fourth cell in both directions counts: neighbors hardly differ, and memory is for more photos.
CELL_STRIDE = 4
CONFIDENCE_BINS = 20


def best_exponent(log_probabilities: jax.Array, true_bins: jax.Array) -> jax.Array:
    """The exponent r > 0 for which p^r, renormalised, gives the true bins the highest likelihood.

    1/r is the temperature of Guo et al. 2017, "On calibration of modern neural networks", section 4.2.

    Args:
        log_probabilities: ``[N, Q]``, any additive constant per row is allowed (logits too).
        true_bins: int ``[N]``.

    Returns:
        [] between 1/64 and 64; above 1 the probabilities were too cautious, below 1 too bold. The negative
        log-likelihood is convex in r, so the sign of its derivative is bisected; a result at an end of the interval
        means that there is no minimum inside.

    >>> log_p = jnp.log(jnp.array([[0.8, 0.2]] * 4))                # too bold: right in 3 of 4 cases only
    >>> r = best_exponent(log_p, jnp.array([0, 0, 0, 1]))
    >>> round(float(jax.nn.softmax(r * log_p)[0, 0]), 3)
    0.75
    """
    return _bisected(log_probabilities, true_bins)


@jax.jit
def _bisected(log_probabilities: jax.Array, true_bins: jax.Array) -> jax.Array:
    truth = jnp.take_along_axis(log_probabilities, true_bins[:, None], -1)[:, 0]

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        p = jax.nn.softmax(2**middle * log_probabilities)
        # The derivative of the mean negative log-likelihood: expected minus actual log-probability. Where p is 0 the
        # log-probability may be -inf, and counts for nothing.
        slope = (jnp.where(p > 0, p * log_probabilities, 0).sum(-1) - truth).mean()
        return jnp.where(slope > 0, low, middle), jnp.where(slope > 0, middle, high)

    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.float32(-OCTAVES), jnp.float32(OCTAVES)))
    return 2 ** ((low + high) / 2)


def calibrate(net: CIC, photos: Iterable[np.ndarray]) -> float:
    """The ``logit_scale`` at which the network's distribution is calibrated on photos it has not seen.

    It minimises the mean negative log-likelihood of the true bin. ``photos`` are uint8 ``[S, S, 3]`` sRGB, S a
    multiple of 8, all of one size; the network sees them at that resolution. Whether the inverse of a temperature is
    folded into released weights is answered by this number: near 1 if not, near the temperature (0.38 for Zhang et
    al. 2016) if it is. Only about: with class weights in its loss such a network gives p w / Σ p w, of which no
    temperature makes p, so the number holds what makes up for the class weights, too. :meth:`CIC.with_calibration`
    keeps the scale in the manifest.

    Cost: a forward pass and, while it runs, 1.3 kB for every sixteenth cell (320 kB a photo at 256 pixels). Raises
    :class:`InputError` without photos.

    >>> net = CIC.init(jax.random.key(0), width=1 / 16)
    >>> photos = [np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)]
    >>> 1 / 64 <= calibrate(net, photos) <= 64
    True
    """
    samples = [_sampled(*predict_photo(net, photo)[1:]) for photo in photos]
    if not samples:
        raise InputError("calibration needs at least one photo")
    log_probabilities, bins = (jnp.concatenate(part) for part in zip(*samples, strict=True))
    return float(net.logit_scale * best_exponent(log_probabilities, bins))


def predict_photo(net: CIC, photo: np.ndarray) -> tuple[jax.Array, ColorDistribution, jax.Array]:
    """L* ``[S, S]``, the network's distribution, and the true colors ``[S/4, S/4, 2]`` of its cells.

    ``photo`` is uint8 ``[S, S, 3]`` sRGB.
    """
    luminance, cells = _luminance_and_cells(photo)
    return luminance, net.predict(luminance, resolution=len(photo)), cells


@jax.jit
def _luminance_and_cells(photo: jax.Array) -> tuple[jax.Array, jax.Array]:
    luminance, cells = luminance_and_targets(photo[None])
    return jnp.clip(luminance[0, ..., 0], 0, 100), cells[0]


@jax.jit
def _sampled(distribution: ColorDistribution, cells: jax.Array) -> tuple[jax.Array, jax.Array]:
    some = (slice(None, None, CELL_STRIDE),) * 2
    log_p = log_probabilities(distribution)[some]
    log_p = log_p.reshape(-1, log_p.shape[-1])
    return log_p, cross_entropy(log_p, cells[some].reshape(-1, 2))[1]


def log_probabilities(distribution: ColorDistribution) -> jax.Array:
    """``[h, w, Q]``, finite: a probability that underflowed counts as the smallest number that has not."""
    p = distribution.probabilities
    return jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))


@dataclass(frozen=True)
class Reliability:
    """How often the likeliest color was the true bin, by the probability that it was given.

    ``count``, ``confidence`` and ``correct`` float64 ``[20]``: cells in each of 20 equal intervals of [0, 1], the sum
    of their largest probabilities, and how many of these cells' likeliest bins were the true ones.

    >>> bold = Reliability(np.array([0.0, 10.0]), np.array([0.0, 9.0]), np.array([0.0, 8.0]))
    >>> round(bold.error(), 3)
    0.1
    """

    count: NDArray[np.float64]
    confidence: NDArray[np.float64]
    correct: NDArray[np.float64]

    def error(self) -> float:
        """Expected calibration error in [0, 1], Σ n / N |share correct - mean confidence| over the intervals.

        Source: Guo et al. 2017, equation 3.
        """
        return float(np.abs(self.correct - self.confidence).sum() / self.count.sum())


@partial(jax.jit, static_argnames="intervals")
def reliability(probabilities: jax.Array, true_bins: jax.Array, intervals: int = CONFIDENCE_BINS) -> jax.Array:
    """Rows ``[3, intervals]`` of :class:`Reliability` for ``probabilities`` ``[..., Q]`` and true bins ``[...]``.

    >>> p = jnp.array([[0.7, 0.3], [0.4, 0.6]])
    >>> reliability(p, jnp.array([0, 0]), intervals=2)[0].tolist()
    [0.0, 2.0]
    """
    confidence = probabilities.max(-1).ravel()
    correct = (probabilities.argmax(-1) == true_bins).ravel()
    interval = jnp.clip((confidence * intervals).astype(jnp.int32), 0, intervals - 1)
    values = jnp.stack([jnp.ones_like(confidence), confidence, correct.astype(confidence.dtype)])
    return jnp.zeros((3, intervals), confidence.dtype).at[:, interval].add(values)
