"""How the defaults of the coupled-TV method were found: ``python -m benchmarks.parameters [FOLDER]``.

Two experiments with a known truth. Without a folder, ``two-region``: the proof of concept of Mouzon et al. 2019
(figure 4), two flat colors with a curved edge between them. With a folder, its color photos: the study varies one
parameter after the other around the defaults, on every other photo, and reports the default and the best of each
on the other half. In both the true chroma, averaged on a grid and soft-encoded over the palette, is degraded
to imitate a network (:mod:`benchmarks.truth`), and must be brought back to full size. The study has the embedded
network's own distribution beside them.

The grid has as many cells as give photos of 512 pixels and 64 cells: one for ``--cell 8`` pixels. A photo of 2048
pixels has one for 32.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxcolor.coupled_tv as ctv
from jaxcolor import metrics
from jaxcolor.cic.predict import CIC
from jaxcolor.color.distribution import ENLIVENING, ColorDistribution
from jaxcolor.color.guidance import Guidance
from jaxcolor.coupled_tv.problem import DEFAULT_COUPLING, GUIDED_FIDELITY
from jaxcolor.images import GrayImage
from jaxcolor.pipeline import chroma_of
from jaxcolor.registration import registered
from jaxcolor.settings import Settings

from .truth import SETTINGS, distribution_of, halves, photo, photo_files, two_regions, wrong_share


@dataclass(frozen=True)
class Choice:
    """One setting of the method. ``spread`` 0 is bilinear interpolation of the probabilities, as in the paper;
    otherwise luminance leads, and ``difference`` and ``uncertainty`` count too. ``reduction`` divides the sides of the
    photo at whose size colors are selected."""

    fidelity: float = GUIDED_FIDELITY
    coupling: float = DEFAULT_COUPLING["lab"]
    weight_step: float = float(ctv.PrimalDual().weight_step)
    candidates: int = 10
    temperature: float = 1.0
    enlivening: float = ENLIVENING
    spread: float = float(Guidance().spread)
    difference: float = float(Guidance().difference)
    uncertainty: float = float(Guidance().uncertainty)
    steps: int = 500
    reduction: int = 1

    def chroma(self, luminance: np.ndarray, dist: ColorDistribution) -> jax.Array:
        """What the method makes of a distribution, ``[H, W, 2]``."""
        if self.reduction > 1:
            return self._chroma_by_pipeline(luminance, dist)
        guidance = Guidance(self.spread, self.difference, self.uncertainty) if self.spread else None
        sharpened = dist if self.temperature == 1 else dist.annealed(self.temperature)
        if guidance:
            sharpened, _ = registered(jnp.asarray(luminance), sharpened, luminance.shape)
            sharpened = sharpened.enlivened(self.enlivening)
        problem = ctv.CoupledTVProblem.from_distribution(
            luminance, sharpened, self.candidates, self.fidelity, self.coupling, guidance=guidance
        )
        return ctv.solve(problem, ctv.PrimalDual(weight_step=self.weight_step), self.steps).chroma

    def _chroma_by_pipeline(self, luminance: np.ndarray, dist: ColorDistribution) -> jax.Array:
        settings = {name: getattr(self, name) for name in ("fidelity", "coupling", "candidates", "steps")}
        settings["variant"] = "guided" if self.spread else "mouzon2019"
        side = round(math.sqrt(luminance.size) / self.reduction)
        return jnp.asarray(chroma_of(GrayImage(luminance), dist, refinement_steps=0, working_side=side, **settings))

    def changes(self) -> str:
        """What differs from the defaults."""
        changed = [f"{f.name} {getattr(self, f.name):g}" for f in fields(self) if getattr(self, f.name) != f.default]
        return ", ".join(changed) or "defaults"


AXES: dict[str, Sequence[float]] = {
    "fidelity": (0.01, 0.04),
    "coupling": (60.0, 1000.0),
    "weight_step": (0.0, 6e-5, 1.8e-4, 5e-4, 1e-3, 1.8e-3),
    "candidates": (5, 16),
    "temperature": (0.7,),
    "enlivening": (0.0, 0.3),
    "spread": (0.0, 0.3, 0.6, 0.9),
    "uncertainty": (30.0, 300.0, math.inf),
    "difference": (3.0, 8.0),
    "steps": (100, 1000),
    "reduction": (2, 4),
}


# The truth's distribution, clean and degraded, and the embedded network's, which knows no cell's size.
COLUMNS = (*SETTINGS, "network")


def bicubic(dist: ColorDistribution, shape: tuple[int, int]) -> np.ndarray:
    """The usual read-out: the mean color, up-sampled."""
    return np.asarray(jax.image.resize(dist.mean(), (*shape, 2), "cubic"))


@jax.jit
def errors(lab: jax.Array, chroma: jax.Array) -> jax.Array:
    """ΔE2000 within 4 pixels of the strongest 5 % of the truth's color steps, and everywhere; mean chroma."""
    difference = metrics.delta_e_2000(lab, jnp.concatenate([lab[..., :1], chroma], -1))
    band = metrics.near(metrics.edges(lab[..., 1:], 0.05), 4)
    return jnp.stack([jnp.mean(difference, where=band), difference.mean(), jnp.linalg.norm(chroma, axis=-1).mean()])


