"""The compiled programs of a fit: its first state, chunks of Adam steps, pictures, assignment and losses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray

from jaxcolor.allocation import in_blocks
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.deep_prior.network import NOISE_CHANNELS, SkipNetwork, as_noise, random_parameters
from jaxcolor.deep_prior.objective import Data, Objective, to_unit
from jaxcolor.deep_prior.presets import Start

_CHUNK, _CHUNK_ON_CPU = 25, 5
_ADAM = optax.scale_by_adam()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FitState:
    """What a fit works on and continues from; every array has a leading axis of seeds.

    ``parameters`` ``[S, P]``: the network's, in one vector; ``moments``: Adam's; ``target`` ``[S, h, w, 2]`` in [0, 1];
    ``best`` ``[S, P]`` and ``best_loss`` ``[S]``: the parameters of the smallest loss so far.
    """

    parameters: Array
    moments: Any
    target: Array
    best: Array
    best_loss: Array


def best_state(state: FitState) -> FitState:
    """The state of the smallest loss so far, to go on from with fresh moments: the others led astray."""
    return replace(state, parameters=state.best, moments=jax.vmap(_ADAM.init)(state.best))


def run_chunk(
    network: SkipNetwork,
    data: Data,
    objective: Objective,
    state: FitState,
    inputs: Array,
    rates: list[float],
    enough: Callable[[], bool],
) -> tuple[FitState, NDArray[np.float32]]:
    """One step of every seed for each of the ``rates``, and the parts of the loss before each, ``[S, steps, 3]``.

    Ends early, but not before the first step, when ``enough`` says so. The given state is used up. The loop is the
    host's: in a compiled one XLA:CPU (jax 0.10) ran the step at a third of its speed, and elsewhere the host is ahead
    of the device.
    """
    apart = seeds_apart()
    step, runs = (_step_of_one, _apart((state, inputs))) if apart else (_step_of_all, [(state, inputs)])
    states, noises = [state for state, _ in runs], [noise for _, noise in runs]
    parts = []
    for rate in rates:
        taken = [
            step(network, data, objective, state, noise, np.float32(rate))
            for state, noise in zip(states, noises, strict=True)
        ]
        states = [state for state, _ in taken]
        parts.append([part for _, part in taken])
        if apart:  # A step takes long there: whoever wants no more of them is heard after each.
            jax.block_until_ready(parts[-1])
        if enough():
            break
    losses = [np.concatenate([np.atleast_2d(part) for part in of_step]) for of_step in parts]
    return _together(states) if apart else states[0], np.stack(losses, 1)


def draw(network: SkipNetwork, parameters: Array, inputs: Array) -> Array:
    """The pictures ``[S, H, W, 3]`` of every seed, in the network's units."""
    if seeds_apart():
        return jnp.stack([_picture_of_one(network, *one) for one in _apart((parameters, inputs))])
    return _picture_of_all(network, parameters, inputs)


def chunk_length() -> int:
    """Steps between two looks at the losses, for which an accelerator must be waited for."""
    return _CHUNK_ON_CPU if seeds_apart() else _CHUNK


def seeds_apart() -> bool:
    """Whether seeds are done one by one: on CPU, where a grouped convolution is slow."""
    return jax.default_backend() == "cpu"


def _apart(arrays: Any) -> list[Any]:
    """One tree of arrays for every seed."""
    count = len(jax.tree.leaves(arrays)[0])
    return [jax.tree.map(lambda a, i=i: a[i], arrays) for i in range(count)]


