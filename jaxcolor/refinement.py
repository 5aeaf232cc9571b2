"""Refining the colors that any other program gave to a gray photo: registered, sharpened, their edges on gray edges.

colored photo → chroma at the gray photo's size → shift and blur against its luminance → coupled-TV problem with this
chroma as its candidate → chroma → gamut → RGB
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jaxcolor.color.gamut import scale_chroma
from jaxcolor.color.palette import nearest_bins
from jaxcolor.color.spaces import lab_to_srgb, srgb_to_lab
from jaxcolor.coupled_tv.checks import check_luminance
from jaxcolor.coupled_tv.primal_dual import PrimalDual
from jaxcolor.coupled_tv.problem import CoupledTVProblem
from jaxcolor.coupled_tv.solution import Solution
from jaxcolor.coupled_tv.solve import solve, solve_in_chunks
from jaxcolor.errors import InputError
from jaxcolor.hints import Hints, as_hints
from jaxcolor.images import GrayImage, check_output, read_color, read_gray
from jaxcolor.memory import require_memory
from jaxcolor.palettes import as_palette
from jaxcolor.photo import (
    Clock,
    Picture,
    Progress,
    bucket,
    merge,
    padded_photo,
    padded_problem,
    report_of,
    solver_report,
)
from jaxcolor.registration import blockiness, blurred, estimate_shift, excess_blur, moved
from jaxcolor.resampling import resize

DEFAULT_STRENGTH = 0.5
STEPS = 100
# λ, and what it is multiplied with where the colors are clearly blocky, and at full strength. Less is smoother, and
# smoothing is no gain in itself.
# Leads, by a script that was not kept. Four 128×160 crops of photos of a training set, 8 bit, damages known instead of
# estimated, 100 steps; change of the mean ΔE2000, and mean ΔE2000 of the undamaged:
#     λ                       0.2     0.1     0.05    0.02    0.01     0.005
#     blurred by σ = 2      -18.9   -18.5   -16.1    -7.8    +4.8
#     blurred by σ = 4      -15.8   -16.3   -16.5   -15.2   -11.2
#     reduced 8 times        -8.1    -8.8    -9.4    -9.2    -7.0
#     JPEG quality 40        -1.3    -2.1    -3.2    -5.3    -7.1     -8.5     (joint bilateral filter -7.8)
#     undamaged              0.14    0.21    0.32    0.51    0.70     0.92
# Where colors are clearly blurred, λ = 0.05 was better than 0.25 by a point on average (10 photos, native size, reduced
# 8 times: -10.7 % against -9.6 %), but worse by 10 on a photo full of glitter, whose edges have no color.
_FIDELITY, _IF_BLOCKY, _IF_STRONG = 0.25, 0.04, 0.04
# The JPEG files among the same photos had up to 2.0 as they were, and 1.5 to 3.1 with quality 40.
_LEAST_BLOCKY, _CLEARLY_BLOCKY = 1.7, 2.2
# Twicing with a larger blur takes back more, at first: with λ = 0.05 the three blurs changed by -19.0 %, -17.8 % and
# -12.0 % for 1.3, and by -15.2 %, -15.3 % and -12.9 % for 1.6. More rounds made some photos much worse.
_OVERSHOOT = 1.3
_COUPLING = 240.0
# Of the two sides of a picture; a pixel or two of cropping are within it.
_ASPECT_PIXELS, _ASPECT_SHARE = 2.5, 0.01

# Candidates per pixel with a palette, as in the soft encoding, and their λ, not measured.
_NEAREST, _PALETTE_FIDELITY = 5, 0.05

_Run = Callable[[CoupledTVProblem, Solution | None, int], Solution]


class Refinement(Picture):
    """A refined photo: ``rgb``, ``chroma`` and ``report`` of a :class:`Picture`. ``write`` writes it to a file."""


def refine(
    gray: str | os.PathLike[str] | GrayImage | ArrayLike | None,
    colored: str | os.PathLike[str] | ArrayLike,
    *,
    strength: float | Array = DEFAULT_STRENGTH,
    align: bool = True,
    steps: int = STEPS,
    hints: Hints | str | os.PathLike[str] | None = None,
    palette: ArrayLike | str | os.PathLike[str] | None = None,
) -> Array:
    """The colors of a colored photo, re-drawn on the edges of the gray photo.

    Args:
        gray: L* ``[H, W]`` in [0, 100], a :class:`GrayImage` or a file; None takes the L* of ``colored``.
        colored: sRGB ``[h, w, 3]`` in [0, 1] of any size with the same aspect, or a file. Of it only the colors are
            used, not the lightness.
        strength: from 0, which keeps the colors, to 1; one number. At 0.5 and above the result is the solution, with
            λ divided by 1 to 25; below, it moves straight toward the colors as they were.
        align: whether a shift of the colors as a whole, of up to 9 pixels, is found and undone.
        steps: of the primal-dual solver; static.
        hints: :class:`Hints`, or a file of them: kept exactly, and spread to where the gray photo has no edge. The
            gray photo's values must be known then, so not traced.
        palette: colors (a*, b*) ``[P, 2]``, or a file of them (:func:`read_palette`): every pixel's refined color is
            replaced by those nearest to it, up to five, and the problem is solved once more among these.

    Returns:
        sRGB ``[H, W, 3]`` in [0, 1].

    Raises:
        InputError: wrong shapes or values, another aspect, strength outside [0, 1].

    The chroma c is brought to the gray photo's size and moved by :func:`estimate_shift`; u solves the convex coupled-TV
    problem with c as the only candidate; then once more with ``u + c - G u``, where G is the blur of
    :func:`excess_blur` (twicing, Tukey 1977: the residual goes back in). The more blocky
    (:func:`blockiness`) the colors are, the less λ holds them. Derived for this project on the model of Mouzon, Pierre,
    Berger 2019, equation 2. Differentiable in ``colored``, ``gray`` and ``strength``, with what was estimated held
    constant; works under ``jit`` and ``vmap``. Cost: linear in pixels and steps, about 200 bytes a pixel.

    >>> gray = jnp.broadcast_to(jnp.linspace(20.0, 80.0, 24), (16, 24))
    >>> refine(gray, jnp.full((8, 12, 3), jnp.array([0.6, 0.4, 0.3])), steps=4).shape
    (16, 24, 3)
    """
    strength = _checked_strength(strength)
    luminance, rgb = _luminance(gray, colored), _colors(colored)
    height, width = luminance.shape
    chroma, blocks = _resized_chroma(rgb, (height, width))
    method = _Method(strength, align, steps, as_hints(hints), as_palette(palette))
    restored, _, _ = _restored(luminance, chroma.astype(luminance.dtype), blocks, (height, width), method, _compiled)
    lab, _ = scale_chroma(jnp.concatenate([luminance[..., None], restored], -1))
    return jnp.clip(lab_to_srgb(lab), 0, 1)


def refine_photo(
    gray: str | os.PathLike[str] | GrayImage | None,
    colored: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    strength: float = DEFAULT_STRENGTH,
    align: bool = True,
    steps: int = STEPS,
    hints: Hints | str | os.PathLike[str] | None = None,
    palette: ArrayLike | str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Refinement:
    """:func:`refine` for files: with a report, progress, Ctrl-C, and a compiled solver shared by photos of many sizes.

    Args:
        gray: a file or a :class:`GrayImage`; None takes the lightness of ``colored``. Its alpha, color profile and
            bit depth are carried over.
        output: where to write, in the format of the suffix; None writes nothing.
        overwrite: replace an existing output.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        InputError: as :func:`refine`, and for files and memory. Nothing is written then.
        KeyboardInterrupt: on Ctrl-C; nothing is written.

    >>> refine_photo("old.jpg", "colored.jpg", "color.png")                         # doctest: +SKIP
    """
    clock = Clock()
    method = _Method(float(_checked_strength(strength)), align, steps, as_hints(hints), as_palette(palette))
    with clock("read"):
        image = gray if isinstance(gray, GrayImage) else read_gray(colored if gray is None else gray)
        if output is not None:
            check_output(output, overwrite=overwrite, source=image.source)
            check_output(output, overwrite=overwrite, source=colored)
        rgb = read_color(colored)
        _check_aspect(rgb.shape[:2], image.shape)
        candidates = 2 if method.palette is None else 2 + _NEAREST
        require_memory(image.shape, candidates, (bucket(image.shape[0]), bucket(image.shape[1])))
    photo = padded_photo(image.luminance)
    solver_reports: list[dict[str, Any]] = []
    with clock("color"):
        given, blocks = _resized_chroma(jnp.asarray(rgb), (photo.height, photo.width), photo.luminance.shape)
        run = partial(_watched, reports=solver_reports, progress=progress, total=method.all_steps)
        extent = (photo.height, photo.width)
        chroma, found, notes = _restored(jnp.asarray(photo.luminance), given, blocks, extent, method, run)
        shown, colors, measures = merge(photo, (chroma[..., 0], chroma[..., 1]))
    details: dict[str, Any] = {"method": "refine", "colored": os.fspath(colored), "strength": method.strength}
    details |= measures
    details |= {name: np.asarray(value).tolist() for name, value in found.items()}
    details |= {
        "notes": notes,
        "solvers": solver_reports,
        "status": solver_reports[-1]["status"] if solver_reports else "left alone",
    }
    result = Refinement(shown, colors, report_of(image, details, clock.seconds))
    if output is not None:
        result.write(output, like=image, overwrite=overwrite)
    return result


class _Method(NamedTuple):
    """What :func:`refine` is told besides the photos, checked."""

    strength: float | Array
    align: bool
    steps: int
    hints: Hints | None
    palette: NDArray[np.float32] | None

    @property
    def all_steps(self) -> int:
        """Steps of all solves together."""
        return self.steps + (0 if self.palette is None else self.steps // 2)


def _restored(
    luminance: Array, chroma: Array, blocks: Array, extent: tuple[int, int], method: _Method, run: _Run
) -> tuple[Array, dict[str, Array], list[str]]:
    """The refined chroma, what was found out about the given one, and notes on the hints."""
    strength, steps, hints = method.strength, method.steps, method.hints
    left_alone: tuple[Array, dict[str, Array], list[str]] = (chroma, {}, [])
    same = isinstance(strength, float) and strength == 0 and hints is None
    refined, found, notes = left_alone if same else _redrawn(luminance, chroma, blocks, extent, method, run)
    if method.palette is not None:
        problem, notes = _problem(luminance, *_nearest(refined, method.palette), _PALETTE_FIDELITY, extent, hints)
        refined = run(problem, None, steps // 2).chroma
    return refined, found, notes


def _redrawn(
    luminance: Array, chroma: Array, blocks: Array, extent: tuple[int, int], method: _Method, run: _Run
) -> tuple[Array, dict[str, Array], list[str]]:
    strength, steps, hints = method.strength, method.steps, method.hints
    height, width = extent
    # Whole pictures are looked at without their padding, whose repeated border has no edges.
    fixed_chroma, fixed_luminance = (jax.lax.stop_gradient(x[:height, :width]) for x in (chroma, luminance))
    shift = estimate_shift(fixed_luminance, fixed_chroma) if method.align else jnp.zeros(2, jnp.int32)
    placed = moved(chroma, shift, extent)
    deviation = excess_blur(fixed_luminance, jax.lax.stop_gradient(placed[:height, :width]))
    fidelity = _fidelity(blocks, strength)
    problem, notes = _problem(luminance, placed[:, :, None], None, fidelity, extent, hints)
    solution = run(problem, None, steps - steps // 2)
    # Next to hints, which no blur has seen, this candidate has no weight.
    smooth = blurred(solution.chroma, _OVERSHOOT * deviation, extent)
    sharp = problem.with_candidate(placed + solution.chroma - smooth)
    solution = run(sharp, solution, steps // 2)
    share = jnp.minimum(2 * strength, 1)
    start = chroma if hints is None else jnp.stack(problem.hinted((chroma[..., 0], chroma[..., 1])), -1)
    found = {"shift": shift, "blur": deviation, "blockiness": blocks, "fidelity": fidelity}
    return start + share * (solution.chroma - start), found, notes


def _fidelity(blocks: Array, strength: float | Array) -> Array:
    """λ for colors that are so blocky; each factor applies as a power between 0 and 1."""
    blocky = jnp.clip((blocks - _LEAST_BLOCKY) / (_CLEARLY_BLOCKY - _LEAST_BLOCKY), 0, 1)
    strong = jnp.maximum(2 * strength - 1, 0)
    return _FIDELITY * _IF_BLOCKY**blocky * _IF_STRONG**strong


def _problem(
    luminance: Array,
    candidates: Array,
    weights: Array | None,
    fidelity: Array | float,
    extent: tuple[int, int],
    hints: Hints | None,
) -> tuple[CoupledTVProblem, list[str]]:
    problem = padded_problem(luminance, candidates, extent, fidelity, _COUPLING, weights)
    if hints is None:
        return problem, []
    return hints.applied(problem, np.asarray(luminance[: extent[0], : extent[1]]))


def _nearest(chroma: Array, palette: NDArray[np.float32]) -> tuple[Array, Array]:
    """The palette's colors nearest to every pixel's, as candidates ``[H, W, k, 2]``, and their Gaussian weights."""
    colors = jnp.asarray(palette, chroma.dtype)
    # Row by row: the distances to all colors would not fit into memory.
    indices, weights = jax.lax.map(lambda row: nearest_bins(row, colors, min(_NEAREST, len(colors))), chroma)
    return colors[indices], weights


def _compiled(problem: CoupledTVProblem, init: Solution | None, steps: int) -> Solution:
    return solve(problem, PrimalDual(), steps, init)


def _watched(
    problem: CoupledTVProblem,
    init: Solution | None,
    steps: int,
    reports: list[dict[str, Any]],
    progress: Progress | None,
    total: int,
) -> Solution:
    before = sum(report["steps"] for report in reports)

    def tell(done: int, energy: float) -> None:
        if progress is not None:
            progress("solve", before + done, total)

    solver = PrimalDual()
    solution = solve_in_chunks(problem, solver, steps, init, progress=tell)
    reports.append(solver_report(solver, solution))
    return solution


def _checked_strength(strength: Any) -> float | Array:
    if isinstance(strength, jax.core.Tracer):
        return strength
    try:
        number = float(strength)
    except (TypeError, ValueError) as error:
        raise InputError(f"strength must be one number from 0 to 1, got {strength!r}") from error
    if not 0 <= number <= 1:
        raise InputError(f"strength must be from 0 (leave alone) to 1 (strong), got {number:g}")
    return number


def _luminance(gray: Any, colored: Any) -> Array:
    if gray is None:
        return srgb_to_lab(_colors(colored))[..., 0].clip(0, 100)
    if isinstance(gray, str | os.PathLike):
        gray = read_gray(gray)
    return check_luminance(gray.luminance if isinstance(gray, GrayImage) else gray)


def _colors(colored: Any) -> Array:
    if isinstance(colored, str | os.PathLike):
        colored = read_color(colored)
    rgb = jnp.asarray(colored)
    if rgb.ndim != 3 or rgb.shape[-1] != 3 or rgb.size == 0:
        raise InputError(f"colored must have shape [h, w, 3], not empty, got {list(rgb.shape)}")
    if not jnp.issubdtype(rgb.dtype, jnp.floating):
        raise InputError(f"colored must be float in [0, 1], got {rgb.dtype}; divide by the largest value")
    if not isinstance(rgb, jax.core.Tracer):
        low, high = float(rgb.min()), float(rgb.max())
        if not (low >= -0.01 and high <= 1.01):
            raise InputError(f"colored must be sRGB in [0, 1], got values from {low:g} to {high:g}")
    return rgb


def _check_aspect(colored: tuple[int, ...], gray: tuple[int, ...]) -> None:
    """Raise for pictures of which one is not the other at another size, but for a pixel or two of cropping."""
    scale = [large / small for large, small in zip(gray, colored, strict=True)]
    # How far the longer side of the colored picture is off, in its own pixels.
    off = abs(scale[0] / scale[1] - 1) * max(colored)
    if off > max(_ASPECT_PIXELS, _ASPECT_SHARE * max(colored)):
        raise InputError(
            f"the colored photo is {colored[1]}×{colored[0]} (aspect {colored[1] / colored[0]:.4g}) and the gray one "
            f"{gray[1]}×{gray[0]} (aspect {gray[1] / gray[0]:.4g}); expected the same aspect; crop one like the other"
        )


def _resized_chroma(rgb: Array, size: tuple[int, int], padded: tuple[int, ...] | None = None) -> tuple[Array, Array]:
    """a*, b* of colors ``[h, w, 3]`` at another size, bicubic, 0 in the padding; and how blocky they were."""
    _check_aspect(rgb.shape[:2], size)
    chroma = srgb_to_lab(rgb)[..., 1:]
    blocks = blockiness(jax.lax.stop_gradient(chroma))
    if chroma.shape[:2] != size:
        chroma = resize(chroma, size)
    border = [(0, large - small) for large, small in zip(padded or size, size, strict=True)]
    return jnp.pad(chroma, [*border, (0, 0)]), blocks
