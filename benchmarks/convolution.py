"""Convolutions as the networks have them: value and each gradient, beside XLA's own rules and PyTorch."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcolor.convolution import Padding, convolve

from .timing import Table, compile_seconds, faster, measure_in_turns

NONE, ONE = ((0, 0), (0, 0)), ((1, 1), (1, 1))
PARTS = ("value", "input gradient", "weight gradient")
TORCH = "PyTorch"
Way = Callable[[], object]
_Convolution = Callable[[jax.Array, jax.Array], jax.Array]


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
    "deep prior, skip": Layer(1, 256, 128, 4, taps=1),
}


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """For every kind of layer one of values, one of gradients in the image, one of gradients in the kernel."""
    for name, layer in list(LAYERS.items())[:: 4 if quick else 1]:
        if quick:
            layer = layer._replace(size=8, channels=min(layer.channels, 16), outputs=16)
        x, kernel = arrays(layer)
        change = np.ones(jax.eval_shape(_ours(layer), x, kernel).shape, np.float32)
        ways = {"jaxcolor": _timed(_ours(layer), x, kernel, change)}
        if peers:
            ways["XLA's own"] = _timed(_xla(layer), x, kernel, change)
            ways |= _torch(layer, x, kernel, change)
        for number, part in enumerate(PARTS):
            functions = {who: made[number] for who, made in ways.items()}
            yield _table(
                f"convolution, {name}: {part}", layer, functions, 2 * change.size // layer.outputs * kernel.size, peers
            )


def _table(title: str, layer: Layer, functions: dict[str, Way], operations: int, peers: bool) -> Table:
    """Of one part, with PyTorch in the layout of memory that is the faster one there."""
    table = Table(f"{title} of {layer.images} × {layer.size}² × {layer.channels} → {layer.outputs}", {}, "jaxcolor")
    theirs = {name: function for name, function in functions.items() if name.startswith(TORCH)}
    functions = {name: function for name, function in functions.items() if name not in theirs}
    table.compile = {"jaxcolor": compile_seconds(functions["jaxcolor"])}
    if theirs:
        layout = faster(theirs)
        functions[TORCH], table.reference = theirs[layout], TORCH
        table.notes.append(f"{layout}, the faster of two layouts")
    elif peers:
        table.notes.append("PyTorch is not installed: its row is left out")
    table.rows = measure_in_turns(functions)
    table.values = {name: {"GFLOP/s": operations / timing.median / 1e9} for name, timing in table.rows.items()}
    return table


def arrays(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Images and a kernel."""
    random = np.random.default_rng(0)
    shapes = ((layer.images, layer.size, layer.size, layer.channels), (*2 * (layer.taps,), *layer[2:4]))
    x, kernel = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    return x, kernel


def _ours(layer: Layer) -> _Convolution:
    return lambda x, kernel: convolve(x, kernel, stride=layer.stride, padding=layer.padding)


def _xla(layer: Layer) -> _Convolution:
    numbers = ("NHWC", "HWIO", "NHWC")
    strides = (layer.stride, layer.stride)
    return lambda x, kernel: lax.conv_general_dilated(x, kernel, strides, layer.padding, dimension_numbers=numbers)


def _timed(function: _Convolution, x: np.ndarray, kernel: np.ndarray, change: np.ndarray) -> list[Way]:
    """The value, and the gradient of its product with ``change`` in the image and in the kernel."""
    parts = (
        function,
        lambda x, kernel, change: jax.vjp(lambda x: function(x, kernel), x)[1](change),
        lambda x, kernel, change: jax.vjp(lambda kernel: function(x, kernel), kernel)[1](change),
    )
    at = tuple(map(jnp.asarray, (x, kernel, change)))
    return [partial(_waited, jax.jit(part), at if number else at[:2]) for number, part in enumerate(parts)]


def _waited(function: Callable[..., Any], arguments: tuple[jax.Array, ...]) -> None:
    jax.block_until_ready(function(*arguments))


def _torch(layer: Layer, x: np.ndarray, kernel: np.ndarray, change: np.ndarray) -> dict[str, list[Way]]:
    """In both layouts of memory."""
    try:
        import torch
    except ImportError:
        return {}

    def laid_out(form: Any) -> list[Way]:
        image, along = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=form) for a in (x, change))
        weights = torch.from_numpy(kernel.transpose(3, 2, 0, 1)).contiguous(memory_format=form)

        def convolved() -> torch.Tensor:
            return torch.nn.functional.conv2d(image, weights, stride=layer.stride, padding=layer.padding[0][0])

        def value() -> None:
            with torch.inference_mode():
                convolved()

        image.requires_grad_()
        weights.requires_grad_()
        result = convolved()
        pull = partial(torch.autograd.grad, result, grad_outputs=along, retain_graph=True)
        return [value, partial(pull, image), partial(pull, weights)]

    forms = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
    return {f"{TORCH}, {name}": laid_out(form) for name, form in forms.items()}
