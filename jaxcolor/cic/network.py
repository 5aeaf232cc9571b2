"""The network of "Colorful Image Colorization" as one Flax module for every width.

Source: Zhang, Isola, Efros 2016, and the layer table of the released PyTorch model. Facts that are easy to get
wrong: strided convolutions are padded by one pixel on *both* sides (not TensorFlow's ``SAME``), batch
normalisation comes after the ReLU that ends a block, blocks 5 and 6 are dilated by 2, and the transposed
convolution of block 8 has a 4x4 kernel.
"""

import math
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcolor.color.palette import ab_bins
from jaxcolor.constants import INPUT_MULTIPLE, PALETTE_SIZE
from jaxcolor.convolution import convolve, convolve_transposed

AB_UNIT = 110.0
GRID_STRIDE = 4


class Block(NamedTuple):
    """Convolutions 3x3 of one block, all with the same number of channels at full width."""

    channels: int
    convolutions: int
    last_stride: int = 1
    dilation: int = 1


BLOCKS = (
    Block(64, 2, last_stride=2),
    Block(128, 2, last_stride=2),
    Block(256, 3, last_stride=2),
    Block(512, 3),
    Block(512, 3, dilation=2),
    Block(512, 3, dilation=2),
    Block(512, 3),
)
STRIDED = {
    f"model{number}_{2 * block.convolutions - 2}"
    for number, block in enumerate(BLOCKS, start=1)
    if block.last_stride > 1
}
HEAD_CHANNELS = 256
BATCH_NORM_EPSILON = 1e-5
STEM, HEAD = "model1_0", "model8_6"
# Of the names of the normalisations that only the form to train has.
NORM_SUFFIX = "_norm"


def narrowed(channels: int, width: float) -> int:
    """Channels of a layer at this width.

    >>> narrowed(512, 0.25)
    128
    """
    return max(1, round(channels * width))


class CICNetwork(nn.Module):
    """Luminance to unnormalised log-probabilities of the 313 colors, at a quarter of the resolution.

    ``width`` multiplies the number of channels of every hidden layer; 1 is the released architecture with
    32,236,011 parameters (83.6 GFLOP for a 256 x 256 image), 1/4 has about 2.1 million.

    Called with ``luminance`` ``[N, H, W, 1]``, L* in [0, 100], H and W multiples of 8; returns logits
    ``[N, H/4, W/4, 313]``. With ``train=True`` batch normalisation uses the statistics of the batch, and the running
    ones move toward them by ``1 - momentum``.

    ``normalised`` is the form to train: every 3x3 convolution is also batch-normalised, and its input added where the
    shapes agree, before the ReLU. A deep network learns several times faster in it, and :func:`merged` turns its
    variables into those of the plain network, which computes the same (Ding et al. 2021, "RepVGG").

    ``half`` computes the convolutions in bfloat16, which accelerators do several times as fast: input, kernel and bias
    are rounded to 8 bits. The first convolution, whose input is the photo, and the last, whose output are the logits,
    stay as they are, and so do normalisations, added inputs and all variables.

    >>> network = CICNetwork(width=1 / 16)
    >>> shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    >>> jax.eval_shape(network.apply, shapes, jnp.zeros((1, 32, 64, 1))).shape
    (1, 8, 16, 313)
    """

    width: float = 1.0
    momentum: float = 0.99
    normalised: bool = False
    half: bool = False

    @nn.compact
    def __call__(self, luminance: jax.Array, train: bool = False) -> jax.Array:
        normalise = partial(
            nn.BatchNorm, use_running_average=not train, momentum=self.momentum, epsilon=BATCH_NORM_EPSILON
        )

        half = jnp.bfloat16 if self.half else None

        def layer(x: jax.Array, channels: int, stride: int, dilation: int, name: str) -> jax.Array:
            channels, dtype = narrowed(channels, self.width), None if name == STEM else half
            y = Convolution(channels, stride=stride, dilation=dilation, dtype=dtype, name=name)(x)
            if self.normalised:
                y = normalise(name=name + NORM_SUFFIX)(y)
                y = y + x if stride == 1 and y.shape == x.shape else y
            return relu(y)

        x = (luminance - 50) / 100
        for number, block in enumerate(BLOCKS, start=1):
            for i in range(block.convolutions):
                stride = block.last_stride if i == block.convolutions - 1 else 1
                # The names are the keys of the released checkpoint with the dot replaced.
                name = f"model{number}_{2 * i}"
                x = layer(x, block.channels, stride, block.dilation, name)
            x = normalise(name=f"model{number}_{2 * i + 2}")(x)
        x = TransposedConvolution(narrowed(HEAD_CHANNELS, self.width), dtype=half, name="model8_0")(x)
        x = relu(x)
        for name in ("model8_2", "model8_4"):
            x = layer(x, HEAD_CHANNELS, 1, 1, name)
        # The released model ends on a 313 -> 2 convolution that holds the colors of the bins in units of 110. It is
        # the palette of the distribution, so it is kept among the parameters, but the logits do not depend on it.
        self.param("model_out", lambda _: jnp.asarray(ab_bins() / AB_UNIT))
        return Convolution(PALETTE_SIZE, size=1, name=HEAD)(x)


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """``max(x, 0)``, with derivative 0 at 0, as ``jax.nn.relu``.

    XLA:CPU computes a maximum with a constant anew wherever its result is used, and with it what came before: in a
    network that adds its inputs again, from the first of these additions on. What is chosen from two arrays it keeps.
    The derivative looks at the result, which is there, and not at ``x``, which is not.

    >>> relu(jnp.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]
    """
    return jnp.where(x <= 0, 0, x)


