"""Two-dimensional convolution that is also fast on CPU.

XLA compiles convolutions well for GPU and TPU. On CPU (jax 0.10) some kinds run at a small part of the speed of the
others: of very few channels, with small kernels, without any padding, of 1x1 pixel, and most derivatives. Here

* one of very few channels is a plain sum over taps;
* one without padding is made with a row of it, one with small kernels with a row more, and the row is dropped;
* one of 1x1 pixel is a matrix product;
* one of 3x3 pixels and many channels is Winograd's: see :mod:`jaxcolor.winograd`;
* the *tangent* is written in a form whose transpose is fast: in the kernel as matrix products of pixels' neighborhoods,
  so that the weight gradient is a sum of matrix products (where there are channels enough to make them worth while);
  of single pixels, and in small images of few channels, it is a single one;
  in the image (and in the kernel, where channels are few), for strided convolutions, as an unstrided one over blocks of
  ``stride`` by ``stride`` pixels.

Forward and reverse mode both follow, as does any order of differentiation. Other platforms get XLA's own rules.
``python -m benchmarks speed --only convolution`` measures what each is worth.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxcolor.winograd import after, winograd, winograd_in_image, winograd_in_kernel

# The numbers are leads, by a script that was not kept, on two cores.
# With fewer channels on either side, XLA's own weight gradient is the faster one, except of single pixels.
_CHANNELS_FOR_PRODUCTS = 8
# With so many channels at most, a sum over taps is faster than XLA's own.
_CHANNELS_FOR_SUMS = 3
# Up to this product of both channels, and so many numbers in its two arrays, one matrix product of the whole image is
# faster than many of a few rows. Larger arrays lie in memory that the allocator gives back after every use.
_SIZE_FOR_ONE_PRODUCT = 24 * 16
_NUMBERS_FOR_ONE_PRODUCT = 2**23
# Products of both channels for which XLA's library runs on one core where padding keeps the size; below them a row more
# gains nothing, above it runs on all.
_SIZES_ON_ONE_CORE = range(512, 128 * 128)
# With so many on both sides it is worth it to turn the changes around in memory: a tenth of the weight gradient.
_CHANNELS_FOR_TURNING = 64
# So many pixels' neighborhoods stay in the cache, for 16 to 128 channels.
_PIXELS_AT_ONCE = 1024
# Winograd's way needs channels enough to make its products worth its sums. Its program takes longer to compile, so the
# saving must be worth that: above so many multiplications.
_CHANNELS_FOR_WINOGRAD = 128
_MULTIPLICATIONS_FOR_WINOGRAD = 5e8

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1, padding: Padding) -> jax.Array:
    """Cross-correlation of ``x`` ``[N, H, W, C]`` with ``kernel`` ``[h, w, C, O]``; returns ``[N, H', W', O]``.

    ``padding`` gives the zeros before and after each of the two axes. Equals
    ``lax.conv_general_dilated`` in value and derivatives, to rounding. Derivatives have the matrix-product precision
    (:func:`jax.default_matmul_precision`) that holds here, wherever they are taken.

    >>> convolve(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), padding=((1, 1), (1, 1))).shape
    (1, 4, 4, 2)
    """
    # Handed on, because the rule of derivatives is traced later, when a context around this call has ended.
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return _convolve(x, kernel, stride, dilation, padding, precision)


def convolve_transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution with a 4x4 kernel, stride 2, padding 1: ``[N, H, W, C]`` to ``[N, 2H, 2W, O]``.

    ``kernel`` ``[4, 4, C, O]`` is laid over the zero-interleaved image (PyTorch's kernel, flipped in space). Each of
    the four parities of the output sees 2x2 taps only, so this is one convolution without any zeros, with four times as
    many outputs. Of these each parity lies where its own taps begin.

    >>> convolve_transposed(jnp.ones((1, 3, 5, 2)), jnp.ones((4, 4, 2, 7))).shape
    (1, 6, 10, 7)
    """
    (n, h, w, channels), outputs = x.shape, kernel.shape[3]
    # From [tap, parity, tap, parity, C, O].
    kernel = kernel.reshape(2, 2, 2, 2, channels, outputs).transpose(0, 2, 4, 1, 3, 5)
    every = convolve(x, kernel.reshape(2, 2, channels, 4 * outputs), padding=((1, 1), (1, 1)))
    every = every.reshape(n, h + 1, w + 1, 2, 2, outputs)
    rows = [jnp.stack([every[:, i : i + h, j : j + w, i, j] for j in (0, 1)], axis=3) for i in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, outputs)


