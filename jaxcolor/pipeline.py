"""From a gray photo to a color photo: the whole data flow.

file → luminance L* → network → distribution of colors → one of the methods → chroma → gamut → RGB → file
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

import jaxcolor
from jaxcolor import metrics
from jaxcolor.cic.predict import CIC
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.gamut import scale_chroma
from jaxcolor.color.guidance import Guidance
from jaxcolor.color.spaces import lab_to_srgb
from jaxcolor.coupled_tv.inertial import InertialForwardBackward
from jaxcolor.coupled_tv.primal_dual import PrimalDual
from jaxcolor.coupled_tv.problem import CoupledTVProblem
from jaxcolor.coupled_tv.solution import Solution, Status
from jaxcolor.coupled_tv.solve import solve_in_chunks
from jaxcolor.errors import InputError
from jaxcolor.images import GrayImage, check_output, read_gray, write_image
from jaxcolor.memory import fitting_pixels, require_memory
from jaxcolor.resampling import resample, resampling_matrix
from jaxcolor.settings import Settings

_LEAST_WORKING_SIDE = 64
Progress = Callable[[str, int, int], object]
Chroma = tuple[jax.Array, jax.Array]


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
    clock = _Clock()
    with clock("read"):
        gray = _as_gray(image)
        if output is not None:
            check_output(output, overwrite=overwrite, source=gray.source)
        net = weights if isinstance(weights, CIC) else _loaded(weights)
        padded = (bucket(gray.shape[0]), bucket(gray.shape[1]))
        candidates = {"cic": 0, "coupled-tv": chosen.candidates, "deep-prior": 1}
        require_memory(gray.shape, candidates[chosen.method], padded)
    with clock("network"):
        photo = _padded(gray.luminance)
        distribution = _predict(net, photo, chosen)
    with clock("color"):
        chroma, solver_report = _METHODS[chosen.method](photo, distribution, chosen, progress)
        rgb, colors, measures = _merge(photo, chroma)
    if output is not None:
        with clock("write"):
            write_image(output, rgb, like=gray, overwrite=overwrite)
    notes = [*gray.notes, *solver_report.pop("notes", ())]
    report = {
        "input": None if gray.source is None else str(gray.source),
        "output": None if output is None else os.fspath(output),
        "height": gray.shape[0],
        "width": gray.shape[1],
        "method": chosen.method,
        **measures,
        **solver_report,
        "seconds": clock.seconds,
        "weights": {name: net.manifest.get(name) for name in ("name", "width", "checksum")},
        "logit_scale": float(net.logit_scale),
        "device": str(jax.devices()[0]),
        "jax": jax.__version__,
        "jaxcolor": jaxcolor.__version__,
        "notes": notes,
    }
    return ColorizationResult(rgb, colors, distribution, report)


def read_out(gray: GrayImage, distribution: ColorDistribution, **settings: Any) -> NDArray[np.float32]:
    """RGB ``[H, W, 3]`` of a photo whose distribution is known, by any method; ``settings`` as for :func:`colorize`."""
    chosen = _settings(settings)
    photo = _padded(gray.luminance)
    return _merge(photo, _METHODS[chosen.method](photo, distribution, chosen, None)[0])[0]


def chroma_of(gray: GrayImage, distribution: ColorDistribution, **settings: Any) -> NDArray[np.float32]:
    """Chroma ``[H, W, 2]`` of a photo whose distribution is known, as the method gives it, before the gamut."""
    chosen = _settings(settings)
    photo = _padded(gray.luminance)
    planes = _METHODS[chosen.method](photo, distribution, chosen, None)[0]
    return np.stack([np.asarray(plane)[: photo.height, : photo.width] for plane in planes], -1)


class _Photo(NamedTuple):
    """A luminance plane padded to a bucket, and the size of the photo in its top left corner."""

    luminance: NDArray[np.float32]
    height: int
    width: int


def bucket(size: int) -> int:
    """``size`` rounded up to one of a few lengths, at most 1/16 more, so that photos share compiled programs.

    >>> [bucket(n) for n in (1, 512, 513, 6000)]
    [32, 512, 544, 6144]
    """
    step = max(32, 2 ** (size.bit_length() - 1) // 16)
    return -(-size // step) * step


def _padded(luminance: NDArray[np.float32]) -> _Photo:
    height, width = luminance.shape
    border = ((0, bucket(height) - height), (0, bucket(width) - width))
    return _Photo(np.pad(luminance, border, mode="edge"), height, width)


def _predict(net: CIC, photo: _Photo, settings: Settings) -> ColorDistribution:
    side = settings.resolution
    lengths = zip((photo.height, photo.width), photo.luminance.shape, strict=True)
    rows, columns = (resampling_matrix(size, side, padded=padded) for size, padded in lengths)
    distribution = net.predict_resampled(photo.luminance, rows, columns)
    return jax.block_until_ready(net.rebalanced(distribution, settings.rebalancing))


def _annealed_mean(
    photo: _Photo, distribution: ColorDistribution, settings: Settings, progress: Progress | None
) -> tuple[Chroma, dict[str, Any]]:
    full = _enlarged(distribution.annealed_mean(settings.temperature), photo)
    return (full[..., 0], full[..., 1]), {"status": "read out"}


def _enlarged(chroma: ArrayLike, photo: _Photo) -> jax.Array:
    """Chroma ``[h, w, 2]`` at the size of the photo, bicubic; 0 in its padding."""
    small = np.asarray(chroma)
    lengths = zip(small.shape[:2], (photo.height, photo.width), photo.luminance.shape, strict=True)
    # Transposed padding: here the *results* are padded, with zero rows.
    rows, columns = (
        np.pad(resampling_matrix(cells, size), ((0, padded - size), (0, 0))) for cells, size, padded in lengths
    )
    return resample(small, rows, columns)


def _coupled_tv(
    photo: _Photo, distribution: ColorDistribution, settings: Settings, progress: Progress | None
) -> tuple[Chroma, dict[str, Any]]:
    problem = CoupledTVProblem.from_distribution(
        photo.luminance,
        distribution,
        candidates=settings.candidates,
        fidelity=settings.fidelity,
        coupling=settings.coupling,
        extent=(photo.height, photo.width),
        guidance=Guidance() if settings.variant == "guided" else None,
    )
    stages = ((PrimalDual(), settings.steps), (InertialForwardBackward(), settings.refinement_steps))
    total = sum(steps for _, steps in stages)
    solution: Solution | None = None
    reports, before = [], 0
    for solver, steps in stages:
        if steps == 0 and solution is not None:
            continue

        def tell(done: int, energy: float, before: int = before) -> None:
            if progress is not None:
                progress("solve", before + done, total)

        solution = solve_in_chunks(problem, solver, steps=steps, init=solution, progress=tell)
        reports.append(_solver_report(solver, solution))
        before += steps
    assert solution is not None
    parameters: dict[str, Any] = {
        "variant": settings.variant,
        "fidelity": float(problem.fidelity),
        "coupling": float(problem.coupling),
        "candidates": problem.count,
    }
    return solution.state.chroma, parameters | {"solvers": reports, "status": reports[-1]["status"]}


def _solver_report(solver: Any, solution: Solution) -> dict[str, Any]:
    status, name = Status(int(solution.status)), type(solver).__name__
    if status == Status.INTERRUPTED:
        raise KeyboardInterrupt
    if status == Status.NON_FINITE:
        raise InputError(
            f"{name} met infinite values; lower fidelity or coupling, which are far out of the usual range"
        )
    numbers = {field.name: float(getattr(solver, field.name)) for field in fields(solver)}
    energies = [float(energy) for energy in solution.energies]
    return {
        "solver": name,
        "steps": int(solution.steps),
        "status": status.message,
        "energy": {"start": energies[0], "end": energies[-1]},
        "parameters": numbers,
    }


def _deep_prior(
    photo: _Photo, distribution: ColorDistribution, settings: Settings, progress: Progress | None
) -> tuple[Chroma, dict[str, Any]]:
    """The network is fitted to the photo at working size; to full size its chroma is led by the photo's edges."""
    # Here, not on top: optax comes with it, and the other methods start a quarter of a second sooner without.
    from jaxcolor.deep_prior.fit import fit_deep_prior
    from jaxcolor.deep_prior.objective import Losses
    from jaxcolor.deep_prior.presets import PRESETS

    name = settings.preset or ("fast" if jax.default_backend() == "cpu" else "paper")
    preset = PRESETS[name]
    small, notes = _working_size(photo, settings, preset.network.channels)
    steps = preset.steps if settings.prior_steps is None else settings.prior_steps
    total = steps + (0 if small is photo else settings.steps)

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
    if small is photo:
        return (jnp.asarray(fit.chroma[..., 0]), jnp.asarray(fit.chroma[..., 1])), report

    def tell_more(done: int, energy: float) -> None:
        if progress is not None:
            progress("solve", steps + done, total)

    chroma, solver = _led_by_edges(photo, fit.chroma[: small.height, : small.width], settings, tell_more)
    return chroma, report | {"solvers": [solver]}


