"""3x3 convolution by Winograd's minimal filtering: 36 products for each 4x4 outputs, where the plain way takes 144.

F(4x4, 3x3) of Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4, as matrix products
over all tiles of the image. The points of evaluation are derived: with 0, ±√2, ±1/√2 and infinity a result in float32
is wrong by about 1e-6 of a usual one, with theirs, 0, ±1, ±2 and infinity, by twice as much, summed plainly by 2e-7.

``x`` is ``[N, H, W, C]``, ``kernel`` ``[3, 3, C, O]``, ``padding`` the zeros before and after each of the two axes, and
the stride 1. A tile's 6x6 numbers are kept as six arrays, one for each row: XLA's library for CPU takes a core for
each.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_TILE, _TAPS = 4, 6


def _powers(count: int) -> np.ndarray:
    """So many powers of the points; of infinity the highest alone."""
    root = np.sqrt(2)
    finite = np.vander([0, root, -root, 1 / root, -1 / root], count, increasing=True)
    return np.vstack([finite, np.eye(count)[-1]])


# Along one axis, outputs = A ((G kernel) * (B inputs)) for 6 inputs and 4 outputs: the transposed product of
# polynomials by their values at the points (Toom and Cook).
_A, _G, _B = _powers(_TILE).T, _powers(3), np.linalg.inv(_powers(_TAPS)).T

_Rows = Sequence[jax.Array]
_Padding = tuple[tuple[int, int], tuple[int, int]]


def winograd(x: jax.Array, kernel: jax.Array, dilation: int, padding: _Padding) -> jax.Array:
    """The 3x3 convolution by Winograd's way.

    >>> winograd(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), 1, ((1, 1), (1, 1)))[0, 0, :, 0].round(4).tolist()
    [4.0, 6.0, 6.0, 4.0]
    """
    shape = _outputs(x, kernel, dilation, padding).shape
    products = _products(_tiles(x, shape, dilation, padding), _transformed(after(x, kernel)), (2, 1))
    return _whole(_weighted(np.kron(_A, _A), products), shape, dilation)


def winograd_in_image(x: jax.Array, kernel: jax.Array, dilation: int, padding: _Padding) -> jax.Array:
    """The 3x3 convolution, in a form whose transpose in the image multiplies what Winograd's way multiplies."""
    outputs = _outputs(x, kernel, dilation, padding)

    def gradient(change: jax.Array) -> jax.Array:
        products = _products(_changes(change, dilation), _transformed(kernel), (2, 2))
        return _overlaid(_weighted(np.kron(_B, _B).T, products), x.shape, outputs.shape, dilation, padding)

    return jax.linear_transpose(gradient, outputs)(x)[0]


def winograd_in_kernel(x: jax.Array, kernel: jax.Array, dilation: int, padding: _Padding) -> jax.Array:
    """The 3x3 convolution, in a form whose transpose in the kernel multiplies what Winograd's way multiplies."""
    outputs = _outputs(x, kernel, dilation, padding)

    def gradient(change: jax.Array) -> jax.Array:
        products = _products(_tiles(x, outputs.shape, dilation, padding), _changes(change, dilation), (1, 1))
        return _weighted(np.kron(_G, _G).T, products).reshape(kernel.shape)

    return jax.linear_transpose(gradient, outputs)(kernel)[0]


