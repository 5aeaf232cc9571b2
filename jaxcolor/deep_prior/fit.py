"""Fitting the network to one photo: chunks of Adam steps, alternating with the assignment of colors."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jaxcolor.allocation import memory_kept
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.coupled_tv.checks import check_count, check_finite, check_luminance
from jaxcolor.coupled_tv.solution import Status
from jaxcolor.deep_prior.objective import Data, from_unit
from jaxcolor.deep_prior.presets import PAPER, PRESETS, Preset
from jaxcolor.deep_prior.steps import (
    FitState,
    best_state,
    chunk_length,
    draw,
    first_state,
    nearest_colors,
    random_noise,
    run_chunk,
    seeds_apart,
    total_losses,
)
from jaxcolor.deep_prior.stopping import PlateauRule
from jaxcolor.errors import InputError
from jaxcolor.interrupt import deferred_interrupt
from jaxcolor.memory import require_memory_to_fit
from jaxcolor.resampling import resize

Progress = Callable[[int, float, float, float], object]


@dataclass(frozen=True, eq=False)
class DeepPriorFit:
    """The result of a fit.

    ``picture`` float32 ``[H, W, 3]``: the network's picture as (L*, a*, b*); ``chroma`` is its color. ``target``
    ``[h, w, 2]``: the color assigned to each cell, in Lab units. ``status``: how the fit ended. ``steps``: taken.
    ``histories`` ``[S, steps, 3]``: the three weighted parts of the loss (color, luminance, variation) before each
    step, for every seed. ``losses`` ``[S]``: the loss of every seed at the end. ``seed``: the one that was chosen, by
    the smallest loss. ``state`` and ``inputs``: what the fit continues from.
    """

    picture: NDArray[np.float32]
    target: NDArray[np.float32]
    status: Status
    steps: int
    histories: NDArray[np.float32]
    losses: NDArray[np.float32]
    seed: int
    state: FitState
    inputs: Array
    preset: Preset

    @property
    def chroma(self) -> NDArray[np.float32]:
        """(a*, b*), ``[H, W, 2]``."""
        return self.picture[..., 1:]

    @property
    def history(self) -> NDArray[np.float32]:
        """The parts of the loss of the chosen seed, ``[steps, 3]``."""
        return self.histories[self.seed]

    def message(self) -> str:
        """The status in words, and what to do about it."""
        if self.status == Status.NON_FINITE:
            return "the loss became infinite or NaN; the best state before is returned; lower the learning rate"
        return self.status.message

    def sample(self, key: Array) -> NDArray[np.float32]:
        """The fitted network's picture ``[H, W, 3]`` (L*, a*, b*) of other noise.

        What is common to such pictures is what the prior has captured of the photo (Agazzotti, Pierre, Sur 2023,
        figure 2). A guided preset keeps its guide, which shows through.
        """
        other = random_noise(key, self.inputs.shape[1:3], self.inputs.dtype)
        if self.preset.guided:
            other = other.at[..., :3].set(self.inputs[self.seed, ..., :3])
        parameters = self.state.parameters[self.seed]
        picture = draw(self.preset.network, parameters[None], other[None])[0]
        return _to_lab(picture[: self.picture.shape[0], : self.picture.shape[1]])


def fit_deep_prior(
    luminance: ArrayLike,
    distribution: ColorDistribution,
    *,
    key: Array | None = None,
    preset: str | Preset = PAPER,
    steps: int | None = None,
    seeds: int = 1,
    guide: ArrayLike | None = None,
    extent: tuple[int, int] | None = None,
    init: DeepPriorFit | None = None,
    stop: PlateauRule | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> DeepPriorFit:
    """Fit the deep image prior to one photo, regularised by coupled total variation.

    Alternates steps of Adam on the network with the assignment of one palette color to every cell (Agazzotti, Pierre,
    Sur 2023, figure 5).

    Args:
        luminance: L* ``[H, W]`` in [0, 100]. A photo smaller than the network's depth allows is padded and the result
            cropped.
        distribution: on any grid, usually 64 x 64.
        key: of the noise and the first parameters; None: ``jax.random.key(0)``. The same key gives the same picture on
            the same machine; on GPU if XLA's flag ``--xla_gpu_deterministic_ops`` is set.
        preset: "paper", "author", "fast", or a :class:`Preset`. The published one takes many minutes without a GPU.
            "fast" is what ``jaxcolor.colorize`` takes on CPU only if it gets the same ``guide``: the coupled-TV
            solution. Without one it keeps the halos of the enlarged mean.
        steps: of Adam; None: the preset's.
        seeds: fits from so many independent starts, side by side; a start sometimes leaves a stray spot. The result is
            the one of the smallest loss.
        guide: chroma ``[H, W, 2]`` for a guided preset, which others do not look at; None: the distribution's mean,
            enlarged.
        extent: (rows, columns) that the photo occupies in the top left corner of ``luminance``; the rest is padding.
            Photos padded to one shape share one compiled program. The loss does not see the padding, but the network
            does: its normalisations are over the whole plane, so the fit is not the one of the photo alone.
        init: continue from this fit, of the same photo, preset and number of seeds; ``steps`` more are taken, the
            preset's number if None. The learning rate of a preset with ``decay`` falls over the last of these, and fell
            over the last of those before: 50 and 50 steps are then not 100.
        stop: end early when the loss is constant; None: never.
        progress: called as ``progress(steps so far, color, luminance, variation)`` after every chunk of at most 5 steps
            on CPU, elsewhere 25, with the parts of the loss of the best seed.
        time_limit: seconds; a step is begun only before it, but for the first. None: no limit.

    Returns:
        A :class:`DeepPriorFit`, also after Ctrl-C, a time limit or a loss that is not finite: ``fit.message()`` tells.
        On Ctrl-C the running step is finished first; a second Ctrl-C raises ``KeyboardInterrupt`` at once.

    Raises:
        InputError: an unknown preset, numbers out of range, arrays of other shapes or with NaN in them, and a photo for
            which there is too little memory.

    Cost: a step of the published network takes 114 GFLOP for 256 x 256 pixels, and memory in proportion to pixels and
    channels. Compiled once for each shape and network.

    >>> dist = ColorDistribution(jnp.full((2, 2, 1), 1.0), jnp.array([[40.0, -20.0]]))
    >>> from jaxcolor.deep_prior import SkipNetwork
    >>> tiny = Preset(network=SkipNetwork(channels=4, scales=1), steps=2)
    >>> fit = fit_deep_prior(jnp.full((8, 8), 50.0), dist, preset=tiny)
    >>> fit.chroma.shape, fit.history.shape, fit.message()
    ((8, 8, 2), (2, 3), 'all steps were taken')
    """
    chosen, steps = _checked(preset, steps, seeds)
    key = _checked_key(key)
    if not isinstance(distribution, ColorDistribution):
        raise InputError(f"distribution must be a ColorDistribution; got {type(distribution).__name__}")
    check_finite("the distribution", distribution.probabilities)
    luminance = check_luminance(luminance)
    height, width = luminance.shape
    require_memory_to_fit((height, width), chosen.network.channels * (1 if seeds_apart() else seeds))
    guide = _guide(guide, distribution, (height, width), extent)
    guide = guide if chosen.guided else None
    plane, guide, extent = _large_enough(luminance, guide, extent, 2**chosen.network.scales + 1)
    cells = distribution.probabilities.shape
    data = Data.of(plane, distribution.palette, (cells[0], cells[1]), extent)
    if init is None:
        state, inputs = first_state(data, distribution, key, guide, chosen.network, chosen.start, seeds)
        histories = []
    else:
        _check_continuation(init, chosen, seeds, data, distribution)
        state, inputs, histories = init.state, init.inputs, [init.histories]
    # A copy, because chunks are donated: the caller keeps his fit, and no buffer may be given twice.
    state = jax.tree.map(jnp.copy, state)
    loop = _Loop(data, chosen, inputs, stop, progress, time_limit)
    state, status = loop.run(state, steps, histories)
    return _result(data, chosen, state, inputs, status, histories, (height, width))


class _Loop:
    """The host's loop over compiled chunks."""

    def __init__(
        self,
        data: Data,
        preset: Preset,
        inputs: Array,
        stop: PlateauRule | None,
        progress: Progress | None,
        time_limit: float | None,
    ) -> None:
        self.data, self.preset, self.inputs = data, preset, inputs
        self.stop, self.progress = stop, progress
        self.end = None if time_limit is None else time.monotonic() + time_limit

    def run(self, state: FitState, steps: int, histories: list[NDArray[np.float32]]) -> tuple[FitState, Status]:
        """Take the steps; what happened in each is appended to ``histories``."""
        first = done = sum(part.shape[1] for part in histories)
        last = first + steps
        with deferred_interrupt() as interrupted, memory_kept():

            def enough() -> bool:
                return interrupted() or (self.end is not None and time.monotonic() >= self.end)

            while done < last and not enough():
                if done and self.preset.assigns_after(done):
                    state = self._assigned(state)
                rates = [self.preset.rate(step, last) for step in range(done, self._end_of_chunk(done, last))]
                state, parts = run_chunk(
                    self.preset.network, self.data, self.preset.objective, state, self.inputs, rates, enough
                )
                histories.append(parts)
                done += parts.shape[1]
                if not np.isfinite(parts[:, -1].sum(-1)).any():
                    return best_state(state), Status.NON_FINITE
                try:
                    self._tell(done, parts[:, -1])
                except KeyboardInterrupt:
                    return state, Status.INTERRUPTED
                if self.stop is not None and self.stop.met(np.concatenate(histories, 1).sum(-1)) and not interrupted():
                    return state, Status.CONVERGED
            # Also in the last chunk: whoever wants to stop wants nothing after it.
            if interrupted():
                return state, Status.INTERRUPTED
            return state, Status.TIME_LIMIT if done < last else Status.OUT_OF_STEPS

    def _end_of_chunk(self, done: int, last: int) -> int:
        length = chunk_length()
        ends = (done + n for n in range(1, length) if self.preset.assigns_after(done + n))
        return min(next(ends, done + length), last)

    def _assigned(self, state: FitState) -> FitState:
        pictures = draw(self.preset.network, state.parameters, self.inputs)
        # Against new targets the old losses mean nothing.
        nothing = jnp.full_like(state.best_loss, jnp.inf)
        return replace(state, target=nearest_colors(self.data, pictures), best_loss=nothing)

    def _tell(self, done: int, parts: NDArray[np.float32]) -> None:
        if self.progress is not None:
            best = np.nanargmin(parts.sum(-1))
            self.progress(done, *map(float, parts[best]))


