"""What makes chroma of a distribution: the methods of :func:`jaxcolor.colorize`, on padded photos.

A method takes a photo, the network's distribution, settings and what tells progress, and returns chroma planes of the
padded size and what there is to report.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.guidance import Guidance
from jaxcolor.coupled_tv.inertial import InertialForwardBackward
from jaxcolor.coupled_tv.primal_dual import PrimalDual
from jaxcolor.coupled_tv.problem import CoupledTVProblem
from jaxcolor.coupled_tv.solution import Solution, Status
from jaxcolor.coupled_tv.solve import solve_in_chunks
from jaxcolor.errors import InputError
from jaxcolor.hints import Hints
from jaxcolor.memory import fitting_pixels
from jaxcolor.photo import (
    Chroma,
    Photo,
    Progress,
    enlarged,
    padded_problem,
    reduced_photo,
    solver_report,
    without_padding,
)
from jaxcolor.registration import registered
from jaxcolor.settings import OF_SOLVER, Settings

_LEAST_WORKING_SIDE = 64
# Of the solver that brings colors from the working size to full size: a convex problem, begun near its solution. On
# four photos 25 such steps came as near to it as 50 without relaxation (leads, by a script that was not kept).
LEADING_STEPS = 30
LEADING = PrimalDual(relaxation=1.9)
# λ of that problem, if none is given, where it has as many pixels as the colors that are led; for s times as many
# along each side it is λ / s, since a border then has s times as many pixels and what it encloses s² times (derived).
# It is larger than for the selection, because these colors are chosen already. With 0.02 instead, edges of ten
# training photos enlarged twice were 2 % wider and the error near them, of clean distributions, 1 % larger; with 0.1
# borders blurred by eight pixels stayed wide (leads, by a script that was not kept). With hints it is that of the
# selection, with which they spread.
LEADING_FIDELITY = 0.06


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
        distribution = distribution.enlivened()
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
        solution = solve_in_chunks(problem, solver, steps=steps, init=solution, progress=tell, donate=True)
        reports.append(solver_report(solver, solution))
        before += steps
    assert solution is not None
    chroma = solution.state.chroma
    if small is not photo:
        selected = without_padding(chroma, small)
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

    Hints join in that last step, which they need at full size too.
    """
    # Here, not on top: optax comes with it, and the other methods start a quarter of a second sooner without.
    from jaxcolor.deep_prior.fit import fit_deep_prior
    from jaxcolor.deep_prior.objective import Losses
    from jaxcolor.deep_prior.presets import PRESETS
    from jaxcolor.deep_prior.steps import seeds_apart
    from jaxcolor.deep_prior.stopping import PlateauRule

    chosen = settings.preset or ("fast" if jax.default_backend() == "cpu" else "paper")
    name, preset = (chosen, PRESETS[chosen]) if isinstance(chosen, str) else ("given", chosen)
    if settings.learning_rate is not None:
        preset = replace(preset, learning_rate=settings.learning_rate)
    side_by_side = 1 if seeds_apart() else settings.seeds
    small, notes = _working_size(photo, settings, side_by_side * preset.network.channels)
    steps = preset.steps if settings.prior_steps is None else settings.prior_steps
    as_fitted = small is photo and hints is None
    total = steps + (0 if as_fitted else _leading_steps(settings, hints))
    if as_fitted and not preset.guided and (without := settings.changed(OF_SOLVER)):
        notes.append(f"{', '.join(without)}: without effect, since the preset {name} asks no solver at this size")

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
        stop=None if settings.plateau is None else PlateauRule(settings.plateau),
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
    least = min(_LEAST_WORKING_SIDE**2, photo.height * photo.width)
    if most < least:
        raise InputError(
            f"the deep prior needs memory for {least} pixels at least, and what is free is enough for {most}; close "
            "other programs, use fewer seeds or another preset, or another method"
        )
    small = reduced_photo(photo, min(settings.working_pixels(), most))
    if small is photo:
        return photo, []
    why = "as large as memory allows" if most < settings.working_pixels() else "the working size"
    return small, [f"the deep prior was fitted at {small.width}×{small.height} pixels, {why}"]


def _leading_steps(settings: Settings, hints: Hints | None) -> int:
    """Hints are new to the last problem, so that it does not begin near its solution."""
    steps = max(settings.steps, settings.refinement_steps)
    return min(steps, LEADING_STEPS) if hints is None else steps


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
    notes: list[str] = []
    levels = _levels(photo, chroma.shape[0] * chroma.shape[1])
    for level in levels:
        extent = level.height, level.width
        candidates = enlarged(chroma, level)[:, :, None]
        last = level is photo
        fidelity = settings.fidelity
        if fidelity is None and not (last and hints is not None):
            fidelity = LEADING_FIDELITY * math.sqrt(math.prod(chroma.shape[:2]) / math.prod(extent))
        problem = padded_problem(level.luminance, candidates, extent, fidelity, settings.coupling)
        if last and hints is not None:
            problem, notes = hints.applied(problem, photo.luminance[: photo.height, : photo.width])
        steps = _leading_steps(settings, hints if last else None)
        solution = solve_in_chunks(problem, LEADING, steps=steps, progress=progress if last else None)
        report = solver_report(LEADING, solution)
        if not last:
            chroma = without_padding(solution.state.chroma, level)
    return solution.state.chroma, report, notes


def _levels(photo: Photo, pixels: float) -> list[Photo]:
    """The photo, and before it itself at a quarter, a sixteenth, … of its sides, as long as that has clearly more than
    ``pixels``: from one to the next colors are enlarged four times at most, or a little more."""
    levels = [photo]
    while (quarter := math.prod(levels[0][1:]) / 16) > 1.5 * pixels:
        levels.insert(0, reduced_photo(levels[0], quarter))
    return levels


METHODS: dict[str, Callable[..., tuple[Chroma, dict[str, Any]]]] = {
    "cic": _annealed_mean,
    "coupled-tv": _coupled_tv,
    "deep-prior": _deep_prior,
}
