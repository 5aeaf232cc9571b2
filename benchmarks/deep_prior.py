"""What the deep prior costs and what it gives, on color photos that the network has not seen.

Three parts. "step": seconds of a step of Adam beside the same step in PyTorch. "curve": the loss against steps and
seconds, on the first photo, without compilation. "colors": for every photo the deep prior beside the network alone and
the solver, from one distribution; gray wins what measures bleeding, so read those columns beside the saturation.

Losses of two presets can be compared if they have one objective and one target: with --one-loss all are fitted with the
paper's objective and the distribution's mean color, and keep it. Without, a preset does what it is meant to, and its
loss falls at each assignment of colors, however good they are. For a grid of other than 64 cells choose --resolution.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import jaxcolor as jc
from jaxcolor.cic.predict import CIC
from jaxcolor.constants import RESOLUTION
from jaxcolor.deep_prior import PRESETS, Objective, Preset, fit_deep_prior
from jaxcolor.pipeline import chroma_of

from . import prior
from .machine import machine
from .quality import TRUTH, Rows, comparison, measures, table, write_sheet
from .truth import photo, photo_files

PARTS = ("step", "curve", "colors")
PEERS = ("cic", "coupled-tv")
COMPARED = ("away_from_edges", "alignment", "edge_width", "band_delta_e", "saturation")
PAPER, FAST = PRESETS["paper"], PRESETS["fast"]
VARIATION, SMOOTHING = FAST.objective.variation, FAST.objective.smoothing
# Presets with one choice changed each: what the numbers of "fast" were chosen among.
VARIANTS = PRESETS | {
    "paper, 16 channels": replace(PAPER, network=replace(PAPER.network, channels=16)),
    "fast, from the mean": replace(FAST, start="mean"),
    "fast, assigned": replace(FAST, assign_from=40, assign_every=20),
    "fast, from the mean, assigned": replace(FAST, start="mean", assign_from=40, assign_every=20),
    # The loss of "paper", and steps that are large enough for the luminance, which may change in it.
    "fast, the paper's loss": replace(FAST, objective=Objective(), learning_rate=2e-2, decay=40),
    "fast, drawn whole": replace(FAST, network=replace(FAST.network, residual=False)),
    "fast, unguided": replace(FAST, network=replace(FAST.network, residual=False), guided=False, start="mean"),
    "fast, 8 channels": replace(FAST, network=replace(FAST.network, channels=8)),
    "fast, 32 channels": replace(FAST, network=replace(FAST.network, channels=32)),
    "fast, 5 scales": replace(FAST, network=replace(FAST.network, scales=5)),
    "fast, 50 steps": replace(FAST, steps=50, decay=50),
    "fast, 200 steps": replace(FAST, steps=200, decay=200),
    "fast, half the rate": replace(FAST, learning_rate=FAST.learning_rate / 2),
    "fast, twice the rate": replace(FAST, learning_rate=2 * FAST.learning_rate),
    "fast, half the variation": replace(FAST, objective=replace(FAST.objective, variation=VARIATION / 2)),
    "fast, twice the variation": replace(FAST, objective=replace(FAST.objective, variation=2 * VARIATION)),
    "fast, four times the variation": replace(FAST, objective=replace(FAST.objective, variation=4 * VARIATION)),
    "fast, ten times the smoothing": replace(FAST, objective=replace(FAST.objective, smoothing=10 * SMOOTHING)),
}


@dataclass(frozen=True)
class Curve:
    """The three parts of the loss before each step, the seconds at which the step began, and the seconds in all."""

    parts: list[list[float]]
    seconds: list[float]
    end: float

    @property
    def loss(self) -> np.ndarray:
        """The whole loss before each step."""
        return np.sum(self.parts, axis=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m benchmarks deep-prior``."""
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help="color photos")
    parser.add_argument("--number", type=int, default=8, help="photos, evenly spread over the folder")
    parser.add_argument("--size", type=int, default=256, help="side of the central squares")
    parser.add_argument("--resolution", type=int, default=RESOLUTION, help="side of what the color network sees")
    parser.add_argument("--presets", nargs="+", choices=list(VARIANTS), default=["fast"], metavar="NAME")
    parser.add_argument("--prior-steps", type=int, metavar="N", help="of Adam; default: the preset's")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--one-loss", action="store_true", help="curves of the paper's objective, with the mean color as only target"
    )
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="of every curve")
    parser.add_argument("--weights", help="of the color network")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves; needs matplotlib")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything, for machines")
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="pictures: one sheet for every photo")


def run(options: argparse.Namespace) -> None:
    """Print the tables."""
    files = photo_files(options.photos, options.number)
    net = CIC.load(options.weights)
    presets = {name: VARIANTS[name] for name in options.presets}
    if options.prior_steps is not None:
        presets = {name: replace(preset, steps=options.prior_steps) for name, preset in presets.items()}
    result: dict[str, Any] = {"machine": machine(), "size": options.size, "photos": [file.name for file in files]}

    def keep() -> None:
        if options.json:
            options.json.write_text(json.dumps(result))

    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    if "step" in options.parts:
        result["step"] = {}
        for name, preset in presets.items():
            print(made := prior.step(name, preset, options.size, prior.peer(preset, options.size)), flush=True)
            result["step"][name] = made.plain()
            keep()
    if "curve" in options.parts:
        scene = Scene.of(files[0], net, options)
        curves = {name: curve(name, scene, preset, options) for name, preset in presets.items()}
        result["curve"] = {name: asdict(line) for name, line in curves.items()}
        if options.plot:
            figure(curves).savefig(options.plot, dpi=120)
        keep()
    if "colors" in options.parts:
        result["colors"] = {}
        for rows in print_colors(files, net, presets, options):
            result["colors"] = rows
            keep()


