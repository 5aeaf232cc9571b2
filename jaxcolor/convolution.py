"""Two-dimensional convolution whose derivatives are also fast on CPU.

XLA compiles the forward pass of a convolution well on every backend, but on CPU its derivatives run at a small
fraction of that speed: the weight gradient of a 3x3 convolution, and both gradients of a strided one. Here the
primal is XLA's convolution; only the *tangent* is written in a form whose transpose is fast:

* in the kernel, as matrix products of pixels' neighborhoods, so that the weight gradient is a sum of matrix products
  (where there are channels enough to make them worth while);
* in the image (and in the kernel, where channels are few), for strided convolutions, as an unstrided one over blocks of
  ``stride`` by ``stride`` pixels.

Forward and reverse mode both follow, as does any order of differentiation. Other platforms get XLA's own rules.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

# The three numbers are leads, by a script that was not kept, on two cores.
# With fewer channels on either side, XLA's own weight gradient is the faster one.
_CHANNELS_FOR_PRODUCTS = 8
# With more channels, XLA's own weight gradient of a strided convolution is the faster one.
_CHANNELS_FOR_BLOCKS = 64
# So many pixels' neighborhoods stay in the cache, for 16 to 128 channels.
_PIXELS_AT_ONCE = 512

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1, padding: Padding) -> jax.Array:
    """Cross-correlation of ``x`` ``[N, H, W, C]`` with ``kernel`` ``[h, w, C, O]``; returns ``[N, H', W', O]``.

    ``padding`` gives the zeros before and after each of the two axes. Equals
    ``lax.conv_general_dilated`` in value and derivatives, to rounding.

    >>> convolve(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), padding=((1, 1), (1, 1))).shape
    (1, 4, 4, 2)
    """
    return _convolve(x, kernel, stride, dilation, padding)


def convolve_transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution with a 4x4 kernel, stride 2, padding 1: ``[N, H, W, C]`` to ``[N, 2H, 2W, O]``.

    ``kernel`` ``[4, 4, C, O]`` is laid over the zero-interleaved image (PyTorch's kernel, flipped in space). Each of
    the four parities of the output sees 2x2 taps only, so this is four small convolutions without any zeros.

    >>> convolve_transposed(jnp.ones((1, 3, 5, 2)), jnp.ones((4, 4, 2, 7))).shape
    (1, 6, 10, 7)
    """
    rows = [
        jnp.stack(
            [convolve(x, kernel[i::2, j::2], padding=((1 - i, i), (1 - j, j))) for j in (0, 1)],
            axis=3,
        )
        for i in (0, 1)
    ]
    n, h, w, _ = x.shape
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, kernel.shape[3])


def _plain(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: Padding) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


_convolve = jax.custom_jvp(_plain, nondiff_argnums=(2, 3, 4))


@_convolve.defjvp
def _convolve_jvp(
    stride: int,
    dilation: int,
    padding: Padding,
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    x, kernel = primals
    dx, dkernel = tangents
    plain = partial(_plain, stride=stride, dilation=dilation, padding=padding)
    along_image = along_kernel = plain
    if stride > 1 and dilation == 1:
        in_blocks = partial(_over_blocks, stride=stride, padding=padding)
        along_image = partial(lax.platform_dependent, cpu=in_blocks, default=plain)
        if max(kernel.shape[2:]) <= _CHANNELS_FOR_BLOCKS:
            along_kernel = along_image
    if stride == 1 and min(kernel.shape[2:]) >= _CHANNELS_FOR_PRODUCTS:
        as_products = partial(_as_products, dilation=dilation, padding=padding)
        along_kernel = partial(lax.platform_dependent, cpu=as_products, default=plain)
    return plain(x, kernel), along_image(dx, kernel) + along_kernel(x, dkernel)


def _as_products(x: jax.Array, kernel: jax.Array, dilation: int, padding: Padding) -> jax.Array:
    """The unstrided convolution as matrix products: of a few rows at a time, every pixel's neighborhood in one line.

    Transposed, it is the weight gradient: the products of neighborhoods and changes, summed over the blocks of rows.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    images, _, across, channels = x.shape
    taps_down, taps_across, _, outputs = kernel.shape
    below = dilation * (taps_down - 1)
    rows, columns = x.shape[1] - below, across - dilation * (taps_across - 1)
    block = min(rows, max(1, _PIXELS_AT_ONCE // columns))
    blocks = -(-rows // block)
    x = jnp.pad(x, ((0, 0), (0, blocks * block - rows), (0, 0), (0, 0)))

    # Nothing is kept for the transposition but the image itself: neighborhoods would be as many times as large as taps.
    @jax.checkpoint
    def convolved(number: jax.Array) -> jax.Array:
        corner = (number // blocks, number % blocks * block, 0, 0)
        near = lax.dynamic_slice(x, corner, (1, block + below, across, channels))[0]
        seen = [
            near[i : i + block, j : j + columns]
            for i in range(0, below + 1, dilation)
            for j in range(0, across - columns + 1, dilation)
        ]
        return jnp.concatenate(seen, -1).reshape(block * columns, -1) @ kernel.reshape(-1, outputs)

    result = lax.map(convolved, jnp.arange(images * blocks))
    return result.reshape(images, blocks * block, columns, outputs)[:, :rows]


def _over_blocks(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """The strided convolution as an unstrided one over blocks of ``stride`` by ``stride`` pixels."""
    return _plain(*_to_blocks(x, kernel, stride, padding), 1, 1, ((0, 0), (0, 0)))


def _to_blocks(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> tuple[jax.Array, jax.Array]:
    """Space to depth: an image of blocks and a kernel of blocks whose unstrided convolution is the strided one."""
    outputs = [(n + sum(p) - k) // stride + 1 for n, p, k in zip(x.shape[1:3], padding, kernel.shape[:2], strict=True)]
    taps = [-(-k // stride) for k in kernel.shape[:2]]
    # As many blocks as the outputs look at; a negative amount cuts off what no output sees.
    after = [(o + t - 1) * stride - n - p[0] for o, t, n, p in zip(outputs, taps, x.shape[1:3], padding, strict=True)]
    edges = ((0, 0, 0), (padding[0][0], after[0], 0), (padding[1][0], after[1], 0), (0, 0, 0))
    x = _split(lax.pad(x, jnp.zeros((), x.dtype), edges), stride, 1)
    grown = [t * stride - k for t, k in zip(taps, kernel.shape[:2], strict=True)]
    kernel = _split(jnp.pad(kernel, ((0, grown[0]), (0, grown[1]), (0, 0), (0, 0)))[None], stride, 1)[0]
    return x, kernel


def _split(x: jax.Array, stride: int, axis: int) -> jax.Array:
    """``[N, H, W, C, ...]`` to ``[N, H/s, W/s, s*s*C, ...]``."""
    n, h, w, c, *rest = x.shape
    x = x.reshape(n, h // stride, stride, w // stride, stride, c, *rest)
    return jnp.moveaxis(x, 2, 3).reshape(n, h // stride, w // stride, stride * stride * c, *rest)