def after(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The kernel, but not before ``x`` is there.

    Else XLA:CPU transforms every kernel of a network at its start, and keeps all of them, four times as large as they
    were. It drops a barrier too early for that. So something is added that is 0, which XLA cannot know.
    """
    return kernel + jnp.minimum(jnp.abs(x[(0,) * x.ndim]), 0)


def _outputs(x: jax.Array, kernel: jax.Array, dilation: int, padding: _Padding) -> jax.ShapeDtypeStruct:
    height, width = (n + sum(edges) - 2 * dilation for n, edges in zip(x.shape[1:3], padding, strict=True))
    return jax.ShapeDtypeStruct((x.shape[0], height, width, kernel.shape[3]), x.dtype)


def _products(left: _Rows, right: _Rows, contracted: tuple[int, int]) -> jax.Array:
    """The matrix products of all 36, ``[36, ..., ...]``, from and to rows of six."""
    axes = ((contracted[:1], contracted[1:]), ((0,), (0,)))
    return jnp.concatenate([lax.dot_general(a, b, axes) for a, b in zip(left, right, strict=True)])


def _transformed(kernel: jax.Array) -> _Rows:
    """The kernel as it is multiplied, six times ``[6, C, O]``."""
    return _rows(np.kron(_G, _G), kernel.reshape(9, *kernel.shape[2:]))


def _tiles(x: jax.Array, shape: tuple[int, ...], dilation: int, padding: _Padding) -> _Rows:
    """The transformed 6x6 inputs of all 4x4 outputs, six times ``[6, tiles, C]``."""
    down, across = _counts(shape, dilation)
    blocks = _blocks(x, (down + 1, across + 1), dilation, padding)
    taps = [
        blocks[:, i // _TILE : i // _TILE + down, i % _TILE, :, j // _TILE : j // _TILE + across, j % _TILE]
        for i in range(_TAPS)
        for j in range(_TAPS)
    ]
    return _rows(np.kron(_B, _B), jnp.stack(taps))


def _changes(change: jax.Array, dilation: int) -> _Rows:
    """The transformed changes of all 4x4 outputs, six times ``[6, tiles, O]``."""
    blocks = _blocks(change, _counts(change.shape, dilation), dilation, ((0, 0), (0, 0)))
    taps = [blocks[:, :, i, :, :, j] for i in range(_TILE) for j in range(_TILE)]
    return _rows(np.kron(_A, _A).T, jnp.stack(taps))


def _counts(shape: tuple[int, ...], dilation: int) -> tuple[int, int]:
    """How many tiles cover outputs of this shape, down and across."""
    down, across = (-(-size // (_TILE * dilation)) for size in shape[1:3])
    return down, across


def _blocks(x: jax.Array, counts: tuple[int, int], dilation: int, padding: _Padding) -> jax.Array:
    """Blocks of 4x4 pixels, counted in steps of ``dilation``: ``[N, down, 4, dilation, across, 4, dilation, C]``."""
    sizes = [_TILE * dilation * count for count in counts]
    edges = [(p[0], size - n - p[0], 0) for p, size, n in zip(padding, sizes, x.shape[1:3], strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    return x.reshape(x.shape[0], counts[0], _TILE, dilation, counts[1], _TILE, dilation, x.shape[3])


def _rows(matrix: np.ndarray, taps: jax.Array) -> _Rows:
    """Sums of ``taps`` ``[n, ..., C]`` with the weights of ``matrix`` ``[36, n]``: six times ``[6, ..., C]``."""
    taps = taps.reshape(len(taps), -1, taps.shape[-1])
    return [_weighted(row, taps) for row in np.split(matrix, _TAPS)]


def _weighted(matrix: np.ndarray, arrays: jax.Array) -> jax.Array:
    """Sums of ``arrays`` ``[n, ...]`` with the weights of ``matrix`` ``[m, n]``: ``[m, ...]``.

    A matrix product, though a third of the weights are 0: it is the faster one, and compiles in no time.
    """
    product = jnp.asarray(matrix, arrays.dtype) @ arrays.reshape(len(arrays), -1)
    return product.reshape(len(matrix), *arrays.shape[1:])


def _whole(tiles: jax.Array, shape: tuple[int, ...], dilation: int) -> jax.Array:
    """Outputs of this shape from ``[16, tiles, O]``."""
    (n, height, width, channels), (down, across) = shape, _counts(shape, dilation)
    tiles = tiles.reshape(_TILE, _TILE, n, down, dilation, across, dilation, channels)
    return _image(tiles)[:, :height, :width]


def _overlaid(
    tiles: jax.Array, image: tuple[int, ...], outputs: tuple[int, ...], dilation: int, padding: _Padding
) -> jax.Array:
    """The image from ``[36, tiles, C]``: the sum where tiles overlap, without what lies in the padding."""
    (n, height, width, channels), (down, across) = image, _counts(outputs, dilation)
    tiles = tiles.reshape(_TAPS, _TAPS, n, down, dilation, across, dilation, channels)
    tiles = _added_to_next(_added_to_next(tiles, 0, 3), 1, 5)
    (above, _), (left, _) = padding
    return _image(tiles)[:, above : above + height, left : left + width]


def _added_to_next(tiles: jax.Array, taps: int, along: int) -> jax.Array:
    """The last two taps added to the first two of the next tile, of which there is one more."""
    own, over = jnp.split(tiles, [_TILE], axis=taps)
    return _padded(own, along, 0, 1) + _padded(_padded(over, taps, 0, 2 * _TILE - _TAPS), along, 1, 0)


def _padded(x: jax.Array, axis: int, before: int, after: int) -> jax.Array:
    edges = [(0, 0)] * x.ndim
    edges[axis] = (before, after)
    return jnp.pad(x, edges)


def _image(tiles: jax.Array) -> jax.Array:
    """``[4, 4, N, down, dilation, across, dilation, C]`` as an image."""
    _, _, n, down, dilation, across, _, channels = tiles.shape
    step = _TILE * dilation
    return tiles.transpose(2, 3, 0, 4, 5, 1, 6, 7).reshape(n, step * down, step * across, channels)