def _plain(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: Padding, precision: str | None = None
) -> jax.Array:
    if _is_product(kernel, stride, padding):
        return jnp.matmul(x, kernel[0, 0], precision=precision)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def _is_product(kernel: jax.Array, stride: int, padding: Padding) -> bool:
    return kernel.shape[:2] == (1, 1) and stride == 1 and not any(map(any, padding))


def _suits_winograd(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    # In half precision its sums lose too much.
    return (
        kernel.shape[:2] == (3, 3)
        and stride == 1
        and min(kernel.shape[2:]) >= _CHANNELS_FOR_WINOGRAD
        and x.size // x.shape[3] * kernel.size >= _MULTIPLICATIONS_FOR_WINOGRAD
        and x.dtype.itemsize >= 4
    )


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4, 5))
def _convolve(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: Padding, precision: str | None
) -> jax.Array:
    plain = partial(_plain, stride=stride, dilation=dilation, padding=padding, precision=precision)
    if kernel.shape[2] <= _CHANNELS_FOR_SUMS:
        on_cpu = partial(_as_sum, stride=stride, dilation=dilation, padding=padding)
    elif _suits_winograd(x, kernel, stride):
        on_cpu = partial(winograd, dilation=dilation, padding=padding)
    elif _gains_by_a_row(kernel, stride, dilation, padding):
        on_cpu = partial(_with_a_row_more, stride=stride, dilation=dilation, padding=padding)
    else:
        return plain(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _as_sum(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: Padding) -> jax.Array:
    """The convolution of few channels as one sum over taps and channels, in a single pass over the result."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps_down, taps_across, channels, _ = kernel.shape
    rows, columns = (n - dilation * (taps - 1) for n, taps in zip(x.shape[1:3], (taps_down, taps_across), strict=True))
    seen = [
        x[:, i * dilation : i * dilation + rows : stride, j * dilation : j * dilation + columns : stride, c, None]
        * kernel[i, j, c]
        for i in range(taps_down)
        for j in range(taps_across)
        for c in range(channels)
    ]
    return sum(seen[1:], seen[0])


def _gains_by_a_row(kernel: jax.Array, stride: int, dilation: int, padding: Padding) -> bool:
    """Whether XLA's library for CPU is faster with a row more.

    Without any padding it runs on one core, unless there is a row of it. With as much as keeps the size it does so too
    for small kernels, and with a row more another library takes over, which runs on all.
    """
    taps = kernel.shape[:2]
    if not any(map(any, padding)):
        return taps != (1, 1)
    keeps_size = all(sum(edges) == dilation * (n - 1) for edges, n in zip(padding, taps, strict=True))
    return keeps_size and stride == 1 and kernel.shape[2] * kernel.shape[3] in _SIZES_ON_ONE_CORE


def _with_a_row_more(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: Padding) -> jax.Array:
    """The convolution with a row of padding more, and without what that adds."""
    (above, below), across = padding
    rows = (x.shape[1] + above + below - dilation * (kernel.shape[0] - 1) - 1) // stride + 1
    return _plain(x, kernel, stride, dilation, ((above, below + stride), across))[:, :rows]


def _with_a_row_more_in_image(x: jax.Array, kernel: jax.Array, dilation: int, padding: Padding) -> jax.Array:
    """The unstrided convolution, in a form whose transpose in the image is one with a row of padding more."""
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    beyond = tuple(
        (dilation * (n - 1) - before, dilation * (n - 1) - after)
        for (before, after), n in zip(padding, kernel.shape[:2], strict=True)
    )

    def gradient(change: jax.Array) -> jax.Array:
        return _with_a_row_more(change, turned, 1, dilation, beyond)  # type: ignore[arg-type]

    outputs = jax.eval_shape(partial(_plain, stride=1, dilation=dilation, padding=padding), x, kernel)
    return jax.linear_transpose(gradient, outputs)(x)[0]


@_convolve.defjvp
def _convolve_jvp(
    stride: int,
    dilation: int,
    padding: Padding,
    precision: str | None,
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    x, kernel = primals
    dx, dkernel = tangents
    plain = partial(_plain, stride=stride, dilation=dilation, padding=padding, precision=precision)
    along_image = along_kernel = plain
    of_pixels = _is_product(kernel, stride, padding)
    if stride > 1 and dilation == 1:
        in_blocks = partial(_over_blocks, stride=stride, padding=padding)
        along_image = along_kernel = partial(lax.platform_dependent, cpu=in_blocks, default=plain)
    if any(map(any, padding)) and _gains_by_a_row(kernel, stride, dilation, padding):
        in_image = partial(_with_a_row_more_in_image, dilation=dilation, padding=padding)
        along_image = partial(lax.platform_dependent, cpu=in_image, default=plain)
    if of_pixels and kernel.shape[3] <= _CHANNELS_FOR_SUMS:
        along_image = partial(lax.platform_dependent, cpu=_output_by_output, default=plain)
    # In half precision sums over blocks of rows lose too much.
    if x.dtype.itemsize >= 4 and (of_pixels or min(kernel.shape[2:]) >= _CHANNELS_FOR_PRODUCTS):
        if of_pixels or _suits_one_product(x, kernel, stride):
            as_products = partial(_as_one_product, dilation=dilation, padding=padding)
        else:
            as_products = partial(_as_products, stride=stride, dilation=dilation, padding=padding)
        along_kernel = partial(lax.platform_dependent, cpu=as_products, default=plain)
    if _suits_winograd(x, kernel, stride):
        # Here and not in there, because the form to transpose must be linear in all that it sees of the image.
        def by_winograd(dx: jax.Array, kernel: jax.Array) -> jax.Array:
            return winograd_in_image(dx, after(x, kernel), dilation, padding)

        along_image = partial(lax.platform_dependent, cpu=by_winograd, default=plain)
        in_kernel = partial(winograd_in_kernel, dilation=dilation, padding=padding)
        along_kernel = partial(lax.platform_dependent, cpu=in_kernel, default=plain)
    primal = _convolve(x, kernel, stride, dilation, padding, precision)
    return primal, along_image(dx, kernel) + along_kernel(x, dkernel)


def _suits_one_product(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Whether the weight gradient is one matrix product of the whole image, given that it is of products at all."""
    down, across, channels, outputs = kernel.shape
    numbers = x.size // channels * (across * channels + down * outputs)
    return stride == 1 and channels * outputs <= _SIZE_FOR_ONE_PRODUCT and numbers <= _NUMBERS_FOR_ONE_PRODUCT


def _as_one_product(x: jax.Array, kernel: jax.Array, dilation: int, padding: Padding) -> jax.Array:
    """The convolution as one matrix product: of every pixel and those to its right, added up over rows of taps.

    Transposed, it is the weight gradient: the product of pixels side by side and of changes one above the other, each
    of them repeated as often as the kernel is wide or high, not as often as it has taps (derived).
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps_down, taps_across, channels, outputs = kernel.shape
    rows, columns = (n - dilation * (taps - 1) for n, taps in zip(x.shape[1:3], (taps_down, taps_across), strict=True))
    seen = [x[:, :, j : j + columns] for j in range(0, dilation * taps_across, dilation)]
    lines = jnp.concatenate(seen, -1).reshape(-1, taps_across * channels)
    kernel = kernel.transpose(1, 2, 0, 3).reshape(-1, taps_down * outputs)
    # Of the transposed product the side that fills more vectors should come last: up to six times faster. The barrier
    # keeps the order, since XLA takes a transposed product for one in the other order.
    if max(kernel.shape, key=_vectors) == kernel.shape[0]:
        products = lax.dot_general(lax.optimization_barrier(kernel.T), lines, (((1,), (1,)), ((), ())))
    else:
        products = lax.dot_general(kernel, lines, (((0,), (1,)), ((), ())))
    parts = jnp.split(products.T.reshape(x.shape[0], x.shape[1], columns, -1), taps_down, -1)
    shifted = [part[:, i * dilation : i * dilation + rows] for i, part in enumerate(parts)]
    return sum(shifted[1:], shifted[0])


def _vectors(size: int, lanes: int = 16) -> tuple[int, int]:
    """How many vectors so many numbers fill; of two that fill as many, the one with the smaller rest is larger."""
    return size // lanes, -(size % lanes)


def _as_products(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, padding: Padding) -> jax.Array:
    """The convolution as matrix products: of a few rows at a time, every output's neighborhood in one line.

    Transposed, it is the weight gradient: the products of neighborhoods and changes, summed over the blocks of rows.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    images, height, width, channels = x.shape
    taps_down, taps_across, _, outputs = kernel.shape
    below, beside = dilation * (taps_down - 1), dilation * (taps_across - 1)
    rows, columns = (height - below - 1) // stride + 1, (width - beside - 1) // stride + 1
    block = min(rows, max(1, _PIXELS_AT_ONCE // columns))
    blocks = -(-rows // block)
    seen = stride * (block - 1) + 1, stride * (columns - 1) + 1
    x = jnp.pad(x, ((0, 0), (0, max(0, (blocks * block - 1) * stride + 1 + below - height)), (0, 0), (0, 0)))

    # Nothing is kept for the transposition but the image itself: neighborhoods would be as many times as large as taps.
    # The kernel is handed from block to block because jax before 0.10 cannot transpose a loop in a
    # ``platform_dependent`` that closes over what is linear. It lies with the outputs first, so that the transposed
    # product turns the changes around and not the neighborhoods, which are many times as large. The barrier has them
    # turned in memory, for which the product is by XLA's fast library; else it would take them as they lie, by another.
    @jax.checkpoint
    def convolved(kernel: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        corner = (number // blocks, number % blocks * (block * stride), 0, 0)
        near = lax.dynamic_slice(x, corner, (1, seen[0] + below, width, channels))[0]
        neighborhoods = [
            near[i : i + seen[0] : stride, j : j + seen[1] : stride]
            for i in range(0, below + 1, dilation)
            for j in range(0, beside + 1, dilation)
        ]
        lines = jnp.concatenate(neighborhoods, -1).reshape(block * columns, -1)
        turned = lax.dot_general(kernel, lines, (((1,), (1,)), ((), ())))
        if min(channels, outputs) >= _CHANNELS_FOR_TURNING:
            turned = lax.optimization_barrier(turned)
        return kernel, turned.T

    _, result = lax.scan(convolved, kernel.reshape(-1, outputs).T, jnp.arange(images * blocks))
    return result.reshape(images, blocks * block, columns, outputs)[:, :rows]


def _output_by_output(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution of one pixel to few outputs, in a form whose transpose in the image is a sum over outputs."""
    # The barrier has every output's weights side by side.
    lines = lax.optimization_barrier(kernel[0, 0].T)
    return jnp.stack([(x * line).sum(-1) for line in lines], -1)


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
