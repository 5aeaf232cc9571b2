"""A step of the deep prior and a fit of some, beside PyTorch, on a synthetic photo."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxcolor as jc
from jaxcolor.allocation import memory_kept
from jaxcolor.deep_prior import PRESETS, Objective, Preset, fit_deep_prior
from jaxcolor.deep_prior.objective import Data
from jaxcolor.deep_prior.steps import first_state, run_chunk

from .networks import MISSING
from .roofline import prior_cost
from .timing import Steps, Table, compile_seconds, faster, measure_steps, measure_within, seconds
from .truth import Degradation, distribution_of, two_regions

# Steps of the fit that is timed: the published network's take most of a second each.
FITS = {"paper": 10, "fast": 100}
# So long may the repetitions of a fit take.
SECONDS = 20.0


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """For the published preset and the fast one a step, then a fit."""
    size = 32 if quick else 256
    for name, steps in FITS.items():
        preset = PRESETS[name]
        if quick:
            preset = replace(preset, network=replace(preset.network, channels=4, scales=2))
        theirs = peer(preset, size) if peers else Peer(None)
        yield step(name, preset, size, theirs)
        yield fit(name, preset, size, 3 if quick else steps, theirs)


class Peer(NamedTuple):
    """PyTorch's steps, None if there are none, and what to say of them."""

    run: Callable[[int], None] | None
    notes: tuple[str, ...] = ()


def step(name: str, preset: Preset, size: int, theirs: Peer) -> Table:
    """One step of Adam: the network, the loss, both their gradients, and the update."""
    network = preset.network
    ways = {"jaxcolor": Steps(jax_steps(preset, size), 1, 4)}
    title = f"deep prior, step of {name}, {size}², {network.channels} channels, {network.scales} scales, float32"
    table = Table(title, {}, "PyTorch", size, notes=list(theirs.notes))
    table.compile = {"jaxcolor": compile_seconds(ways["jaxcolor"].run, 1)}
    if theirs.run is not None:
        ways["PyTorch"] = Steps(theirs.run, 1, 4)
    with memory_kept():  # as in a fit
        table.rows = measure_steps(ways)
    operations = prior_cost(network, size).operations
    table.values = {who: {"GFLOP/s": operations / timing.median / 1e9} for who, timing in table.rows.items()}
    return table


def fit(name: str, preset: Preset, size: int, steps: int, theirs: Peer) -> Table:
    """``fit_deep_prior`` from its arguments to its result, and as many steps in PyTorch."""
    luminance, distribution = scene(size)

    def ours() -> None:
        fit_deep_prior(luminance, distribution, preset=preset, steps=steps)

    title = f"deep prior, a fit of {steps} steps of {name}, {size}²"
    table = Table(title, {}, "PyTorch", size, unit="s", notes=list(theirs.notes))
    table.compile = {"jaxcolor": compile_seconds(ours)}
    table.rows["jaxcolor"] = measure_within(lambda: seconds(ours), SECONDS)
    if (run := theirs.run) is not None:
        table.rows["PyTorch"] = measure_within(lambda: seconds(run, steps), SECONDS)
    return table


def scene(size: int) -> tuple[np.ndarray, jc.ColorDistribution]:
    """Luminance of two regions, and what a network might say of their colors."""
    luminance, truth, _ = two_regions(size)
    return luminance, distribution_of(truth, Degradation(blur=1.2, shift=0.7), grid=size // 4)


def start(preset: Preset, size: int) -> tuple[Data, Any, jax.Array]:
    """What the loss needs of the scene, the state before the first step, and the network's input."""
    luminance, distribution = scene(size)
    cells = distribution.probabilities.shape
    data = Data.of(luminance, distribution.palette, (cells[0], cells[1]))
    guide = jnp.asarray(two_regions(size)[1]) if preset.guided else None
    state, inputs = first_state(data, distribution, jax.random.key(0), guide, preset.network, preset.start, 1)
    # No buffer may be donated twice.
    return data, jax.tree.map(jnp.copy, state), inputs


def jax_steps(preset: Preset, size: int) -> Callable[[int], None]:
    """Takes so many more steps and waits for them."""
    data, state, inputs = start(preset, size)

    def steps(count: int) -> None:
        nonlocal state
        rates = [preset.learning_rate] * count
        state, _ = run_chunk(preset.network, data, preset.objective, state, inputs, rates, lambda: False)
        jax.block_until_ready(state)

    return steps


def peer(preset: Preset, size: int) -> Peer:
    """PyTorch in the layout of memory that is the faster one."""
    if (ways := torch_steps(preset, size)) is None:
        return Peer(None, (MISSING,))
    layout = faster({name: partial(run, 1) for name, run in ways.items()})
    return Peer(ways[layout], (f"PyTorch: {layout}, the faster of two layouts",))


def torch_steps(preset: Preset, size: int) -> dict[str, Callable[[int], None]] | None:
    """The same of the twin network, by layout of memory; None without PyTorch or the twin."""
    try:
        import torch

        from tests.skip_twin import Twin
    except ImportError:
        return None
    data, state, inputs = start(preset, size)

    def steps_in(layout: Any) -> Callable[[int], None]:
        network = preset.network
        twin = Twin(network.channels, network.scales, residual=network.residual).to(memory_format=layout)
        noise = torch.from_numpy(np.array(inputs)).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        optimiser = torch.optim.Adam(twin.parameters(), lr=preset.learning_rate)
        loss = torch_loss(torch, data, np.asarray(state.target[0]), preset.objective)

        def steps(count: int) -> None:
            for _ in range(count):
                optimiser.zero_grad()
                loss(twin(noise)).backward()
                optimiser.step()

        return steps

    layouts = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
    return {name: steps_in(layout) for name, layout in layouts.items()}


def torch_loss(torch: Any, data: Data, target: np.ndarray, objective: Objective) -> Callable[[Any], Any]:
    """The loss of jaxcolor.deep_prior.objective of a picture ``[1, 3, H, W]``, without padding."""
    rows, columns, luminance, target = (
        torch.from_numpy(np.array(x)) for x in (data.rows, data.columns, data.luminance, np.moveaxis(target, -1, 0))
    )
    pad = torch.nn.functional.pad
    scale = float(objective.variation) * 256 / luminance.numel() ** 0.5

    def squares(plane: Any) -> Any:
        right, below = plane[:, 1:] - plane[:, :-1], plane[1:] - plane[:-1]
        return pad(right, (0, 1)) ** 2 + pad(below, (0, 0, 0, 1)) ** 2

    def loss(picture: Any) -> Any:
        light, a, b = picture[0]
        small = rows @ picture[0] @ columns.T
        color = ((small[1:] - target) ** 2).sum()
        if objective.coarse_luminance:
            color = color + ((small[0] - rows @ luminance @ columns.T) ** 2).sum()
        guide = luminance if objective.photo_in_variation else light
        density = (objective.smoothing**2 + objective.coupling * squares(guide) + squares(a) + squares(b)).sqrt()
        error = objective.fidelity * ((light - luminance) ** 2).mean()
        return color / (3 * target[0].numel()) + error + scale * density.sum()

    return loss