def _together(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _step(
    network: SkipNetwork, data: Data, objective: Objective, state: FitState, noise: Array, rate: Array
) -> tuple[FitState, Array]:
    """One step of Adam of one seed, and the parts of the loss before it."""

    def loss(parameters: Array) -> tuple[Array, Array]:
        parts = data.losses(_picture(network, parameters, noise), state.target, objective)
        return sum(parts, jnp.zeros((), parameters.dtype)), jnp.stack(parts)

    (value, parts), gradient = jax.value_and_grad(loss, has_aux=True)(state.parameters)
    better = value < state.best_loss
    direction, moments = _ADAM.update(gradient, state.moments)
    after = FitState(
        state.parameters - rate * direction,
        moments,
        state.target,
        jnp.where(better, state.parameters, state.best),
        jnp.where(better, value, state.best_loss),
    )
    return after, parts


def _picture(network: SkipNetwork, parameters: Array, noise: Array) -> Array:
    tree = unravel(network, noise.shape[-1])(parameters)
    return jnp.asarray(network.apply(tree, noise[None]))[0]


def _of_all(function: Callable[..., Any], batched: tuple[int, ...]) -> Callable[..., Any]:
    """``function``, whose first argument is a network, of every seed side by side."""

    def of_all(network: SkipNetwork, *arguments: Any) -> Any:
        axes = [0 if i in batched else None for i in range(1, len(arguments) + 1)]
        return jax.vmap(partial(function, network), axes)(*arguments)

    return of_all


def _step_of_one(network: SkipNetwork, data: Data, *arguments: Any) -> tuple[FitState, Array]:
    blocks = in_blocks(largest_array(network, data)) is not None
    return _compiled_step(blocks)(network, data, *arguments)


def largest_array(network: SkipNetwork, data: Data) -> int:
    """Bytes that no array of a step exceeds: three pixels side by side in each line, of which a weight gradient is a
    product."""
    return 3 * max(NOISE_CHANNELS, network.channels + network.skip_channels) * data.luminance.nbytes


@lru_cache
def _compiled_step(blocks: bool) -> Callable[..., tuple[FitState, Array]]:
    return jax.jit(_step, static_argnums=0, donate_argnums=3, compiler_options=in_blocks(0) if blocks else None)


_step_of_all = jax.jit(_of_all(_step, (3, 4)), static_argnums=0, donate_argnums=3)
_picture_of_one = jax.jit(_picture, static_argnums=0)
_picture_of_all = jax.jit(_of_all(_picture, (1, 2)), static_argnums=0)


@lru_cache(maxsize=8)
def unravel(network: SkipNetwork, channels: int) -> Callable[[Array], Any]:
    """From the vector of parameters to the tree that the network takes.

    As one vector, so that a step of Adam is one small program instead of one for each of a hundred arrays; the arrays
    have its dtype.
    """
    side = 2**network.scales + 1
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side, channels)))
    with jax.ensure_compile_time_eval():
        return ravel_pytree(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes))[1]


@jax.jit
def nearest_colors(data: Data, pictures: Array) -> Array:
    """The palette colors that the pictures' own are nearest to, ``[S, h, w, 2]``."""
    return jax.vmap(data.nearest)(pictures)


@jax.jit
def total_losses(data: Data, objective: Objective, pictures: Array, targets: Array) -> Array:
    """The whole loss of every seed."""
    return jax.vmap(lambda f, target: jnp.stack(data.losses(f, target, objective)).sum())(pictures, targets)


def random_noise(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """What the network draws from."""
    return jax.random.normal(key, (*shape, NOISE_CHANNELS), dtype)


@partial(jax.jit, static_argnames=("network", "start", "seeds"))
def first_state(
    data: Data,
    distribution: ColorDistribution,
    key: Array,
    guide: Array | None,
    network: SkipNetwork,
    start: Start,
    seeds: int,
) -> tuple[FitState, Array]:
    """The state before the first step, and the network's input: noise, guided if there is a guide."""
    dtype, shape = data.luminance.dtype, data.luminance.shape
    of_noise, of_parameters = (jax.random.split(half, seeds) for half in jax.random.split(key))
    inputs = jax.vmap(lambda key: random_noise(key, shape, dtype))(of_noise)
    if guide is not None:
        planes = jnp.concatenate([data.luminance[..., None], to_unit(guide).astype(dtype)], -1)
        inputs = inputs.at[..., :3].set(as_noise(planes))
    parameters = jax.vmap(lambda key: ravel_pytree(random_parameters(key, network))[0])(of_parameters)
    parameters = parameters.astype(dtype)
    if start == "guide" and guide is not None:
        colors = data.coarse(guide)
    else:
        colors = distribution.palette[distribution.modes()] if start == "mode" else distribution.mean()
    target = jnp.broadcast_to(to_unit(colors).astype(dtype), (seeds, *colors.shape))
    moments = jax.vmap(_ADAM.init)(parameters)
    return FitState(parameters, moments, target, parameters, jnp.full(seeds, jnp.inf, dtype)), inputs
