"""3x3 convolution by Winograd's minimal filtering: 16 products for each 2x2 outputs, where the plain way takes 36.

F(2x2, 3x3) of Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1, as sixteen matrix
products over all tiles of the image. ``x`` is ``[N, H, W, C]``, ``kernel`` ``[3, 3, C, O]``, ``padding`` the zeros
before and after each of the two axes, and the stride 1.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

# Along one axis, outputs = A ((G kernel) * (B inputs)) for 4 inputs and 2 outputs.
_B = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_A = ((1, 1, 1, 0), (0, 1, -1, -1))
# The lines of G for a kernel read backward are those of G in this order.
_BACKWARD = (3, 1, 2, 0)

_Square = Sequence[Sequence[jax.Array]]
_Padding = tuple[tuple[int, int], tuple[int, int]]


def winograd(x: jax.Array, kernel: jax.Array, dilation: int, padding: _Padding) -> jax.Array:
    """The 3x3 convolution by Winograd's way.

    >>> winograd(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), 1, ((1, 1), (1, 1)))[0, 0, :, 0].tolist()
    [4.0, 6.0, 6.0, 4.0]
    """
    outputs = _outputs(x, kernel, dilation, padding)
    return _by_products(jnp.pad(x, ((0, 0), *padding, (0, 0))), _both_axes(_G, kernel), outputs.shape, dilation)


def winograd_in_image(x: jax.Array, kernel: jax.Array, dilation: int, padding: _Padding) -> jax.Array:
    """The 3x3 convolution, in a form whose transpose in the image is Winograd's convolution with the turned kernel."""
    transformed = _both_axes(_G, kernel)
    turned = [[transformed[i][j].T for j in _BACKWARD] for i in _BACKWARD]
    (above, below), (left, right) = padding
    beyond = ((2 * dilation - above, 2 * dilation - below), (2 * dilation - left, 2 * dilation - right))

    def gradient(change: jax.Array) -> jax.Array:
        # A negative amount cuts off what lies in the padding of the convolution itself.
        edges = ((0, 0, 0), *((*edge, 0) for edge in beyond), (0, 0, 0))
        return _by_products(lax.pad(change, jnp.zeros((), x.dtype), edges), turned, x.shape, dilation)

    outputs = _outputs(x, kernel, dilation, padding)
    return jax.linear_transpose(gradient, outputs)(x)[0]


def winograd_in_kernel(x: jax.Array, kernel: jax.Array, dilation: int, padding: _Padding) -> jax.Array:
    """The 3x3 convolution, in a form whose transpose in the kernel multiplies what Winograd's way multiplies."""
    outputs = _outputs(x, kernel, dilation, padding)
    tiles = _tiles(jnp.pad(x, ((0, 0), *padding, (0, 0))), outputs.shape, dilation)

    def gradient(change: jax.Array) -> jax.Array:
        changes = _both_axes(_transposed(_A), _phases(change, outputs.shape, 0, dilation))
        products = [
            [a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1]) for a, b in zip(*rows, strict=True)]
            for rows in zip(tiles, changes, strict=True)
        ]
        return jnp.stack([jnp.stack(row) for row in _both_axes(_transposed(_G), products)])

    return jax.linear_transpose(gradient, outputs)(kernel)[0]


def _outputs(x: jax.Array, kernel: jax.Array, dilation: int, padding: _Padding) -> jax.ShapeDtypeStruct:
    height, width = (n + sum(edges) - 2 * dilation for n, edges in zip(x.shape[1:3], padding, strict=True))
    return jax.ShapeDtypeStruct((x.shape[0], height, width, kernel.shape[3]), x.dtype)


def _by_products(x: jax.Array, kernel: _Square, shape: tuple[int, ...], dilation: int) -> jax.Array:
    """Outputs ``shape`` from the padded image and the transformed kernel."""
    products = [
        [tile @ taps for tile, taps in zip(*rows, strict=True)]
        for rows in zip(_tiles(x, shape, dilation), kernel, strict=True)
    ]
    result = jnp.stack([jnp.stack(row, axis=4) for row in _both_axes(_A, products)], axis=2)
    n, down, _, _, across, *_ = result.shape
    whole = result.reshape(n, 2 * dilation * down, 2 * dilation * across, shape[3])
    return whole[:, : shape[1], : shape[2]]


def _tiles(x: jax.Array, shape: tuple[int, ...], dilation: int) -> _Square:
    """The transformed 4x4 inputs of all 2x2 outputs."""
    phases = _phases(x, shape, 1, dilation)
    down, across = (n - 1 for n in phases[0][0].shape[1:4:2])
    seen = [
        [phases[i % 2][j % 2][:, i // 2 : i // 2 + down, :, j // 2 : j // 2 + across] for j in range(4)]
        for i in range(4)
    ]
    return _both_axes(_B, seen)


def _phases(x: jax.Array, shape: tuple[int, ...], more: int, dilation: int) -> _Square:
    """Even and odd pixels, counted in steps of ``dilation``, as ``[N, tiles + more, dilation, ..., C]``.

    There are tiles enough for outputs of ``shape``, filled up with zeros.
    """
    step = 2 * dilation
    down, across = (-(-size // step) + more for size in shape[1:3])
    n, height, width, channels = x.shape
    edges = ((0, 0, 0), (0, step * down - height, 0), (0, step * across - width, 0), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    x = x.reshape(n, down, 2, dilation, across, 2, dilation, channels)
    return [[x[:, :, i, :, :, j] for j in (0, 1)] for i in (0, 1)]


def _both_axes(matrix: Sequence[Sequence[float]], square: _Square | jax.Array) -> list[list[jax.Array]]:
    """``matrix square matrix^T``, for a square of arrays."""

    def weighted(weights: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
        terms = [weight * array for weight, array in zip(weights, arrays, strict=True) if weight]
        return sum(terms[1:], terms[0])

    rows = [[weighted(line, column) for column in zip(*square, strict=True)] for line in matrix]
    return [[weighted(line, row) for line in matrix] for row in rows]


def _transposed(matrix: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    return list(zip(*matrix, strict=True))