def _result(
    data: Data,
    preset: Preset,
    state: FitState,
    inputs: Array,
    status: Status,
    histories: list[NDArray[np.float32]],
    size: tuple[int, int],
) -> DeepPriorFit:
    pictures, losses = _ends(data, preset, state, inputs)
    if not np.isfinite(losses).any() and status != Status.NON_FINITE:
        # The last step went wrong, of which no loss before a step could tell.
        state, status = best_state(state), Status.NON_FINITE
        pictures, losses = _ends(data, preset, state, inputs)
    seed = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    parts = np.concatenate(histories, 1) if histories else np.zeros((len(losses), 0, 3), np.float32)
    picture = _to_lab(pictures[seed, : size[0], : size[1]])
    target = np.asarray(from_unit(state.target[seed]))
    return DeepPriorFit(picture, target, status, parts.shape[1], parts, losses, seed, state, inputs, preset)


def _ends(data: Data, preset: Preset, state: FitState, inputs: Array) -> tuple[Array, NDArray[np.float32]]:
    """Pictures and losses of every seed."""
    pictures = draw(preset.network, state.parameters, inputs)
    return pictures, np.asarray(total_losses(data, preset.objective, pictures, state.target))


def _to_lab(picture: Array) -> NDArray[np.float32]:
    return np.asarray(jnp.concatenate([100 * picture[..., :1], from_unit(picture[..., 1:])], -1))