def study(files: list[Path], size: int, cell: int, choices: list[Choice]) -> np.ndarray:
    """Mean errors ``[choices + 1, columns, 3]`` over photos; the first row is bicubic."""
    net = CIC.load()
    rows = []
    for index, path in enumerate(files):
        lab = jnp.asarray(photo(path, size))
        light = np.clip(np.asarray(lab[..., 0]), 0, 100)
        dists = [
            distribution_of(np.asarray(lab[..., 1:]), degradation, grid=max(size // cell, 1), seed=index)
            for degradation in SETTINGS.values()
        ]
        for dist in (*dists, net.rebalanced(net.predict(light), Settings().rebalancing)):
            rows.append([errors(lab, bicubic(dist, light.shape))])
            rows[-1] += [errors(lab, choice.chroma(light, dist)) for choice in choices]
    return np.asarray(rows).reshape(len(files), len(COLUMNS), len(choices) + 1, 3).mean(0).swapaxes(0, 1)


def print_study(title: str, labels: Sequence[str], values: np.ndarray) -> None:
    """One line for every label; for each column band ΔE2000, ΔE2000 and mean chroma."""
    print(f"{title}: band ΔE2000, ΔE2000, chroma;  " + " | ".join(COLUMNS))
    for label, row in zip(labels, values, strict=True):
        print(" | ".join("{:7.3f}{:7.3f}{:7.2f}".format(*setting) for setting in row) + f"  {label}", flush=True)


def print_two_regions(size: int, cell: int, choices: list[Choice]) -> None:
    """Share of pixels on the wrong color and mean chroma error."""
    luminance, truth, colors = two_regions(size)
    dist = distribution_of(truth, replace(SETTINGS["degraded"], noise=0.0, wrong=0.0), grid=max(size // cell, 1))
    print("wrong color %, mean chroma error")
    results = {"bicubic": bicubic(dist, luminance.shape)}
    results |= {choice.changes(): choice.chroma(luminance, dist) for choice in choices}
    for label, chroma in results.items():
        error = np.linalg.norm(np.asarray(chroma) - truth, axis=-1).mean()
        print(f"{100 * wrong_share(chroma, truth, colors):7.3f} {error:7.3f}  {label}", flush=True)


def main() -> None:
    """Print one line per setting."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parameters", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="color photos; without it the two-region image")
    parser.add_argument("--number", type=int, default=8, help="photos to take, evenly spread over the folder")
    parser.add_argument("--size", type=int, default=192, help="side of the square pictures")
    parser.add_argument("--cell", type=int, default=8, help="pixels along a side of a cell of the grid")
    parser.add_argument("--axes", nargs="*", choices=list(AXES), default=list(AXES), help="parameters to vary")
    for field in fields(Choice):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    options = parser.parse_args()
    center = Choice(**{field.name: getattr(options, field.name) for field in fields(Choice)})
    if options.folder is None:
        print_two_regions(
            options.size, options.cell, [center, *(replace(center, **{a: v}) for a in options.axes for v in AXES[a])]
        )
        return
    chosen_on, reported_on = halves(photo_files(options.folder, options.number))
    best = [center]
    for axis in options.axes:
        tried = [center, *(replace(center, **{axis: v}) for v in AXES[axis] if v != getattr(center, axis))]
        values = study(chosen_on, options.size, options.cell, tried)
        print_study(f"{axis}, chosen on {len(chosen_on)} photos", ["bicubic", *(c.changes() for c in tried)], values)
        # The least sum of the four errors, each relative to bicubic's.
        best.append(tried[int((values[1:, :, :2] / values[:1, :, :2]).sum((1, 2)).argmin())])
    best = list(dict.fromkeys(best))
    values = study(reported_on, options.size, options.cell, best)
    print_study(f"reported on {len(reported_on)} photos", ["bicubic", *(c.changes() for c in best)], values)


if __name__ == "__main__":
    main()