@dataclass(frozen=True)
class Scene:
    """A photo in Lab, its luminance as an image, and what the color network says of it."""

    lab: np.ndarray
    gray: jc.GrayImage
    distribution: jc.ColorDistribution

    @classmethod
    def of(cls, path: Path, net: CIC, options: argparse.Namespace) -> "Scene":
        """Read a photo."""
        lab = photo(path, options.size)
        gray = jc.GrayImage(np.ascontiguousarray(np.clip(lab[..., 0], 0, 100)))
        return cls(lab, gray, net.rebalanced(net.predict(gray.luminance, options.resolution)))

    def chroma(self, method: str) -> np.ndarray:
        """What another method makes of it."""
        return chroma_of(self.gray, self.distribution, method=method)

    def fitted(self, preset: Preset, guide: np.ndarray) -> np.ndarray:
        """What a preset makes of it."""
        return fit_deep_prior(self.gray.luminance, self.distribution, preset=preset, guide=guide).chroma


def curve(name: str, scene: Scene, preset: Preset, options: argparse.Namespace) -> Curve:
    """Fit and print the loss, about twenty lines; the first step, which compiles, is not timed."""
    if options.one_loss:
        preset = replace(preset, objective=Objective(), start="mean", assign_from=None)
    guide = scene.chroma("coupled-tv") if preset.guided else None
    light, dist = scene.gray.luminance, scene.distribution
    begin = fit_deep_prior(light, dist, preset=preset, guide=guide, steps=1)
    marks, start = [(1, 0.0)], time.perf_counter()
    fit = fit_deep_prior(
        light,
        dist,
        preset=preset,
        guide=guide,
        init=begin,
        steps=preset.steps - 1,
        time_limit=options.time_limit,
        progress=lambda done, *parts: marks.append((done, time.perf_counter() - start)),
    )
    seconds = np.interp(np.arange(fit.steps), *zip(*marks, strict=True))
    line = Curve(fit.history.tolist(), seconds.tolist(), marks[-1][1])
    print(f"{name}: {fit.message()}, {line.end:.1f} s")
    print(f"{'step':>8}{'seconds':>10}{'loss':>12}{'color':>12}{'luminance':>12}{'variation':>12}")
    for i in sorted({*range(0, fit.steps, max(1, fit.steps // 20)), fit.steps - 1}):
        numbers = (line.loss[i], *line.parts[i])
        print(f"{i:8d}{line.seconds[i]:10.1f}" + "".join(f"{x:12.3e}" for x in numbers), flush=True)
    return line


def figure(curves: dict[str, Curve]) -> Any:
    """The loss of every preset against seconds, and with its parts against steps."""
    from jaxcolor.plots import new_figure

    drawing = new_figure(11, 4.5)
    by_time, by_step = drawing.subplots(1, 2, sharey=True)
    for number, (name, line) in enumerate(curves.items()):
        color = f"C{number}"
        by_time.plot(line.seconds, line.loss, color=color, linewidth=1, label=name)
        by_step.plot(line.loss, color=color, linewidth=1, label=f"{name}: loss")
        for part, style in zip(np.transpose(line.parts), ("dotted", "dashed", "dashdot"), strict=True):
            by_step.plot(part, color=color, linewidth=0.8, linestyle=style)
    for style, part in zip(("dotted", "dashed", "dashdot"), ("color", "luminance", "variation"), strict=True):
        by_step.plot([], color="gray", linestyle=style, label=part)
    # A part that begins at 0, up to rounding, would take most of the height.
    lowest = 1e-6 * min(line.loss.min() for line in curves.values())
    by_time.set(xlabel="seconds", ylabel="loss", yscale="log", xscale="symlog", xlim=(0, None), ylim=(lowest, None))
    by_step.set(xlabel="step")
    for axes in (by_time, by_step):
        axes.legend()
        axes.grid(alpha=0.4)
    return drawing


def print_colors(
    files: Iterable[Path], net: CIC, presets: dict[str, Preset], options: argparse.Namespace
) -> Iterator[Rows]:
    """One line for every photo and method, then the means, and how far and how often a preset is better.

    Yields all rows so far after every photo.
    """
    rows: Rows = {}
    for path in files:
        scene, pictures = Scene.of(path, net, options), {}

        def add(name: str, chroma: np.ndarray, began: float, scene: Scene = scene, to: Any = pictures) -> None:
            values, to[name] = measures(scene.lab, chroma, False)
            rows.setdefault(name, []).append(values | {"seconds": time.perf_counter() - began})

        add(TRUTH, scene.lab[..., 1:], time.perf_counter())
        for method in PEERS:
            began = time.perf_counter()
            add(method, chroma := scene.chroma(method), began)
        for name, preset in presets.items():
            began = time.perf_counter()
            add(name, scene.fitted(preset, chroma), began)
        print(table(path.stem[:20], {name: row[-1:] for name, row in rows.items()}), flush=True)
        if options.sheets:
            write_sheet(options.sheets / f"{path.stem}.png", pictures)
        yield rows
    print(table(f"mean of {len(rows[TRUTH])} photos", rows))
    for name in presets:
        for peer in PEERS:
            print(comparison(name, peer, rows, COMPARED))