@relu.defjvp
def _relu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    y = relu(*primals)
    return y, jnp.where(y > 0, tangents[0], 0)


class Convolution(nn.Module):
    """Convolution with bias, padded by ``dilation`` on both sides of a 3x3 kernel (a 1x1 kernel by nothing)."""

    channels: int
    size: int = 3
    stride: int = 1
    dilation: int = 1
    # None: that of its operands.
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.channels)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        pad = self.dilation * (self.size // 2)
        padding = ((pad, pad), (pad, pad))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return convolve(x, kernel, stride=self.stride, dilation=self.dilation, padding=padding) + bias


class TransposedConvolution(nn.Module):
    """Transposed 4x4 convolution with bias, stride 2 and padding 1: output of exactly twice the size."""

    channels: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.he_normal(), (4, 4, x.shape[-1], self.channels))
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return convolve_transposed(x, kernel) + bias


@cache
def variable_shapes(width: float = 1.0) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a :class:`CICNetwork`, by path; by arithmetic, because tracing ``init`` takes 0.3 s.

    >>> variable_shapes(0.25)["params/model1_0/kernel"]
    (3, 3, 1, 16)
    """
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 1

    def convolution(name: str, size: int, outputs: int) -> None:
        nonlocal channels
        shapes[f"params/{name}/kernel"] = (size, size, channels, outputs)
        shapes[f"params/{name}/bias"] = (outputs,)
        channels = outputs

    for number, block in enumerate(BLOCKS, start=1):
        for i in range(block.convolutions):
            convolution(f"model{number}_{2 * i}", 3, narrowed(block.channels, width))
        norm = f"model{number}_{2 * block.convolutions}"
        shapes |= {f"params/{norm}/{part}": (channels,) for part in ("scale", "bias")}
        shapes |= {f"batch_stats/{norm}/{part}": (channels,) for part in ("mean", "var")}
    for name, size in (("model8_0", 4), ("model8_2", 3), ("model8_4", 3)):
        convolution(name, size, narrowed(HEAD_CHANNELS, width))
    convolution(HEAD, 1, PALETTE_SIZE)
    return shapes | {"params/model_out": (PALETTE_SIZE, 2)}


@jax.jit
def merged(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of the plain network that computes what the ``normalised`` one does with ``variables``.

    With running statistics, batch normalisation and an added input are linear, so both go into the kernel and bias of
    their convolution: ``s (k * x + b - mean) + shift + x`` with ``s = scale / sqrt(var + ε)``. Variables of the plain
    network come back as they are.

    >>> start = random_variables(jax.random.key(0), 1 / 16, normalised=True)
    >>> jax.tree.structure(merged(start)) == jax.tree.structure(random_variables(jax.random.key(0), 1 / 16))
    True
    """
    params, stats = dict(variables["params"]), dict(variables["batch_stats"])
    for norm in [name for name in params if name.endswith(NORM_SUFFIX)]:
        name = norm.removesuffix(NORM_SUFFIX)
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        norm_params, norm_stats = params.pop(norm), stats.pop(norm)
        scale = norm_params["scale"] / jnp.sqrt(norm_stats["var"] + BATCH_NORM_EPSILON)
        kernel, bias = kernel * scale, (bias - norm_stats["mean"]) * scale + norm_params["bias"]
        if _adds_input(name, kernel):
            kernel = kernel.at[1, 1].add(jnp.eye(kernel.shape[3]))
        params[name] = {"kernel": kernel, "bias": bias}
    return {"params": params, "batch_stats": stats}


