"""How the defaults of the coupled-TV method were found: ``python -m benchmarks.parameters [--photos FOLDER]``.

Two experiments with a known truth. ``two-region`` is the proof of concept of Mouzon et al. 2019 (figure 4): two flat
colors with a curved edge between them. ``photos`` takes color photos of a folder. In both the true chroma, averaged on
a 64 by 64 grid, is soft-encoded over the palette, then blurred and shifted to imitate a network that sees edges
only roughly, and the methods must bring it back to full size.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcolor.coupled_tv as ctv
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.palette import ab_bins, soft_encode
from jaxcolor.color.spaces import srgb_to_lab
from jaxcolor.metrics import delta_e_2000

GRID = 64


def degraded_distribution(
    chroma: np.ndarray, blur: float = 1.2, shift: float = 0.7, neighbors: int = 5, grid: int = GRID
) -> ColorDistribution:
    """The distribution that a network would give at best: ``chroma`` [H, W, 2] averaged, encoded, blurred, shifted.

    ``blur`` is the standard deviation of a Gaussian and ``shift`` a translation along both axes, in cells.
    """
    cells = jax.image.resize(jnp.asarray(chroma), (grid, grid, 2), "linear", antialias=True)
    palette = jnp.asarray(ab_bins(), jnp.float32)
    probabilities = np.asarray(soft_encode(cells, palette, neighbors))
    if blur or shift:
        position = np.arange(grid)
        # Blur and shift in one matrix per axis: row i holds the shares of the cells that cell i sees.
        taps = np.exp(-0.5 * ((position[:, None] - shift - position) / max(blur, 1e-3)) ** 2) if blur else np.eye(grid)
        taps = (taps / taps.sum(1, keepdims=True)).astype(np.float32)
        probabilities = np.einsum("ij,jkq,lk->ilq", taps, probabilities, taps, optimize=True)
    return ColorDistribution(jnp.asarray(probabilities), palette)


def two_regions(size: int = 256) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luminance [H, W], chroma [H, W, 2] and the two colors [2, 2]: a curved edge, a different gray on each side."""
    y, x = np.mgrid[:size, :size] / size
    right = x > 0.5 + 0.12 * np.sin(2 * np.pi * y)
    colors = np.array([[50.0, 30.0], [-30.0, -20.0]], np.float32)
    return np.where(right, 65, 40).astype(np.float32), colors[right.astype(int)], colors


def wrong_share(chroma: Any, truth: np.ndarray, colors: np.ndarray) -> float:
    """Share of pixels nearer to the other color."""
    nearest = ((np.asarray(chroma)[..., None, :] - colors) ** 2).sum(-1).argmin(-1)
    return float((np.abs(colors[nearest] - truth).max(-1) > 0).mean())


def bicubic(dist: ColorDistribution, shape: tuple[int, int]) -> np.ndarray:
    """The usual read-out: the mean color, up-sampled."""
    return np.asarray(jax.image.resize(dist.mean(), (*shape, 2), "cubic"))


def photo(path: Path, size: int) -> np.ndarray:
    """A photo in Lab, [size, size, 3]: the central square, resized."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    return np.asarray(srgb_to_lab(jnp.asarray(np.asarray(square), jnp.float32) / 255))


def color_edges(chroma: np.ndarray, distance: int = 4) -> np.ndarray:
    """Pixels within ``distance`` of the strongest 5 % of chroma differences."""
    steps = np.zeros(chroma.shape[:2])
    steps[:, :-1] += ((chroma[:, 1:] - chroma[:, :-1]) ** 2).sum(-1)
    steps[:-1] += ((chroma[1:] - chroma[:-1]) ** 2).sum(-1)
    edges = np.pad(steps >= np.quantile(steps, 0.95), distance)
    for axis in (0, 1):
        edges = np.any([np.roll(edges, s, axis) for s in range(-distance, distance + 1)], 0)
    return edges[distance:-distance, distance:-distance]


def report(lab: np.ndarray, dist: ColorDistribution, settings: list[dict[str, float]], count: int) -> list[list[float]]:
    """ΔE2000 near color edges and everywhere, mean chroma: of bicubic, then of every setting."""
    band = color_edges(lab[..., 1:])
    problem = ctv.CoupledTVProblem.from_distribution(lab[..., 0], dist, candidates=count)
    results = [bicubic(dist, lab.shape[:2])]
    for s in settings:
        changed = problem.replace(fidelity=s["fidelity"], coupling=s["coupling"])
        solver = ctv.PrimalDual(weight_step=s["weight_step"])
        results.append(np.asarray(ctv.solve(changed, solver, int(s["steps"])).chroma))
    rows = []
    for chroma in results:
        error = np.asarray(delta_e_2000(jnp.asarray(lab), jnp.concatenate([lab[..., :1], chroma], -1)))
        rows.append(
            [float(error[band].mean()), float(error.mean()), float(np.hypot(*np.moveaxis(chroma, -1, 0)).mean())]
        )
    return rows


def main() -> None:
    """Print one line per setting."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parameters", description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of color photos; without it the two-region image")
    parser.add_argument("--number", type=int, default=6, help="photos to take, evenly spread over the folder")
    parser.add_argument("--size", type=int, default=256, help="side of the square photos")
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--neighbors", type=int, default=5, help="bins of the soft encoding")
    parser.add_argument("--clean", action="store_true", help="no blur and no shift")
    parser.add_argument("--fidelity", type=float, nargs="+", default=[0.01])
    parser.add_argument("--coupling", type=float, nargs="+", default=[240.0])
    parser.add_argument("--weight-step", type=float, nargs="+", default=[1.8e-4])
    parser.add_argument("--steps", type=int, nargs="+", default=[500])
    options = parser.parse_args()
    names = ("fidelity", "coupling", "weight_step", "steps")
    settings = [
        dict(zip(names, values, strict=True)) for values in itertools.product(*(getattr(options, n) for n in names))
    ]
    labels = ["bicubic", *(", ".join(f"{k} {v:g}" for k, v in s.items()) for s in settings)]
    amounts = {"blur": 0.0, "shift": 0.0} if options.clean else {}
    if options.photos is None:
        luminance, truth, colors = two_regions()
        dist = degraded_distribution(truth, neighbors=options.neighbors, **amounts)
        problem = ctv.CoupledTVProblem.from_distribution(luminance, dist, options.candidates)
        results = [bicubic(dist, luminance.shape)]
        for s in settings:
            changed = problem.replace(fidelity=s["fidelity"], coupling=s["coupling"])
            results.append(ctv.solve(changed, ctv.PrimalDual(weight_step=s["weight_step"]), int(s["steps"])).chroma)
        print("wrong color %, mean chroma error")
        for label, chroma in zip(labels, results, strict=True):
            error = np.linalg.norm(np.asarray(chroma) - truth, axis=-1).mean()
            print(f"{100 * wrong_share(chroma, truth, colors):7.3f} {error:7.3f}  {label}")
        return
    paths = sorted(p for p in options.photos.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    chosen = [paths[int(i)] for i in np.linspace(0, len(paths) - 1, options.number)]
    rows = []
    for path in chosen:
        lab = photo(path, options.size)
        dist = degraded_distribution(lab[..., 1:], neighbors=options.neighbors, **amounts)
        rows.append(report(lab, dist, settings, options.candidates))
    print("ΔE2000 near color edges, everywhere, mean chroma")
    for label, values in zip(labels, np.mean(rows, 0), strict=True):
        print(f"{values[0]:7.3f} {values[1]:7.3f} {values[2]:7.2f}  {label}")


if __name__ == "__main__":
    main()
