"""The skip network whose structure is the prior: an encoder-decoder with a thin connection at every scale.

Source: Ulyanov, Vedaldi, Lempitsky 2018, "Deep image prior", the setting for super-resolution; taken over by
Agazzotti, Pierre, Sur 2023. Facts that are easy to get wrong: every 3x3 convolution, also a strided one, sees its image
reflected at the border; normalisation is by the statistics of the one image, at all times; the joined channels are
normalised once more before they are convolved.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax

from jaxcolor.convolution import convolve
from jaxcolor.coupled_tv.checks import check_count

NOISE_CHANNELS = 32
_LEAK = 0.2
# Of a picture among the channels of the noise: about as spread as these.
_PICTURE_SCALE = np.array([4.0, 8.0, 8.0], np.float32)
_VARIANCE_FLOOR = 1e-5


class SkipNetwork(nn.Module):
    """A picture of three channels in [0, 1] from noise.

    ``scales`` is the depth: each scale halves the image. ``channels`` are the hidden channels of every scale,
    ``skip_channels`` those of the connections. The defaults are the published network: 2,217,831 parameters, and
    38 GFLOP for the forward pass of 256 x 256 pixels. With ``residual`` (not published) the first three channels of
    the noise hold a picture, scaled by :func:`as_noise`, and the network draws how its own differs from that one.

    Called with noise ``[N, H, W, C]`` (published: C = 32), returns ``[N, H, W, 3]``. Any size with more than
    ``2 ** scales`` rows and columns. A side of odd length n becomes (n + 1) / 2 on the way down and n + 1 on the way
    up; its last row or column is cut off there. For N > 1 the statistics are those of all N: use ``jax.vmap`` to
    keep images apart. Raises :class:`InputError` for numbers that are not whole or below 1.

    >>> network = SkipNetwork(channels=8, scales=2)
    >>> shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 32)))
    >>> jax.eval_shape(network.apply, shapes, jnp.zeros((1, 13, 6, 32))).shape
    (1, 13, 6, 3)
    """

    channels: int = 128
    scales: int = 5
    skip_channels: int = 4
    residual: bool = False

    def __post_init__(self) -> None:
        for name in ("channels", "scales", "skip_channels"):
            check_count(name, getattr(self, name), 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, noise: jax.Array) -> jax.Array:
        drawn = Convolution(3, size=1, name="out")(self._scale(noise, 0))
        if self.residual:
            # Where the sigmoid is steep enough to learn.
            known = jnp.clip(noise[..., :3] / _PICTURE_SCALE + 0.5, 0.01, 0.99)
            drawn = drawn + jax.scipy.special.logit(known)
        return nn.sigmoid(drawn)

    def _scale(self, x: jax.Array, level: int) -> jax.Array:
        """Scale ``level`` and all coarser ones, at the size of ``x``."""
        skip = self._layer(x, f"skip{level}", size=1, channels=self.skip_channels)
        deep = self._layer(x, f"down{level}", stride=2)
        deep = self._layer(deep, f"deep{level}")
        if level + 1 < self.scales:
            deep = self._scale(deep, level + 1)
        joined = jnp.concatenate([skip, enlarged(deep)[:, : x.shape[1], : x.shape[2]]], -1)
        joined = self._layer(ImageNorm(name=f"joined{level}")(joined), f"merge{level}")
        return self._layer(joined, f"mix{level}", size=1)

    def _layer(self, x: jax.Array, name: str, size: int = 3, stride: int = 1, channels: int | None = None) -> jax.Array:
        channels = self.channels if channels is None else channels
        x = Convolution(channels, size, stride, normalised=True, name=name)(x)
        x = ImageNorm(name=f"{name}_norm")(x)
        return jnp.maximum(x, _LEAK * x)


def _uniform_over_inputs(key: jax.Array, shape: tuple[int, ...], inputs: int, dtype: Any = jnp.float32) -> jax.Array:
    """U(-1/sqrt(n), 1/sqrt(n)) with n inputs per output: how PyTorch starts kernels and biases."""
    bound = 1 / math.sqrt(inputs)
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class Convolution(nn.Module):
    """Convolution with bias of an image that is reflected at its border, with 3x3 pixels; with one it sees no border.

    Where the result is ``normalised`` next, which takes a bias away again, the bias is counted as in the published
    network and not added: adding it and summing its derivative, which is 0, are passes over the whole image.
    """

    channels: int
    size: int = 3
    stride: int = 1
    normalised: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = self.size**2 * x.shape[-1]
        start = partial(_uniform_over_inputs, inputs=inputs)
        kernel = self.param("kernel", start, (self.size, self.size, x.shape[-1], self.channels))
        bias = self.param("bias", start, (self.channels,))
        x, kernel, bias = promote_dtype(x, kernel, bias)
        if self.size > 1:
            x = reflected(x)
        x = convolve(x, kernel, stride=self.stride, padding=((0, 0), (0, 0)))
        return x if self.normalised else x + bias


def reflected(x: jax.Array) -> jax.Array:
    """``[N, H, W, C]`` and around it a border of one pixel, ``[N, H + 2, W + 2, C]``.

    The border repeats what is one pixel from the image's own, as ``jnp.pad(..., mode="reflect")``. That one passes over
    the image once for every axis, and in reverse mode for every side; of this one XLA:CPU makes one pass each way,
    since the image itself is joined to its borders only once.

    >>> reflected(jnp.arange(6.0).reshape(1, 2, 3, 1))[0, :, :, 0].tolist()
    [[4.0, 3.0, 4.0, 5.0, 4.0], [1.0, 0.0, 1.0, 2.0, 1.0], [4.0, 3.0, 4.0, 5.0, 4.0], [1.0, 0.0, 1.0, 2.0, 1.0]]
    """

    def widened(rows: jax.Array) -> jax.Array:
        return jnp.concatenate([rows[:, :, 1:2], rows, rows[:, :, -2:-1]], 2)

    return jnp.concatenate([widened(x[:, 1:2]), widened(x), widened(x[:, -2:-1])], 1)


class ImageNorm(nn.Module):
    """Every channel brought to mean 0 and variance 1 over the image, then scaled and shifted by learned numbers.

    Batch normalisation with a batch of one image, and never any running statistics.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return _normalised(*promote_dtype(x, scale, bias))