def _checked(preset: str | Preset, steps: int | None, seeds: int) -> tuple[Preset, int]:
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise InputError(f"preset must be one of {', '.join(PRESETS)}, or a Preset; got {preset!r}")
        preset = PRESETS[preset]
    if not isinstance(preset, Preset):
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, or a Preset; got {preset!r}")
    steps = preset.steps if steps is None else steps
    check_count("steps", steps, 0)
    check_count("seeds", seeds, 1)
    return preset, steps


def _checked_key(key: Array | None) -> Array:
    if key is not None and not isinstance(key, Array):
        raise InputError(f"key must be a key of JAX, such as jax.random.key(0); got {key!r}")
    return jax.random.key(0) if key is None else key


def _guide(
    given: ArrayLike | None, distribution: ColorDistribution, shape: tuple[int, int], extent: tuple[int, int] | None
) -> Array:
    if given is None:
        size = extent or shape
        border = [(0, max(0, whole - part)) for whole, part in zip(shape, size, strict=True)]
        return jnp.pad(resize(distribution.mean(), size, "linear"), [*border, (0, 0)], mode="edge")
    if jnp.shape(given) != (*shape, 2):
        raise InputError(f"guide must have shape {[*shape, 2]}, got {list(jnp.shape(given))}")
    check_finite("guide", jnp.asarray(given))
    return jnp.asarray(given)


def _large_enough(
    luminance: Array, guide: Array | None, extent: tuple[int, int] | None, side: int
) -> tuple[Array, Array | None, tuple[int, int] | None]:
    """The photo with its border repeated up to ``side`` pixels, where it is smaller, and its extent."""
    shape = luminance.shape
    if min(shape) >= side:
        return luminance, guide, extent
    border = [(0, max(0, side - n)) for n in shape]
    padded = jnp.pad(luminance, border, mode="edge")
    if guide is not None:
        guide = jnp.pad(guide, [*border, (0, 0)], mode="edge")
    return padded, guide, extent or (shape[0], shape[1])


def _check_continuation(
    init: DeepPriorFit, preset: Preset, seeds: int, data: Data, distribution: ColorDistribution
) -> None:
    if init.preset.network != preset.network:
        raise InputError("init is a fit of another network; give the preset that it was fitted with")
    have = (*init.inputs.shape[:3], *init.state.target.shape[1:3])
    want = (seeds, *data.luminance.shape, *distribution.probabilities.shape[:2])
    if have != want:
        raise InputError(f"init does not fit: its seeds, pixels and cells are {list(have)}, expected {list(want)}")
