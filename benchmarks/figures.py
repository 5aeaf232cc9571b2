"""The figures of the two papers, computed anew from any weights and photos.

A: Mouzon, Pierre, Berger 2019. B: Agazzotti, Pierre, Sur 2023. Without a folder the photos are scikit-image's samples;
of every photo the central square is taken, and figures of one photo show the first. The deep prior takes minutes at
the published settings and size.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxcolor as jc
from jaxcolor.deep_prior import PRESETS, Preset
from jaxcolor.pipeline import chroma_of
from jaxcolor.plots import (
    displayed,
    entropy_figure,
    losses_figure,
    palette_figure,
    pictures_figure,
    saturation_figure,
)

from .timing import measure
from .truth import Degradation, distribution_of, photo, photo_files, two_regions, wrong_share


@dataclass(frozen=True, eq=False)
class Subject:
    """A photo in Lab ``[S, S, 3]`` and what a network and the methods make of its luminance, each computed once."""

    lab: np.ndarray
    net: jc.CIC
    preset: Preset

    @cached_property
    def gray(self) -> jc.GrayImage:
        return jc.GrayImage(np.clip(self.lab[..., 0], 0, 100))

    @cached_property
    def distribution(self) -> jc.ColorDistribution:
        return self.net.rebalanced(self.net.predict(self.gray.luminance))

    @cached_property
    def cic(self) -> np.ndarray:
        return chroma_of(self.gray, self.distribution, method="cic")

    @cached_property
    def coupled_tv(self) -> np.ndarray:
        return chroma_of(self.gray, self.distribution)

    @cached_property
    def fit(self) -> jc.DeepPriorFit:
        return self.fitted(self.preset)

    def fitted(self, preset: Preset) -> jc.DeepPriorFit:
        """The deep prior of this photo."""
        guide = self.coupled_tv if preset.guided else None
        return jc.fit_deep_prior(self.gray.luminance, self.distribution, preset=preset, guide=guide)

    def pictures(self, *methods: str) -> dict[str, np.ndarray]:
        """RGB ``[S, S, 3]``: gray, by every one of these :data:`METHODS`, and the photo itself."""
        shown = {name: METHODS[name](self) for name in methods} | {"photo": self.lab[..., 1:]}
        light = self.gray.luminance
        return {"gray": displayed(light)} | {name: displayed(light, chroma) for name, chroma in shown.items()}


# (a*, b*) [S, S, 2] of a photo.
METHODS: dict[str, Callable[[Subject], np.ndarray]] = {
    "CIC": lambda subject: subject.cic,
    "coupled TV": lambda subject: subject.coupled_tv,
    "deep prior": lambda subject: subject.fit.chroma,
}
PAPER_A = ("CIC", "coupled TV")


def saturation(subjects: Sequence[Subject]) -> Any:
    """A, figure 3: histogram of the saturation, the network's annealed mean against coupled TV."""
    pictures = subjects[0].pictures(*PAPER_A)
    return saturation_figure({name: pictures[name] for name in (*PAPER_A, "photo")})


