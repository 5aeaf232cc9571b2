"""How the defaults of the methods were found: two experiments with a known truth.

Without a folder, ``two-region``: the proof of concept of Mouzon et al. 2019 (figure 4), two flat colors with a curved
edge between them. With a folder, its color photos: the study varies one parameter after the other around the defaults,
on every other photo, and reports the default and the best of each on the other half. In both the true chroma, averaged
on a grid and soft-encoded over the palette, is degraded to imitate a network (:mod:`benchmarks.truth`), and must be
brought back to full size. The study has the embedded network's own distribution beside them.

The grid has as many cells as give photos of 512 pixels and 64 cells: one for ``--cell 8`` pixels. A photo of 2048
pixels has one for 32.
"""

import argparse
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import jaxcolor.coupled_tv as ctv
from jaxcolor import metrics
from jaxcolor.cic.predict import CIC
from jaxcolor.color.distribution import ENLIVENING, ColorDistribution
from jaxcolor.color.guidance import Guidance
from jaxcolor.coupled_tv.problem import DEFAULT_COUPLING, GUIDED_FIDELITY
from jaxcolor.deep_prior import SkipNetwork
from jaxcolor.deep_prior.presets import FAST
from jaxcolor.images import GrayImage
from jaxcolor.pipeline import chroma_of
from jaxcolor.registration import registered
from jaxcolor.settings import Settings

from .machine import machine
from .truth import SETTINGS, distribution_of, halves, photo, photo_files, two_regions, wrong_share


@dataclass(frozen=True)
class Choice(ABC):
    """One setting of a method; a field for each of its parameters."""

    @abstractmethod
    def chroma(self, luminance: np.ndarray, dist: ColorDistribution) -> Any:
        """What the method makes of a distribution, ``[H, W, 2]``."""

    def changes(self) -> str:
        """What differs from the defaults."""
        values = [(field, getattr(self, field.name)) for field in fields(self)]
        changed = (f"{field.name} {_short(value)}" for field, value in values if value != field.default)
        return ", ".join(changed) or "defaults"


@dataclass(frozen=True)
class CoupledTV(Choice):
    """``kernel`` brings the distribution to full size: "luminance" leads it, with ``spread``, ``difference`` and
    ``uncertainty``; "linear" interpolates, as in the paper, "nearest" and "cubic" likewise. ``reduction`` divides the
    sides of the photo at whose size colors are selected."""

    fidelity: float = GUIDED_FIDELITY
    coupling: float = DEFAULT_COUPLING["lab"]
    weight_step: float = float(ctv.PrimalDual().weight_step)
    candidates: int = 10
    temperature: float = 1.0
    enlivening: float = ENLIVENING
    kernel: str = "luminance"
    spread: float = float(Guidance().spread)
    difference: float = float(Guidance().difference)
    uncertainty: float = float(Guidance().uncertainty)
    steps: int = 500
    reduction: int = 1

    def chroma(self, luminance: np.ndarray, dist: ColorDistribution) -> jax.Array:
        """At full size, or by the pipeline, which leads colors from a smaller one."""
        if self.reduction > 1:
            return self._chroma_by_pipeline(luminance, dist)
        guided = self.kernel == "luminance"
        dist = dist if self.temperature == 1 else dist.annealed(self.temperature)
        if guided:
            dist, _ = registered(jnp.asarray(luminance), dist, luminance.shape)
            dist = dist.enlivened(self.enlivening)
        elif self.kernel != "linear":
            dist = _enlarged(dist, luminance.shape, self.kernel)
        guidance = Guidance(self.spread, self.difference, self.uncertainty) if guided else None
        problem = ctv.CoupledTVProblem.from_distribution(
            luminance, dist, self.candidates, self.fidelity, self.coupling, guidance=guidance
        )
        return ctv.solve(problem, ctv.PrimalDual(weight_step=self.weight_step), self.steps).chroma

    def _chroma_by_pipeline(self, luminance: np.ndarray, dist: ColorDistribution) -> jax.Array:
        settings = {name: getattr(self, name) for name in ("fidelity", "coupling", "candidates", "steps")}
        settings["variant"] = "guided" if self.kernel == "luminance" else "mouzon2019"
        side = round(math.sqrt(luminance.size) / self.reduction)
        return jnp.asarray(chroma_of(GrayImage(luminance), dist, refinement_steps=0, working_side=side, **settings))