def _working_size(photo: _Photo, settings: Settings, channels: int) -> tuple[_Photo, list[str]]:
    """The photo at the size at which it is fitted, and what there is to say about that."""
    # The padding of photos to shared sizes adds a quarter at this size, rarely more.
    most = fitting_pixels(channels) * 4 // 5
    if most < _LEAST_WORKING_SIDE**2:
        raise InputError("the deep prior needs more memory than is free; close other programs, or use another method")
    allowed = min(settings.working_side**2, most)
    scale = (allowed / (photo.height * photo.width)) ** 0.5
    if scale >= 1:
        return photo, []
    height, width = (max(1, round(scale * size)) for size in (photo.height, photo.width))
    lengths = zip((photo.height, photo.width), (height, width), photo.luminance.shape, strict=True)
    rows, columns = (resampling_matrix(size, new, padded=padded) for size, new, padded in lengths)
    luminance = np.clip(np.asarray(resample(photo.luminance, rows, columns)), 0, 100)
    why = "as large as memory allows" if allowed < settings.working_side**2 else "the working size"
    return _padded(luminance), [f"the deep prior was fitted at {width}×{height} pixels, {why}"]


def _led_by_edges(
    photo: _Photo, chroma: NDArray[np.float32], settings: Settings, progress: Callable[[int, float], None]
) -> tuple[Chroma, dict[str, Any]]:
    """Chroma of a smaller picture at full size: the coupled-TV problem whose one candidate is the enlarged chroma.

    With one candidate it is convex, and its color edges move onto those of the full-size luminance.
    """
    inside = (slice(photo.height), slice(photo.width))
    candidates = _enlarged(chroma, photo)[inside][:, :, None]
    problem = CoupledTVProblem(
        photo.luminance[inside],
        candidates,
        jnp.ones(candidates.shape[:3], candidates.dtype),
        fidelity=settings.fidelity,
        coupling=settings.coupling,
    ).padded_to((photo.luminance.shape[0], photo.luminance.shape[1]))
    solver = PrimalDual()
    solution = solve_in_chunks(problem, solver, steps=settings.steps, progress=progress)
    return solution.state.chroma, _solver_report(solver, solution)


