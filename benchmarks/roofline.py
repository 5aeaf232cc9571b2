"""The least that the solver and the deep prior ask of a machine: bytes of memory traffic and operations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcolor.deep_prior import SkipNetwork
from jaxcolor.deep_prior.network import NOISE_CHANNELS, Convolution

FLOAT = 4


class Accelerator(NamedTuple):
    """Bytes and float32 operations a second, as the maker tells."""

    name: str
    bandwidth: float
    operations: float


H100 = Accelerator("H100", 3.35e12, 67e12)


def least_bytes(pixels: int, candidates: int) -> int:
    """Memory traffic of a primal-dual iteration with k candidates that keeps everything but the planes in registers.

    In planes of float32: 2k candidates read, k weights and five dual planes read and written, edge strengths read, the
    chroma of the last two steps read and the new one written.
    """
    return FLOAT * pixels * (2 * candidates + 2 * (candidates + 5) + 1 + 4 + 2)


class Cost(NamedTuple):
    """Of one step of the deep prior."""

    bytes: int
    operations: int

    def seconds(self, machine: Accelerator) -> float:
        """At best."""
        return max(self.bytes / machine.bandwidth, self.operations / machine.operations)


def prior_cost(network: SkipNetwork, side: int) -> Cost:
    """The least of one step, forward and backward, on a square picture.

    What every convolution makes is written and read, read once more on the way back, and its gradient written and
    read. A multiplication and an addition are two operations, and both gradients cost as many as the value.
    """
    noise = jax.ShapeDtypeStruct((1, side, side, NOISE_CHANNELS), jnp.float32)
    parameters = jax.eval_shape(network.init, jax.random.key(0), noise)

    def made(parameters: object, noise: jax.Array) -> object:
        kept = network.apply(parameters, noise, capture_intermediates=lambda layer, _: isinstance(layer, Convolution))
        return kept[1]["intermediates"]

    numbers = operations = 0
    for name, layer in jax.eval_shape(made, parameters, noise).items():
        (image,) = layer["__call__"]
        numbers += image.size
        operations += 2 * image.size // image.shape[-1] * parameters["params"][name]["kernel"].size
    return Cost(5 * FLOAT * numbers, 3 * operations)