def halo(subjects: Sequence[Subject]) -> Any:
    """A, figure 4: two regions, a curved border, colors known on a coarse grid; no network."""
    size = len(subjects[0].lab)
    luminance, truth, colors = two_regions(size)
    distribution = distribution_of(truth, Degradation(blur=1.2, shift=0.7), grid=size // 4)
    row = {"gray": displayed(luminance), "truth": displayed(luminance, truth)}
    for name, method in {"CIC": "cic", "coupled TV": "coupled-tv"}.items():
        chroma = chroma_of(jc.GrayImage(luminance), distribution, method=method)
        wrong = 100 * wrong_share(chroma, truth, colors)
        row[f"{name}: {wrong:.2f} % wrong"] = displayed(luminance, chroma)
    return pictures_figure([row])


def photos(subjects: Sequence[Subject]) -> Any:
    """A, figures 5 and 6: photos, from gray to the truth."""
    return pictures_figure([subject.pictures(*PAPER_A) for subject in subjects])


def times(subjects: Sequence[Subject]) -> str:
    """Seconds for one photo, compilation left out, beside those that the papers state for their machines."""
    subject, size = subjects[0], len(subjects[0].lab)
    network = measure(lambda: jax.block_until_ready(subject.net.predict(subject.gray.luminance)), 3).median
    once = replace(subject.preset, steps=1)
    color = {
        "CIC": measure(lambda: chroma_of(subject.gray, subject.distribution, method="cic"), 3),
        "coupled TV": measure(lambda: chroma_of(subject.gray, subject.distribution), 3),
        "deep prior": measure(lambda: subject.fitted(subject.preset), 1, before=lambda: subject.fitted(once)),
    }
    published = {"coupled TV": "about 15 (Matlab, CPU)", "deep prior": "162 (GTX 1060, 256², 2,000 steps)"}
    lines = [f"{f'{size}²':12s}{'seconds':>10s}   published"]
    lines += [f"{name:12s}{network + t.median:10.2f}   {published.get(name, '–')}" for name, t in color.items()]
    channels = subject.preset.network.channels
    return "\n".join([*lines, f"deep prior here: {subject.preset.steps} steps, {channels} channels"])


def captured(subjects: Sequence[Subject]) -> Any:
    """B, figure 2: a network fitted from noise alone, and what it makes of noise that it has not seen."""
    preset = subjects[0].preset
    if preset.guided:  # Its guide would show through.
        preset = replace(PRESETS["paper"], network=replace(preset.network, residual=False), steps=preset.steps)
    fit = subjects[0].fitted(preset)
    pictures = {"fitted": fit.picture}
    pictures |= {f"other noise {seed}": fit.sample(jax.random.key(seed)) for seed in (1, 2, 3)}
    return pictures_figure([{name: displayed(lab[..., 0], lab[..., 1:]) for name, lab in pictures.items()}])


def palette(subjects: Sequence[Subject]) -> Any:
    """B, figure 3: the colors among which the network chooses."""
    return palette_figure(subjects[0].distribution.palette)


def entropy(subjects: Sequence[Subject]) -> Any:
    """B, figure 4: where the network is undecided."""
    return entropy_figure(subjects[0].gray.luminance, subjects[0].distribution)


def losses(subjects: Sequence[Subject]) -> Any:
    """B, figure 6: the loss of the deep prior; dotted, the assignments."""
    fit = subjects[0].fit
    return losses_figure(fit.history, [step for step in range(fit.steps) if fit.preset.assigns_after(step)])


def chrominance(subjects: Sequence[Subject]) -> Any:
    """B, figure 7: chrominance alone, at L* = 50."""
    subject = subjects[0]
    chromas = {name: method(subject) for name, method in METHODS.items()} | {"photo": subject.lab[..., 1:]}
    return pictures_figure([{name: displayed(50.0, chroma) for name, chroma in chromas.items()}])


def comparison(subjects: Sequence[Subject]) -> Any:
    """B, figure 8: photos by every method."""
    return pictures_figure([subject.pictures(*METHODS) for subject in subjects])


FIGURES: dict[str, Callable[[Sequence[Subject]], Any]] = {
    "A3": saturation,
    "A4": halo,
    "A5": photos,
    "times": times,
    "B2": captured,
    "B3": palette,
    "B4": entropy,
    "B6": losses,
    "B7": chrominance,
    "B8": comparison,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m benchmarks figures``."""
    parser.add_argument("output", metavar="OUT", type=Path, help="a folder, made if it is not there")
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), default=list(FIGURES), help="default: all")
    parser.add_argument("--weights", metavar="NAME|PATH", help="default: the embedded compact network")
    parser.add_argument("--photos", metavar="FOLDER", type=Path, help="color photos; default: scikit-image's samples")
    parser.add_argument("--number", type=int, default=4, help="of photos (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="side of the squares (default: %(default)s)")
    parser.add_argument("--preset", choices=list(PRESETS), default="fast", help="of the deep prior (default: fast)")
    parser.add_argument("--prior-steps", type=int, help="of the deep prior; default: the preset's")
    parser.add_argument("--format", choices=("png", "jpg", "pdf"), default="png", help="default: %(default)s")


def run(options: argparse.Namespace) -> None:
    """Write a picture for every figure; the table is printed and written as text."""
    try:
        for name, least in (("number", 1), ("size", 16), ("prior_steps", 1)):
            if (value := getattr(options, name)) is not None and value < least:
                raise jc.InputError(f"--{name.replace('_', '-')} must be at least {least}; got {value}")
        _write(options)
    except (jc.InputError, OSError) as error:
        raise SystemExit(f"figures: error: {error}") from None


def _write(options: argparse.Namespace) -> None:
    preset = PRESETS[options.preset]
    if options.prior_steps is not None:
        preset = replace(preset, steps=options.prior_steps)
    subjects = study(options.weights, options.photos, options.number, options.size, preset)
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        drawn = FIGURES[name](subjects)
        if isinstance(drawn, str):
            print(drawn)
            (options.output / f"{name}.txt").write_text(drawn + "\n", encoding="utf-8")
        else:
            drawn.savefig(options.output / f"{name}.{options.format}", dpi=100)
        print(f"{name}: {FIGURES[name].__doc__}", flush=True)


def study(weights: str | None, folder: Path | None, number: int, size: int, preset: Preset) -> list[Subject]:
    """``number`` photos of a folder, of scikit-image without one, and the network; nothing is computed yet."""
    net = jc.CIC.load(weights)
    return [Subject(photo(path, size), net, preset) for path in photo_files(folder, number)]