@partial(jax.jit, static_argnames="width")
def unmerged(variables: Mapping[str, Any], width: float, luminance: jax.Array) -> dict[str, Any]:
    """Variables of the ``normalised`` network that computes what the plain one does with ``variables``.

    The inverse of :func:`merged`, to go on training: each new normalisation undoes itself, with statistics of its
    convolution on ``luminance`` ``[N, H, W, 1]``, a batch of photos. Before a normalisation the length of a kernel does
    not count for what is computed, but it does for how far a step of a given length turns it: kernels get the length
    that random ones have.

    >>> plain = random_variables(jax.random.key(0), 1 / 16)
    >>> photos = jax.random.uniform(jax.random.key(1), (2, 32, 32, 1), maxval=100.0)
    >>> again = merged(unmerged(plain, 1 / 16, photos))
    >>> equal = jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, atol=1e-5)), plain, again)
    >>> all(jax.tree.leaves(equal))
    True
    """
    params, stats = dict(variables["params"]), dict(variables["batch_stats"])
    for name, (x, y) in _convolutions(variables, width, luminance).items():
        kernel = jnp.asarray(params[name]["kernel"])
        if _adds_input(name, kernel):
            kernel, y = kernel.at[1, 1].add(-jnp.eye(kernel.shape[3])), y - x
        longer = jnp.sqrt(2 * kernel.shape[3]) / jnp.maximum(jnp.linalg.norm(kernel), 1e-6)
        mean, variance = y.mean((0, 1, 2)), jnp.square(longer) * y.var((0, 1, 2))
        params[name] = params[name] | {"kernel": longer * kernel, "bias": longer * params[name]["bias"]}
        deviation = jnp.sqrt(variance + BATCH_NORM_EPSILON)
        params[name + NORM_SUFFIX] = {"scale": deviation / longer, "bias": mean}
        stats[name + NORM_SUFFIX] = {"mean": longer * mean, "var": variance}
    return {"params": params, "batch_stats": stats}


@partial(jax.jit, static_argnames="width")
def widened(variables: Mapping[str, Any], width: float, key: jax.Array) -> dict[str, Any]:
    """Variables of a wider plain network that computes what the plain one does with ``variables``.

    To go on training with more channels. The new ones start with random kernels, and with the input added where the
    form to train adds it; those that were there do not see them, the weights from new to old are 0. Derived, after
    Chen, Goodfellow, Shlens 2016, "Net2Net", whose new channels are copies: here they differ from the beginning.

    Raises ``ValueError`` for a width at which a layer would have fewer channels.

    >>> plain = random_variables(jax.random.key(0), 1 / 16)
    >>> wide = widened(plain, 1 / 8, jax.random.key(1))
    >>> luminance = jnp.linspace(0, 100, 32 * 32).reshape(1, 32, 32, 1)
    >>> before, after = CICNetwork(1 / 16).apply(plain, luminance), CICNetwork(1 / 8).apply(wide, luminance)
    >>> bool(jnp.allclose(before, after, atol=1e-4))
    True
    """
    start = flatten_dict(random_variables(key, width))
    old = flatten_dict({name: dict(variables[name]) for name in ("params", "batch_stats")})
    for path, array in old.items():
        new, array = start[path], jnp.asarray(array, jnp.float32)
        if any(n < o for n, o in zip(new.shape, array.shape, strict=True)):
            raise ValueError(f"a width of {width:g} has fewer channels than the network to widen")
        if path[-1] == "kernel":
            inputs, outputs = array.shape[2:]
            if _adds_input(path[-2], new):
                new = new.at[1, 1].add(jnp.eye(new.shape[3]))
            new = new.at[:, :, inputs:, :outputs].set(0)
        start[path] = new.at[tuple(map(slice, array.shape))].set(array)
    return unflatten_dict(start)


def _adds_input(name: str, kernel: jax.Array) -> bool:
    """Whether the normalised network adds the input of this convolution to its output."""
    inputs, outputs = kernel.shape[2:]
    return name not in STRIDED and inputs == outputs


def _convolutions(
    variables: Mapping[str, Any], width: float, luminance: jax.Array
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Input and output of every 3x3 convolution of the plain network, by name."""
    seen = {}

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        if isinstance(context.module, Convolution) and context.module.size == 3:
            seen[str(context.module.name)] = args[0], result
        return result

    with nn.intercept_methods(watch):
        CICNetwork(width).apply(variables, luminance)
    return seen


@partial(jax.jit, static_argnames=("width", "normalised"))
def random_variables(key: jax.Array, width: float = 1.0, normalised: bool = False) -> dict[str, Any]:
    """Variables of a :class:`CICNetwork` to start training from; the kernels are He-normal.

    The same distribution as ``CICNetwork(width).init`` but for its cut at two standard deviations, and all kernels come
    from one stream of random numbers: the 25 streams of ``init`` take ten seconds or more to compile on CPU.

    >>> random_variables(jax.random.key(0), 1 / 16)["params"]["model1_0"]["kernel"].shape
    (3, 3, 1, 4)
    """
    luminance = jnp.zeros((1, INPUT_MULTIPLE, INPUT_MULTIPLE, 1))
    # Everything but the kernels starts at a constant. What this computes of the kernels is unused, so never compiled.
    variables = flatten_dict(CICNetwork(width, normalised=normalised).init(key, luminance))
    kernels = {path: array.shape for path, array in variables.items() if path[-1] == "kernel"}
    stream, used = jax.random.normal(key, (sum(map(math.prod, kernels.values())),)), 0
    for path, shape in kernels.items():
        size, inputs = math.prod(shape), math.prod(shape[:-1])
        variables[path] = stream[used : used + size].reshape(shape) * (2 / inputs) ** 0.5
        used += size
    return unflatten_dict(variables)
