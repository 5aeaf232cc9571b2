"""What the network is shown and asked for, the prior, and the loss of Zhang, Isola, Efros 2016."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcolor.cic.network import GRID_STRIDE
from jaxcolor.cic.training.crops import make_batch
from jaxcolor.color.palette import ab_bins, nearest_bins, smooth_prior
from jaxcolor.color.spaces import srgb_to_lab

# A crop counts as gray when no |a*| or |b*| exceeds this (released training code).
GRAY_CHROMA = 5.0
# Of the retouching: range of the logarithm of the exponent of the tone, and of how much detail is added.
TONE = (-0.25, 0.25)
SHARPENING = (-0.5, 0.7)


def luminance_and_targets(rgb: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Network input ``[N, H, W, 1]`` and target colors ``[N, H/4, W/4, 2]`` of uint8 photos ``[N, H, W, 3]``.

    A target is the mean color of its 4x4 pixels. (The released training code takes every fourth pixel, which is
    noisier and lies 1.5 pixels off the cell's center.)
    """
    lab = srgb_to_lab(rgb.astype(jnp.float32) / 255)
    n, h, w, _ = lab.shape
    cells = lab[..., 1:].reshape(n, h // GRID_STRIDE, GRID_STRIDE, w // GRID_STRIDE, GRID_STRIDE, 2)
    return lab[..., :1], cells.mean((2, 4))


def retouched(luminance: jax.Array, key: jax.Array) -> jax.Array:
    """Photos ``[N, H, W, 1]`` as other cameras or programs might have made them of the same scenes.

    Each gets a tone curve, ``100 (L* / 100)^γ``, and is sharpened or blurred (by a multiple of what a mean over 3x3
    pixels takes away), both drawn from ``key``. Derived, to keep a network from relying on either.

    >>> plain = jnp.full((2, 8, 8, 1), 50.0)
    >>> other = retouched(plain, jax.random.key(0))
    >>> bool(jnp.all((other > 40) & (other < 60))), bool(jnp.ptp(other) > 0)
    (True, True)
    """
    tone, sharpening = (
        jax.random.uniform(k, (len(luminance), 1, 1, 1), minval=low, maxval=high)
        for k, (low, high) in zip(jax.random.split(key), (TONE, SHARPENING), strict=True)
    )
    curved = 100 * jnp.clip(luminance / 100, 0, 1) ** jnp.exp(tone)
    smooth = nn.avg_pool(curved, (3, 3), padding="SAME", count_include_pad=False)
    return jnp.clip(curved + sharpening * (curved - smooth), 0, 100)


def cross_entropy(logits: jax.Array, ab: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of the soft-encoded truth, in nats, for every cell, and the index of its nearest bin.

    ``logits`` ``[..., 313]``, ``ab`` ``[..., 2]`` in raw Lab units. Source: Zhang et al. 2016, section 2.2.
    """
    indices, weights = nearest_bins(ab, jnp.asarray(ab_bins()))
    log_probabilities = jax.nn.log_softmax(logits)
    return -(weights * jnp.take_along_axis(log_probabilities, indices, -1)).sum(-1), indices[..., 0]


def rebalanced_loss(logits: jax.Array, ab: jax.Array, class_weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(loss to descend, plain mean cross-entropy). Source: Zhang et al. 2016, equations 2 to 4.

    Every cell is weighted by the class weight of its nearest bin; gray crops do not count. ``class_weights`` ``[313]``
    have mean 1 under the prior, see :func:`jaxcolor.color.palette.rebalancing_weights`.
    """
    cells, nearest = cross_entropy(logits, ab)
    return mean_of_colored(class_weights[nearest] * cells, ab), cells.mean()


def mean_of_colored(values: jax.Array, ab: jax.Array) -> jax.Array:
    """Mean over the cells of the crops that are not gray; 0 if all are. ``values`` ``[..., h, w]``, ``ab`` one more.

    >>> ab = jnp.zeros((2, 1, 1, 2)).at[1].set(50.0)
    >>> round(float(mean_of_colored(jnp.array([7.0, 3.0]).reshape(2, 1, 1), ab)), 3)
    3.0
    """
    colored = (jnp.abs(ab) > GRAY_CHROMA).any((-3, -2, -1), keepdims=True)[..., 0]
    share = colored.mean() + 1e-6
    return (values * colored).mean() / share


def empirical_prior(images: Sequence[np.ndarray], seed: int = 0, crops: int = 4096, size: int = 64) -> jax.Array:
    """Smoothed distribution of the bins ``[313]`` over random crops; see :func:`prior_of_counts`.

    The crops cover the usual share of their photos, whichever the training has: a prior is of the photos, and hardly
    depends on how they are cut.
    """

    @jax.jit
    def histogram(rgb: jax.Array) -> jax.Array:
        return bin_counts(luminance_and_targets(rgb)[1])

    count = 256
    return prior_of_counts(
        sum(histogram(make_batch(images, size, count, seed, step)) for step in range(max(1, crops // count)))
    )


def bin_counts(ab: jax.Array) -> jax.Array:
    """How many of the cells ``[..., 2]`` fall in each bin, ``[313]``, soft-encoded; the sum is the number of cells."""
    indices, weights = nearest_bins(ab, jnp.asarray(ab_bins()))
    return jnp.zeros(len(ab_bins())).at[indices].add(weights)


def prior_of_counts(counts: ArrayLike) -> jax.Array:
    """The smoothed distribution of the bins ``[313]``. Source: Zhang et al. 2016, section 2.2.

    Every bin counts one cell more than was seen, so that no color is ruled out and the logarithm is finite.
    """
    counts = jnp.asarray(counts) + 1
    return smooth_prior(counts / counts.sum(), jnp.asarray(ab_bins()))
