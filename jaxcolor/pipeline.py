"""From a gray photo to a color photo: the whole data flow.

file → luminance L* → network → distribution of colors → one of the methods → chroma → gamut → RGB → file
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcolor.cic.predict import CIC
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.guidance import Guidance
from jaxcolor.coupled_tv.inertial import InertialForwardBackward
from jaxcolor.coupled_tv.primal_dual import PrimalDual
from jaxcolor.coupled_tv.problem import CoupledTVProblem
from jaxcolor.coupled_tv.solution import Solution, Status
from jaxcolor.coupled_tv.solve import solve_in_chunks
from jaxcolor.errors import InputError
from jaxcolor.hints import Hints, as_hints
from jaxcolor.images import GrayImage, check_output, write_image
from jaxcolor.memory import fitting_pixels, require_memory
from jaxcolor.palettes import as_palette
from jaxcolor.photo import (
    Chroma,
    Clock,
    Photo,
    Progress,
    as_gray,
    bucket,
    enlarged,
    merge,
    padded_photo,
    padded_problem,
    reduced_photo,
    report_of,
    solver_report,
)
from jaxcolor.registration import registered
from jaxcolor.resampling import resampling_matrix
from jaxcolor.settings import Settings

_LEAST_WORKING_SIDE = 64
# Of the solver that brings colors from the working size to full size: a convex problem, begun near its solution.
LEADING_STEPS = 50


@dataclass(frozen=True, eq=False)
class ColorizationResult:
    """``rgb`` float32 ``[H, W, 3]`` in [0, 1] (sRGB), ``chroma`` float32 ``[H, W, 2]`` (a*, b* as the method gave them,
    before the gamut), the network's ``distribution``, rebalanced, and a ``report`` of plain values ready for JSON."""

    rgb: NDArray[np.float32]
    chroma: NDArray[np.float32]
    distribution: ColorDistribution
    report: dict[str, Any]