@jax.custom_vjp
def _normalised(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Mean 0 and variance 1 over all axes but the last, then scaled and shifted; reverse mode only.

    The derivative that JAX finds by itself passes over the image almost twice as often.
    """
    return _normalised_with_residuals(x, scale, bias)[0]


_Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _normalised_with_residuals(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, _Residuals]:
    mean = x.mean((0, 1, 2))
    inverse = lax.rsqrt(jnp.square(x - mean).mean((0, 1, 2)) + _VARIANCE_FLOOR)
    return (x - mean) * (inverse * scale) + bias, (x, mean, inverse, scale)


def _normalised_transposed(residuals: _Residuals, change: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = residuals
    pixels = math.prod(x.shape[:3])
    to_bias = change.sum((0, 1, 2))
    to_scale = inverse * ((x - mean) * change).sum((0, 1, 2))
    # What moves the mean or the variance is taken out, since both are brought back to 0 and 1.
    centered = change - to_bias / pixels - (x - mean) * (inverse * to_scale / pixels)
    return centered * (inverse * scale), to_scale, to_bias


_normalised.defvjp(_normalised_with_residuals, _normalised_transposed)


def as_noise(picture: jax.Array) -> jax.Array:
    """A picture ``[..., 3]`` in [0, 1], as it stands among the channels of the noise.

    >>> as_noise(jnp.array([0.5, 0.75, 0.25])).tolist()
    [0.0, 2.0, -2.0]
    """
    return (picture - 0.5) * _PICTURE_SCALE.astype(picture.dtype)


def enlarged(x: jax.Array) -> jax.Array:
    """``[N, H, W, C]`` at twice the size, bilinear, pixel centers at half-integers, the border repeated.

    >>> enlarged(jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1)).ravel().tolist()
    [0.0, 1.0, 3.0, 4.0, 0.0, 1.0, 3.0, 4.0]
    """
    for axis in (1, 2):
        size = x.shape[axis]
        cut = partial(lax.slice_in_dim, x, axis=axis)
        before = jnp.concatenate([cut(0, 1), cut(0, size - 1)], axis)
        after = jnp.concatenate([cut(1, size), cut(size - 1, size)], axis)
        halves = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = halves.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def random_parameters(key: jax.Array, network: SkipNetwork, inputs: int = NOISE_CHANNELS) -> dict[str, Any]:
    """Parameters of a network to start a fit from, distributed as PyTorch starts its layers.

    The same distribution as ``network.init``, but for a residual network's last layer, which starts at 0. From one
    stream of random numbers: many take long to compile. ``inputs`` is the number of channels of the noise.

    >>> random_parameters(jax.random.key(0), SkipNetwork(channels=8, scales=1))["params"]["down0"]["kernel"].shape
    (3, 3, 32, 8)
    """
    side = 2**network.scales + 1
    shapes = jax.eval_shape(network.init, key, jax.ShapeDtypeStruct((1, side, side, inputs), jnp.float32))
    flat = flatten_dict(shapes)
    convolutions = {path[:-1]: math.prod(leaf.shape[:-1]) for path, leaf in flat.items() if path[-1] == "kernel"}
    stream, used = jax.random.uniform(key, (sum(leaf.size for leaf in flat.values()),), minval=-1), 0
    parameters = {}
    for path, leaf in flat.items():
        if network.residual and "out" in path:
            parameters[path] = jnp.zeros(leaf.shape)  # It starts with the picture that it is given.
        elif path[:-1] in convolutions:
            parameters[path] = stream[used : used + leaf.size].reshape(leaf.shape) / convolutions[path[:-1]] ** 0.5
            used += leaf.size
        else:
            parameters[path] = jnp.full(leaf.shape, 1.0 if path[-1] == "scale" else 0.0)
    return unflatten_dict(parameters)
