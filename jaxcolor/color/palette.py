"""The 313 ab bins of Zhang, Isola, Efros (2016), soft encoding, and class rebalancing.

The bins are the points of the grid of step 10 in the (a*, b*) plane inside a fixed convex polygon, in
lexicographic order: a* ascending, then b* ascending. They are *not* "the bins that contain an sRGB color"; the
table below is the list that the released weights were trained with.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

BIN_STEP = 10
# For each a* = -90, -80, ..., 100: the smallest and the largest b* of the polygon.
_B_RANGES = (
    (50, 90), (20, 90), (0, 90), (-20, 90), (-30, 100), (-40, 100), (-50, 100), (-50, 100), (-60, 100), (-70, 100),
    (-80, 90), (-80, 90), (-90, 90), (-100, 90), (-100, 80), (-110, 80), (-110, 80), (-110, 70), (-110, 70), (-90, 0),
)  # fmt: skip


def ab_bins() -> np.ndarray:
    """The 313 bin centers, float32 ``[313, 2]`` in raw Lab units, in the order of the released network's head.

    >>> ab_bins()[:2].tolist(), ab_bins().shape
    ([[-90.0, 50.0], [-90.0, 60.0]], (313, 2))
    """
    rows = enumerate(_B_RANGES)
    centers = [(BIN_STEP * (i - 9), b) for i, (low, high) in rows for b in range(low, high + 1, BIN_STEP)]
    return np.array(centers, np.float32)


@partial(jax.jit, static_argnames="neighbors")
def nearest_bins(
    ab: jax.Array, palette: jax.Array, neighbors: int = 5, sigma: float = 5.0
) -> tuple[jax.Array, jax.Array]:
    """Sparse soft encoding: the nearest bins of each color and their Gaussian weights.

    ``ab`` ``[..., 2]`` and ``palette`` ``[Q, 2]`` in raw Lab units; returns ``indices`` int32 ``[..., neighbors]``
    (nearest first) and ``weights`` ``[..., neighbors]``, proportional to exp(-d^2 / (2 sigma^2)) and summing to 1.

    Source: Zhang et al. 2016, section 2.2: 5 neighbors and sigma = 5 (the released training code uses 10).

    >>> indices, weights = nearest_bins(jnp.array([1.0, 2.0]), ab_bins(), neighbors=1)
    >>> ab_bins()[indices].tolist(), weights.tolist()
    ([[0.0, 0.0]], [1.0])
    """
    palette = jnp.asarray(palette, ab.dtype)
    distance2 = (ab[..., :1] - palette[:, 0]) ** 2 + (ab[..., 1:] - palette[:, 1]) ** 2
    # XLA:CPU has a fast top-k for matrices only; for more axes it sorts, thirty times slower.
    negative, indices = jax.lax.top_k(-distance2.reshape(-1, len(palette)), neighbors)
    negative, indices = (x.reshape(*ab.shape[:-1], neighbors) for x in (negative, indices))
    # Relative to the nearest bin, so that colors far outside the palette do not underflow to 0/0.
    weights = jnp.exp((negative - negative[..., :1]) / (2 * sigma**2))
    return indices, weights / weights.sum(-1, keepdims=True)


@partial(jax.jit, static_argnames="neighbors")
def soft_encode(ab: jax.Array, palette: jax.Array, neighbors: int = 5, sigma: float = 5.0) -> jax.Array:
    """Soft encoding of colors ``[..., 2]`` as distributions ``[..., Q]`` over the palette; see :func:`nearest_bins`.

    >>> z = soft_encode(jnp.array([[12.0, -7.0]]), ab_bins())
    >>> z.shape, round(float(z.sum()), 5), int((z > 0).sum())
    ((1, 313), 1.0, 5)
    """
    indices, weights = nearest_bins(ab, palette, neighbors, sigma)
    dense = _vmap_leading(lambda i, w: jnp.zeros(len(palette), w.dtype).at[i].set(w), ab.ndim - 1)
    return dense(indices, weights)


@jax.jit
def smooth_prior(prior: jax.Array, palette: jax.Array, sigma: float = 5.0) -> jax.Array:
    """Gaussian smoothing in the ab plane of an empirical bin distribution ``[Q]``; the result sums to 1.

    Source: Zhang et al. 2016, section 2.2 (sigma = 5).

    >>> round(float(smooth_prior(jnp.full(313, 1 / 313), ab_bins()).sum()), 5)
    1.0
    """
    palette = jnp.asarray(palette, prior.dtype)
    distance2 = ((palette[:, None] - palette[None]) ** 2).sum(-1)
    kernel = jnp.exp(-distance2 / (2 * sigma**2))
    # Each bin spreads its own mass, also where the polygon cuts its neighborhood.
    smoothed = (kernel / kernel.sum(0) * prior).sum(1)
    return smoothed / smoothed.sum()


@jax.jit
def rebalancing_weights(prior: jax.Array, uniform_share: float = 0.5) -> jax.Array:
    """Class weights ``[Q]`` that give rare colors more say: w ∝ 1 / ((1 - λ) p + λ / Q), with Σ p w = 1.

    ``prior`` ``[Q]`` is the smoothed distribution p of the bins, ``uniform_share`` is λ in [0, 1]; the uniform
    part covers the bins with p > 0 only, and bins with p = 0 get weight 0. Elsewhere λ = 1 gives w = 1 (no
    rebalancing), λ = 0 full inverse frequency. Source: Zhang et al. 2016, equation 4 (λ = 1/2).

    >>> rebalancing_weights(jnp.array([0.5, 0.5, 0.0])).tolist()
    [1.0, 1.0, 0.0]
    """
    seen = prior > 0
    mixed = (1 - uniform_share) * prior + uniform_share * seen / seen.sum()
    weights = jnp.where(seen, 1 / jnp.where(seen, mixed, 1.0), 0.0)
    return weights / (prior * weights).sum()


def _vmap_leading(function: Callable[..., jax.Array], times: int) -> Callable[..., jax.Array]:
    for _ in range(times):
        function = jax.vmap(function)
    return function