def colorize(
    image: str | os.PathLike[str] | GrayImage | ArrayLike,
    output: str | os.PathLike[str] | None = None,
    *,
    weights: CIC | str | os.PathLike[str] | None = None,
    hints: Hints | str | os.PathLike[str] | None = None,
    palette: ArrayLike | str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> ColorizationResult:
    """Colorize a gray photo at its own resolution.

    Args:
        image: a file, a :class:`GrayImage`, or an array as :meth:`GrayImage.from_array` takes it. Of a color image
            only the L* is used.
        output: where to write the result, in the format of the suffix; alpha, color profile and bit depth of the
            input are carried over. None writes nothing.
        weights: a :class:`CIC`, a name, or a file; None is the compact network that comes with the package.
        hints: :class:`Hints`, or a file of them: colors that are kept exactly, and spread to where the photo has no
            edge. For the methods "coupled-tv" and "deep-prior", whose last step is a problem with constraints.
        palette: colors (a*, b*) ``[P, 2]``, or a file of them (:func:`read_palette`): the only candidates; the
            network's probabilities are carried over to the nearest of them.
        overwrite: replace an existing output.
        progress: called as ``progress(stage, done, total)``.
        **settings: the fields of :class:`Settings`: ``method``, ``candidates``, ``fidelity``, …

    Raises:
        InputError: in one line, whatever is wrong with the arguments, the files, or the memory at hand. Nothing is
            written then.
        KeyboardInterrupt: on Ctrl-C; nothing is written.

    Cost: linear in the pixels and in the number of steps; see the README for memory.

    >>> import jaxcolor as jc
    >>> result = jc.colorize(np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64), steps=5)
    >>> result.rgb.shape, result.report["method"]
    ((64, 64, 3), 'coupled-tv')
    """
    chosen = _settings(settings)
    known, own = as_hints(hints), as_palette(palette)
    if known is not None and chosen.method == "cic":
        raise InputError("hints need the method coupled-tv or deep-prior; cic solves no problem with constraints")
    clock = Clock()
    with clock("read"):
        gray = as_gray(image)
        if output is not None:
            check_output(output, overwrite=overwrite, source=gray.source)
        if known is not None:
            known.drawn(gray.luminance)  # One that does not fit is told before anything long.
        net = weights if isinstance(weights, CIC) else _loaded(weights)
        candidates = {"cic": 0, "coupled-tv": chosen.candidates, "deep-prior": 1}[chosen.method]
        padded = bucket(gray.shape[0]), bucket(gray.shape[1])
        require_memory(gray.shape, candidates, padded, chosen.working_pixels())
    with clock("network"):
        photo = padded_photo(gray.luminance)
        distribution = _predict(net, photo, chosen)
        if own is not None:
            distribution = distribution.carried_to(jnp.asarray(own))
    with clock("color"):
        method = _METHODS[chosen.method] if known is None else partial(_METHODS[chosen.method], hints=known)
        chroma, details = method(photo, distribution, chosen, progress)
        rgb, colors, measures = merge(photo, chroma)
    if output is not None:
        with clock("write"):
            write_image(output, rgb, like=gray, overwrite=overwrite)
    weights_used = {name: net.manifest.get(name) for name in ("name", "width", "checksum")}
    details = {"method": chosen.method} | measures | details
    details |= {"weights": weights_used, "logit_scale": float(net.logit_scale)}
    report = report_of(gray, output, details, clock.seconds)
    return ColorizationResult(rgb, colors, distribution, report)


def read_out(gray: GrayImage, distribution: ColorDistribution, **settings: Any) -> NDArray[np.float32]:
    """RGB ``[H, W, 3]`` of a photo whose distribution is known, by any method; ``settings`` as for :func:`colorize`."""
    chosen = _settings(settings)
    photo = padded_photo(gray.luminance)
    return merge(photo, _METHODS[chosen.method](photo, distribution, chosen, None)[0])[0]


def chroma_of(gray: GrayImage, distribution: ColorDistribution, **settings: Any) -> NDArray[np.float32]:
    """Chroma ``[H, W, 2]`` of a photo whose distribution is known, as the method gives it, before the gamut."""
    chosen = _settings(settings)
    photo = padded_photo(gray.luminance)
    planes = _METHODS[chosen.method](photo, distribution, chosen, None)[0]
    return np.stack([np.asarray(plane)[: photo.height, : photo.width] for plane in planes], -1)


def _predict(net: CIC, photo: Photo, settings: Settings) -> ColorDistribution:
    side = settings.resolution
    lengths = zip((photo.height, photo.width), photo.luminance.shape, strict=True)
    rows, columns = (resampling_matrix(size, side, padded=padded) for size, padded in lengths)
    distribution = net.predict_resampled(photo.luminance, rows, columns)
    return jax.block_until_ready(net.rebalanced(distribution, settings.rebalancing))


def _annealed_mean(
    photo: Photo, distribution: ColorDistribution, settings: Settings, progress: Progress | None
) -> tuple[Chroma, dict[str, Any]]:
    full = enlarged(distribution.annealed_mean(settings.temperature), photo)
    return (full[..., 0], full[..., 1]), {"status": "read out"}


def _coupled_tv(
    photo: Photo,
    distribution: ColorDistribution,
    settings: Settings,
    progress: Progress | None,
    hints: Hints | None = None,
) -> tuple[Chroma, dict[str, Any]]:
    """Candidates are selected at the working size; to full size their colors are led by the photo's edges.

    Hints belong to the last problem, which has the photo's own pixels.
    """
    small = reduced_photo(photo, settings.working_pixels())
    guided = settings.variant == "guided"
    extent = (small.height, small.width)
    shift = jnp.zeros(2)
    if guided:
        distribution, shift = registered(small.luminance, distribution, extent)
    stages = ((PrimalDual(), settings.steps), (InertialForwardBackward(), settings.refinement_steps))
    total = sum(steps for _, steps in stages)
    leading = 0 if small is photo else _leading_steps(settings, hints)
    problem = CoupledTVProblem.from_distribution(
        small.luminance,
        distribution,
        candidates=min(settings.candidates, len(distribution.palette)),
        fidelity=settings.fidelity,
        coupling=settings.coupling,
        extent=extent,
        guidance=Guidance() if guided else None,
    )
    notes: list[str] = []
    if hints is not None and small is photo:
        problem, notes = hints.applied(problem, photo.luminance[: photo.height, : photo.width])
    report: dict[str, Any] = {
        "variant": settings.variant,
        "fidelity": float(problem.fidelity),
        "coupling": float(problem.coupling),
        "candidates": problem.count,
        "working_size": [small.height, small.width],
        "shift_in_cells": np.asarray(shift).tolist(),
    }
    solution: Solution | None = None
    reports, before = [], 0
    for solver, steps in stages:
        if steps == 0 and solution is not None:
            continue
        tell = _teller(progress, before, total + leading)
        solution = solve_in_chunks(problem, solver, steps=steps, init=solution, progress=tell)
        reports.append(solver_report(solver, solution))
        before += steps
    assert solution is not None
    chroma = solution.state.chroma
    if small is not photo:
        inside = (slice(small.height), slice(small.width))
        selected = np.stack([np.asarray(plane)[inside] for plane in chroma], -1)
        del problem, solution
        tell = _teller(progress, total, total + leading)
        chroma, last, more = led_by_edges(photo, selected, settings, tell, hints)
        reports.append(last)
        notes += more
    return chroma, report | {"solvers": reports, "status": reports[-1]["status"], "notes": notes}


def _teller(progress: Progress | None, before: int, total: int) -> Callable[[int, float], None]:
    """What tells ``progress`` the steps of one solver among ``total``."""

    def tell(done: int, energy: float) -> None:
        if progress is not None:
            progress("solve", before + done, total)

    return tell


def _deep_prior(
    photo: Photo,
    distribution: ColorDistribution,
    settings: Settings,
    progress: Progress | None,
    hints: Hints | None = None,
) -> tuple[Chroma, dict[str, Any]]:
    """The network is fitted to the photo at working size; to full size its chroma is led by the photo's edges.

    A guided preset takes that last step, which makes edges sharper, at full size too; and so does any with hints, which
    join in there.
    """
    # Here, not on top: optax comes with it, and the other methods start a quarter of a second sooner without.
    from jaxcolor.deep_prior.fit import fit_deep_prior
    from jaxcolor.deep_prior.objective import Losses
    from jaxcolor.deep_prior.presets import PRESETS

    name = settings.preset or ("fast" if jax.default_backend() == "cpu" else "paper")
    preset = PRESETS[name]
    small, notes = _working_size(photo, settings, preset.network.channels)
    steps = preset.steps if settings.prior_steps is None else settings.prior_steps
    as_fitted = small is photo and hints is None and not preset.guided
    total = steps + (0 if as_fitted else _leading_steps(settings, hints))

    def tell(done: int, color: float, luminance: float, variation: float) -> None:
        if progress is not None:
            parts = f"color {color:.2e}, luminance {luminance:.2e}, variation {variation:.2e}"
            progress(f"loss: {parts}", done, total)

    guide = jnp.stack(_coupled_tv(small, distribution, settings, None)[0], -1) if preset.guided else None
    fit = fit_deep_prior(
        small.luminance,
        distribution,
        key=jax.random.key(settings.seed),
        preset=preset,
        steps=steps,
        seeds=settings.seeds,
        guide=guide,
        extent=(small.height, small.width),
        progress=tell,
    )
    if fit.status == Status.INTERRUPTED:
        raise KeyboardInterrupt
    if fit.status == Status.NON_FINITE:
        notes.append(f"deep prior: {fit.message()}")
    report = {
        "preset": name,
        "working_size": [small.height, small.width],
        "steps": fit.steps,
        "status": fit.message(),
        "seed": settings.seed,
        "losses": [float(loss) for loss in fit.losses],
        "loss": dict(zip(Losses._fields, map(float, fit.history[-1]), strict=True)) if fit.steps else None,
        "notes": notes,
    }
    if as_fitted:
        return (jnp.asarray(fit.chroma[..., 0]), jnp.asarray(fit.chroma[..., 1])), report

    fitted = fit.chroma[: small.height, : small.width]
    chroma, solver, more = led_by_edges(photo, fitted, settings, _teller(progress, steps, total), hints)
    return chroma, report | {"solvers": [solver], "notes": notes + more}


def _working_size(photo: Photo, settings: Settings, channels: int) -> tuple[Photo, list[str]]:
    """The photo at the size at which the deep prior is fitted, and what there is to say about that."""
    # The padding of photos to shared sizes adds a quarter at this size, rarely more.
    most = fitting_pixels(channels) * 4 // 5
    if most < _LEAST_WORKING_SIDE**2:
        raise InputError("the deep prior needs more memory than is free; close other programs, or use another method")
    small = reduced_photo(photo, min(settings.working_pixels(), most))
    if small is photo:
        return photo, []
    why = "as large as memory allows" if most < settings.working_pixels() else "the working size"
    return small, [f"the deep prior was fitted at {small.width}×{small.height} pixels, {why}"]


def _leading_steps(settings: Settings, hints: Hints | None) -> int:
    """Hints are new to the last problem, so that it does not begin near its solution."""
    return min(settings.steps, LEADING_STEPS) if hints is None else settings.steps


def led_by_edges(
    photo: Photo,
    chroma: NDArray[np.float32],
    settings: Settings,
    progress: Callable[[int, float], None],
    hints: Hints | None = None,
) -> tuple[Chroma, dict[str, Any], list[str]]:
    """Chroma ``[h, w, 2]``, usually of a smaller picture, at full size, its edges on those of the photo.

    It is enlarged and becomes the one candidate of a coupled-TV problem, which is convex then; if the photo is much
    larger, first at sizes in between. Hints belong to the last problem. Returns the chroma, the report of the last
    solver, and notes on the hints.
    """
    solver = PrimalDual()
    notes: list[str] = []
    levels = _levels(photo, chroma.shape[0] * chroma.shape[1])
    for level in levels:
        extent = level.height, level.width
        candidates = enlarged(chroma, level)[:, :, None]
        problem = padded_problem(level.luminance, candidates, extent, settings.fidelity, settings.coupling)
        last = level is photo
        if last and hints is not None:
            problem, notes = hints.applied(problem, photo.luminance[: photo.height, : photo.width])
        steps = _leading_steps(settings, hints if last else None)
        solution = solve_in_chunks(problem, solver, steps=steps, progress=progress if last else None)
        report = solver_report(solver, solution)
        if not last:
            chroma = np.stack([np.asarray(plane)[: extent[0], : extent[1]] for plane in solution.state.chroma], -1)
    return solution.state.chroma, report, notes


def _levels(photo: Photo, pixels: float) -> list[Photo]:
    """The photo, and before it itself at a quarter, a sixteenth, … of its sides, as long as that has clearly more than
    ``pixels``: from one to the next colors are enlarged four times at most, or a little more."""
    levels = [photo]
    while (quarter := math.prod(levels[0][1:]) / 16) > 1.5 * pixels:
        levels.insert(0, reduced_photo(levels[0], quarter))
    return levels


_METHODS: dict[str, Callable[..., tuple[Chroma, dict[str, Any]]]] = {
    "cic": _annealed_mean,
    "coupled-tv": _coupled_tv,
    "deep-prior": _deep_prior,
}


def _settings(given: dict[str, Any]) -> Settings:
    known = [field.name for field in fields(Settings)]
    if unknown := sorted(set(given) - set(known)):
        raise InputError(f"colorize does not know {', '.join(unknown)}; settings are {', '.join(known)}")
    return Settings(**given)


def _loaded(weights: str | os.PathLike[str] | None) -> CIC:
    # A folder of photos loads its weights once.
    return _load(None if weights is None else os.fspath(weights))


@lru_cache(maxsize=2)
def _load(weights: str | None) -> CIC:
    return CIC.load(weights)