@dataclass(frozen=True)
class DeepPrior(Choice):
    """Around the preset "fast", which begins at the coupled-TV solution: 0 steps are that."""

    fidelity: float = float(FAST.objective.fidelity)
    variation: float = float(FAST.objective.variation)
    coupling: float = float(FAST.objective.coupling)
    learning_rate: float = FAST.learning_rate
    decay: int = FAST.decay
    steps: int = FAST.steps
    channels: int = FAST.network.channels
    scales: int = FAST.network.scales

    def chroma(self, luminance: np.ndarray, dist: ColorDistribution) -> np.ndarray:
        """By the pipeline."""
        preset = replace(
            FAST,
            objective=replace(FAST.objective, fidelity=self.fidelity, variation=self.variation, coupling=self.coupling),
            network=SkipNetwork(self.channels, self.scales, residual=True),
            learning_rate=self.learning_rate,
            decay=self.decay,
            steps=self.steps,
        )
        return chroma_of(GrayImage(luminance), dist, method="deep-prior", preset=preset)


Axes = Mapping[str, Sequence[Any]]
METHODS: dict[str, tuple[type[Choice], Axes]] = {
    "coupled-tv": (
        CoupledTV,
        {
            "fidelity": (0.005, 0.01, 0.04, 0.08),
            "coupling": (0.0, 60.0, 1000.0),
            "weight_step": (0.0, 6e-5, 5e-4, 1.8e-3),
            "candidates": (2, 5, 16),
            "temperature": (0.7, 1.4),
            "enlivening": (0.0, 0.3),
            "kernel": ("nearest", "linear", "cubic"),
            "spread": (0.3, 0.6, 0.9),
            "difference": (3.0, 8.0),
            "uncertainty": (30.0, 300.0, math.inf),
            "steps": (100, 1000),
            "reduction": (2, 4),
        },
    ),
    "deep-prior": (
        DeepPrior,
        {
            "fidelity": (0.1, 10.0),
            "variation": (0.0, 1e-6, 2.5e-5),
            "coupling": (25.0, 400.0),
            "learning_rate": (2e-4, 5e-3),
            "decay": (0, 40),
            "steps": (0, 50, 200),
            "channels": (8, 32),
            "scales": (2, 4),
        },
    ),
}

# The truth's distribution, clean and degraded, and the embedded network's, which knows no cell's size.
COLUMNS = (*SETTINGS, "network")
MEASURES = ("band ΔE2000", "ΔE2000", "chroma")
BICUBIC = "bicubic"


def bicubic(dist: ColorDistribution, shape: tuple[int, int]) -> np.ndarray:
    """The usual read-out: the mean color, up-sampled."""
    return np.asarray(jax.image.resize(dist.mean(), (*shape, 2), "cubic"))


@jax.jit
def errors(lab: jax.Array, chroma: jax.Array) -> jax.Array:
    """ΔE2000 within 4 pixels of the strongest 5 % of the truth's color steps, and everywhere; mean chroma."""
    difference = metrics.delta_e_2000(lab, jnp.concatenate([lab[..., :1], chroma], -1))
    band = metrics.near(metrics.edges(lab[..., 1:], 0.05), 4)
    return jnp.stack([jnp.mean(difference, where=band), difference.mean(), jnp.linalg.norm(chroma, axis=-1).mean()])


