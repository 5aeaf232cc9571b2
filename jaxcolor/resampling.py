"""Resampling of images as products with two small matrices, one per axis.

The matrices are computed on the host and passed as data. A compiled function that takes them serves photos of any
size that are padded to one shape: the columns of the padding are zero.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Kernel = Literal["linear", "cubic", "lanczos"]
Border = Literal["cut", "repeat"]
_RADIUS = {"linear": 1.0, "cubic": 2.0, "lanczos": 2.0}


def resampling_matrix(
    size: int, new_size: int, kernel: Kernel = "cubic", padded: int | None = None, border: Border = "cut"
) -> np.ndarray:
    """Weights ``[new_size, padded or size]``, float32, that resample a line of ``size`` pixels; rows sum to 1.

    Pixel centers lie at half-integers. When shrinking, the kernel is widened to the new pixel, so that nothing
    aliases. At the border it is cut off and renormalised, or with ``border="repeat"`` the outermost pixel counts for
    those beyond. ``"cubic"`` is the cubic convolution of Keys 1981 (a = -1/2), as in Pillow's ``BICUBIC`` and
    ``jax.image.resize``; ``"linear"`` the triangle; ``"lanczos"`` the windowed sinc of two lobes.

    >>> [round(float(weight), 3) for weight in resampling_matrix(4, 2, "linear")[0]]
    [0.429, 0.429, 0.143, 0.0]
    """
    scale = max(size / new_size, 1.0)
    center = (np.arange(new_size) + 0.5) * (size / new_size)
    # Only the few taps inside the kernel's support are evaluated: a line may have tens of thousands of pixels.
    taps = np.floor(center - _RADIUS[kernel] * scale).astype(int)[:, None] + np.arange(
        int(2 * _RADIUS[kernel] * scale) + 2
    )
    distance = np.abs(taps + 0.5 - center[:, None]) / scale
    weights = _kernel(distance, kernel)
    if border == "cut":
        weights = np.where((taps >= 0) & (taps < size), weights, 0.0)
    weights /= weights.sum(1, keepdims=True)
    matrix = np.zeros((new_size, padded or size), np.float32)
    np.add.at(matrix, (np.arange(new_size)[:, None], taps.clip(0, size - 1)), weights)
    return matrix


@jax.jit
def resample(image: ArrayLike, rows: ArrayLike, columns: ArrayLike) -> jax.Array:
    """``image`` ``[H, W]`` or ``[H, W, C]`` resampled by a matrix ``[h, H]`` down and a matrix ``[w, W]`` across.

    The result has the float dtype of the image; float32 for an image of integers.

    >>> half = resampling_matrix(8, 4)
    >>> resample(jnp.ones((8, 8, 2)), half, half).shape
    (4, 4, 2)
    """
    image = jnp.asarray(image)
    image = image if jnp.issubdtype(image.dtype, jnp.floating) else image.astype(jnp.float32)
    narrow = jnp.einsum("xw,hw...->hx...", jnp.asarray(columns, image.dtype), image, precision="highest")
    return jnp.einsum("yh,hx...->yx...", jnp.asarray(rows, image.dtype), narrow, precision="highest")


def resize(image: ArrayLike, shape: tuple[int, int], kernel: Kernel = "cubic") -> jax.Array:
    """``image`` ``[H, W]`` or ``[H, W, C]`` at another size, with anti-aliasing when it shrinks.

    >>> resize(jnp.ones((10, 30)), (4, 4)).shape
    (4, 4)
    """
    rows, columns = (resampling_matrix(old, new, kernel) for old, new in zip(jnp.shape(image)[:2], shape, strict=True))
    return resample(image, rows, columns)


def _kernel(distance: np.ndarray, kernel: Kernel) -> np.ndarray:
    if kernel == "linear":
        return np.maximum(1 - distance, 0)
    if kernel == "lanczos":
        return np.where(distance < 2, np.sinc(distance) * np.sinc(distance / 2), 0.0)
    return np.asarray(cubic(distance, np))


def cubic(distance: Any, xp: Any = jnp) -> Any:
    """Cubic convolution of Keys 1981 with a = -1/2, of NumPy or JAX arrays of distances >= 0.

    >>> cubic(np.array([0.0, 0.5, 1.0, 2.0]), np).tolist()
    [1.0, 0.5625, 0.0, 0.0]
    """
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return xp.where(distance < 1, near, xp.where(distance < 2, far, 0.0))