_METHODS: dict[str, Callable[..., tuple[Chroma, dict[str, Any]]]] = {
    "cic": _annealed_mean,
    "coupled-tv": _coupled_tv,
    "deep-prior": _deep_prior,
}


def _merge(photo: _Photo, chroma: Chroma) -> tuple[NDArray[np.float32], NDArray[np.float32], dict[str, float]]:
    rgb, colors, measures = _to_rgb(photo.luminance, chroma, jnp.array([photo.height, photo.width]))
    inside = (slice(photo.height), slice(photo.width))
    shown, given = np.asarray(rgb)[inside], np.asarray(colors)[inside]
    if not np.isfinite(given).all():
        raise InputError("the colors of this photo are not finite; the weights may be damaged")
    return shown, given, {name: float(value) for name, value in measures.items()}


@jax.jit
def _to_rgb(
    luminance: jax.Array, chroma: Chroma, extent: jax.Array
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Chroma is scaled into the gamut, which keeps L* and hue; the measures count pixels inside the extent only."""
    colors = jnp.stack(chroma, -1)
    lab, scale = scale_chroma(jnp.concatenate([luminance[..., None], colors], -1))
    rgb = jnp.clip(lab_to_srgb(lab), 0, 1)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, luminance.shape, axis) for axis in (0, 1))
    inside = (row < extent[0]) & (column < extent[1])
    measures = {
        "out_of_gamut_share": jnp.mean(scale < 1, where=inside),
        "colorfulness": metrics.colorfulness(rgb, where=inside),
        "saturation": metrics.saturation(rgb, where=inside),
    }
    return rgb, colors, measures


def _settings(given: dict[str, Any]) -> Settings:
    known = [field.name for field in fields(Settings)]
    if unknown := sorted(set(given) - set(known)):
        raise InputError(f"colorize does not know {', '.join(unknown)}; settings are {', '.join(known)}")
    return Settings(**given)


def _as_gray(image: str | os.PathLike[str] | GrayImage | ArrayLike) -> GrayImage:
    if isinstance(image, GrayImage):
        return image
    if isinstance(image, (str, os.PathLike)):
        return read_gray(image)
    return GrayImage.from_array(image)


def _loaded(weights: str | os.PathLike[str] | None) -> CIC:
    # A folder of photos loads its weights once.
    return _load(None if weights is None else os.fspath(weights))


@lru_cache(maxsize=2)
def _load(weights: str | None) -> CIC:
    return CIC.load(weights)


class _Clock:
    """Seconds spent in each named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 4)
