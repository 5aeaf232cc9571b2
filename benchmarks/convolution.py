"""Convolutions as the networks have them: value and both gradients, beside XLA's own rules and PyTorch."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcolor.convolution import Padding, convolve

from .timing import Table, measure_in_turns

NONE, ONE = ((0, 0), (0, 0)), ((1, 1), (1, 1))


class Layer(NamedTuple):
    """One convolution with a square kernel, of square images that hold the border already if ``padding`` is NONE."""

    images: int
    size: int
    channels: int
    outputs: int
    taps: int = 3
    stride: int = 1
    padding: Padding = NONE


LAYERS = {
    "deep prior": Layer(1, 258, 128, 128),
    "deep prior, narrow": Layer(1, 258, 20, 16),
    "deep prior, down": Layer(1, 258, 128, 128, stride=2),
    "deep prior, pointwise": Layer(1, 256, 128, 128, taps=1),
    "full width": Layer(1, 32, 512, 512, padding=ONE),
    "training": Layer(16, 32, 64, 64, padding=ONE),
    "training, deep": Layer(16, 16, 128, 128, padding=ONE),
    "training, first": Layer(16, 128, 1, 16, padding=ONE),
    "training, down": Layer(16, 64, 32, 32, stride=2, padding=ONE),
}


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """For every kind of layer one of values and one of gradients."""
    for name, layer in LAYERS.items():
        if quick:
            layer = layer._replace(size=8, channels=min(layer.channels, 16), outputs=16)
        x, kernel = arrays(layer)
        change = np.ones(jax.eval_shape(lambda *at, of=layer: _ours(of)(*at), x, kernel).shape, np.float32)
        ways = {"jaxcolor": _timed(_ours(layer), x, kernel, change)}
        if peers:
            ways["XLA's own"] = _timed(_xla(layer), x, kernel, change)
            ways |= _torch(layer, x, kernel, change)
        notes = ["PyTorch is not installed: its row is left out"] if peers and "PyTorch" not in ways else []
        for what, part in enumerate(("value", "both gradients")):
            title = (
                f"convolution, {name}: {part} of {layer.images} × {layer.size}² × {layer.channels} → {layer.outputs}"
            )
            rows = measure_in_turns({who: functions[what] for who, functions in ways.items()})
            yield Table(title, rows, "PyTorch" if "PyTorch" in rows else "jaxcolor", notes=notes)


def arrays(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Images and a kernel."""
    random = np.random.default_rng(0)
    shapes = ((layer.images, layer.size, layer.size, layer.channels), (*2 * (layer.taps,), *layer[2:4]))
    x, kernel = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    return x, kernel


_Both = tuple[Callable[[], object], Callable[[], object]]


def _ours(layer: Layer) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return lambda x, kernel: convolve(x, kernel, stride=layer.stride, padding=layer.padding)


def _xla(layer: Layer) -> Callable[[jax.Array, jax.Array], jax.Array]:
    numbers = ("NHWC", "HWIO", "NHWC")
    strides = (layer.stride, layer.stride)
    return lambda x, kernel: lax.conv_general_dilated(x, kernel, strides, layer.padding, dimension_numbers=numbers)


def _timed(
    function: Callable[[jax.Array, jax.Array], jax.Array], x: np.ndarray, kernel: np.ndarray, change: np.ndarray
) -> _Both:
    """The value, and the gradients of its product with ``change``."""
    value = jax.jit(function)
    gradients = jax.jit(lambda x, kernel, change: jax.vjp(function, x, kernel)[1](change))
    at = jnp.asarray(x), jnp.asarray(kernel)
    along = jnp.asarray(change)
    return lambda: value(*at).block_until_ready(), lambda: jax.block_until_ready(gradients(*at, along))


def _torch(layer: Layer, x: np.ndarray, kernel: np.ndarray, change: np.ndarray) -> dict[str, _Both]:
    """In the layout of memory that is the faster one there, channels last."""
    try:
        import torch
    except ImportError:
        return {}
    image = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    weights = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))).requires_grad_()
    along = torch.from_numpy(change).permute(0, 3, 1, 2)

    def convolved() -> torch.Tensor:
        return torch.nn.functional.conv2d(image, weights, stride=layer.stride, padding=layer.padding[0][0])

    result = convolved()

    def value() -> object:
        with torch.inference_mode():
            return convolved()

    return {"PyTorch": (value, lambda: torch.autograd.grad(result, (image, weights), along, retain_graph=True))}