def measured(files: Sequence[Path], size: int, cell: int, choices: Sequence[Choice]) -> dict[str, np.ndarray]:
    """Mean errors ``[columns, measures]`` over photos by what was changed, bicubic's among them."""
    net = CIC.load()
    rows = []
    for index, path in enumerate(tqdm(files, "photos", disable=None, leave=False)):
        lab = jnp.asarray(photo(path, size))
        light = np.clip(np.asarray(lab[..., 0]), 0, 100)
        dists = [
            distribution_of(np.asarray(lab[..., 1:]), degradation, grid=max(size // cell, 1), seed=index)
            for degradation in SETTINGS.values()
        ]
        for dist in (*dists, net.rebalanced(net.predict(light), Settings().rebalancing)):
            rows.append([errors(lab, bicubic(dist, light.shape))])
            rows[-1] += [errors(lab, choice.chroma(light, dist)) for choice in choices]
    values = np.asarray(rows).reshape(len(files), len(COLUMNS), len(choices) + 1, len(MEASURES)).mean(0)
    return dict(zip([BICUBIC, *(choice.changes() for choice in choices)], values.swapaxes(0, 1), strict=True))


def study(files: list[Path], size: int, cell: int, center: Choice, axes: Axes) -> dict[str, Any]:
    """Each axis varied around ``center`` on one half of the photos; that and the best of each axis on the other half.

    Returns plain values, ready for JSON: ``axes`` has the values of each axis, in order, and the label of each;
    ``chosen`` and ``reported`` the errors of each label, as of :func:`measured`.
    """
    lines = {
        axis: [replace(center, **{axis: value}) for value in sorted({*values, getattr(center, axis)})]
        for axis, values in axes.items()
    }
    chosen_on, reported_on = halves(files)
    chosen = measured(chosen_on, size, cell, _distinct([center, *(c for line in lines.values() for c in line)]))

    def relative(choice: Choice) -> float:
        """The sum of the errors, each relative to bicubic's; chroma is none."""
        return float((chosen[choice.changes()][:, :2] / chosen[BICUBIC][:, :2]).sum())

    best = [center, *(min(line, key=relative) for line in lines.values())]
    reported = measured(reported_on, size, cell, _distinct(best))
    return {
        "machine": machine(),
        "photos": {"chosen on": [path.name for path in chosen_on], "reported on": [path.name for path in reported_on]},
        "size": size,
        "cell": cell,
        "center": center.changes(),
        "axes": {axis: [[_short(getattr(c, axis)), c.changes()] for c in line] for axis, line in lines.items()},
        "chosen": {label: value.tolist() for label, value in chosen.items()},
        "reported": {label: value.tolist() for label, value in reported.items()},
    }


def table(title: str, rows: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """One line for every label; for each column its measures."""
    lines = [f"{title}: {', '.join(MEASURES)};  " + " | ".join(COLUMNS)]
    for label, row in rows.items():
        lines.append(" | ".join("{:7.3f}{:7.3f}{:7.2f}".format(*setting) for setting in row) + f"  {label}")
    return "\n".join(lines)


def print_two_regions(size: int, cell: int, choices: list[Choice]) -> None:
    """Share of pixels on the wrong color and mean chroma error."""
    luminance, truth, colors = two_regions(size)
    dist = distribution_of(truth, replace(SETTINGS["degraded"], noise=0.0, wrong=0.0), grid=max(size // cell, 1))
    print("wrong color %, mean chroma error")
    results = {BICUBIC: bicubic(dist, luminance.shape)}
    results |= {choice.changes(): choice.chroma(luminance, dist) for choice in choices}
    for label, chroma in results.items():
        error = np.linalg.norm(np.asarray(chroma) - truth, axis=-1).mean()
        print(f"{100 * wrong_share(chroma, truth, colors):7.3f} {error:7.3f}  {label}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m benchmarks parameters``."""
    names = "; ".join(f"{method}: {', '.join(axes)}" for method, (_, axes) in METHODS.items())
    parser.add_argument("folder", nargs="?", type=Path, help="color photos; without it the two-region image")
    parser.add_argument("--method", choices=list(METHODS), default="coupled-tv")
    parser.add_argument("--number", type=int, default=8, help="photos to take, evenly spread over the folder")
    parser.add_argument("--size", type=int, default=192, help="side of the square pictures")
    parser.add_argument("--cell", type=int, default=8, help="pixels along a side of a cell of the grid")
    parser.add_argument("--axes", nargs="*", metavar="NAME", help=f"parameters to vary; default: all. {names}")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="the center, where not the default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the study's values, for machines")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the study as a figure; needs matplotlib")
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> None:
    """Print one line per setting."""
    kind, every = METHODS[options.method]
    unknown = [name for name in options.axes or () if name not in every]
    if unknown:
        options.refuse(f"{options.method} has no axis {', '.join(unknown)}; choose from {', '.join(every)}")
    try:
        center = _with(kind(), options.set)
    except ValueError as error:
        options.refuse(str(error))
    axes = {name: every[name] for name in (every if options.axes is None else options.axes)}
    if options.folder is None:
        varied = [replace(center, **{axis: value}) for axis, values in axes.items() for value in values]
        print_two_regions(options.size, options.cell, [center, *varied])
        return
    files = photo_files(options.folder, options.number)
    if len(files) < 2:
        options.refuse("the study needs at least two photos, one to choose on and one to report on")
    result = study(files, options.size, options.cell, center, axes)
    for title, rows in (("chosen on", result["chosen"]), ("reported on", result["reported"])):
        print(table(f"{title} {len(result['photos'][title])} photos", rows), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        from .drawings import parameters_figure

        parameters_figure(result).savefig(options.plot, dpi=120)


def _with(choice: Choice, assignments: Sequence[str]) -> Choice:
    """A choice with ``NAME=VALUE`` set. Raises :class:`ValueError` for what is no field, or no value of it."""
    known = {field.name: type(field.default) for field in fields(choice)}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in known:
            raise ValueError(f"--set takes NAME=VALUE with a name of {', '.join(known)}; got {assignment!r}")
        try:
            choice = replace(choice, **{name: known[name](value)})
        except ValueError:
            raise ValueError(f"{name} must be {known[name].__name__}; got {value!r}") from None
    return choice


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _distinct(choices: Sequence[Choice]) -> list[Choice]:
    return list(dict.fromkeys(choices))


def _enlarged(dist: ColorDistribution, shape: tuple[int, ...], kernel: str) -> ColorDistribution:
    """The distribution interpolated to full size; the negative lobes of "cubic" are cut off."""
    large = jnp.maximum(jax.image.resize(dist.probabilities, (*shape, len(dist.palette)), kernel), 0)
    return replace(dist, probabilities=large / large.sum(-1, keepdims=True))
