"""Pictures whose colors are known, and the distributions that a network would give for them at best."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcolor.cic.training.data import SUFFIXES
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.palette import ab_bins, soft_encode
from jaxcolor.color.spaces import srgb_to_lab
from jaxcolor.metrics import edges, near

GRID = 64


@dataclass(frozen=True)
class Degradation:
    """What separates a network's distribution from the soft-encoded truth.

    ``blur`` is the standard deviation of a Gaussian and ``shift`` a translation along both axes, in cells, as of a
    network that sees edges only roughly. ``noise`` is the standard deviation of the logarithm of every probability.
    ``wrong`` is the share of the probability that half of the cells near color edges give to the colors of some
    other cell of the picture.
    """

    blur: float = 0.0
    shift: float = 0.0
    noise: float = 0.0
    wrong: float = 0.0


SETTINGS = {"clean": Degradation(), "degraded": Degradation(blur=1.2, shift=0.7, noise=0.5, wrong=0.3)}


def distribution_of(
    chroma: np.ndarray,
    degradation: Degradation = SETTINGS["clean"],
    grid: int = GRID,
    neighbors: int = 5,
    seed: int = 0,
) -> ColorDistribution:
    """The distribution on ``grid`` by ``grid`` cells: ``chroma`` [H, W, 2] averaged, soft-encoded and degraded."""
    cells = jax.image.resize(jnp.asarray(chroma), (grid, grid, 2), "linear", antialias=True)
    palette = jnp.asarray(ab_bins(), jnp.float32)
    probabilities = np.asarray(soft_encode(cells, palette, neighbors))
    rng = np.random.default_rng(seed)
    if degradation.blur or degradation.shift:
        probabilities = _blurred(probabilities, degradation)
    if degradation.wrong:
        beside = np.asarray(near(edges(cells, 0.2), 1)) & (rng.random((grid, grid)) < 0.5)
        other = probabilities.reshape(grid * grid, -1)[rng.integers(0, grid * grid, (grid, grid))]
        mixed = (1 - degradation.wrong) * probabilities + degradation.wrong * other
        probabilities = np.where(beside[..., None], mixed, probabilities)
    if degradation.noise:
        probabilities = probabilities * np.exp(degradation.noise * rng.normal(size=probabilities.shape))
        probabilities = (probabilities / probabilities.sum(-1, keepdims=True)).astype(np.float32)
    return ColorDistribution(jnp.asarray(probabilities, jnp.float32), palette)


def _blurred(probabilities: np.ndarray, degradation: Degradation) -> np.ndarray:
    """Blur and shift in one matrix per axis: row i holds the shares of the cells that cell i sees."""
    position = np.arange(len(probabilities))
    seen = position[:, None] - degradation.shift - position
    taps = np.exp(-0.5 * (seen / max(degradation.blur, 1e-3)) ** 2)
    taps = (taps / taps.sum(1, keepdims=True)).astype(np.float32)
    return np.einsum("ij,jkq,lk->ilq", taps, probabilities, taps, optimize=True)


def two_regions(size: int = 256) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luminance [H, W], chroma [H, W, 2] and the two colors [2, 2]: a curved edge, a different gray on each side.

    The proof of concept of Mouzon et al. 2019, figure 4.
    """
    y, x = np.mgrid[:size, :size] / size
    right = x > 0.5 + 0.12 * np.sin(2 * np.pi * y)
    colors = np.array([[50.0, 30.0], [-30.0, -20.0]], np.float32)
    return np.where(right, 65, 40).astype(np.float32), colors[right.astype(int)], colors


def wrong_share(chroma: Any, truth: np.ndarray, colors: np.ndarray) -> float:
    """Share of pixels nearer to the other color."""
    nearest = ((np.asarray(chroma)[..., None, :] - colors) ** 2).sum(-1).argmin(-1)
    return float((np.abs(colors[nearest] - truth).max(-1) > 0).mean())


def photo(path: Path, size: int | None) -> np.ndarray:
    """A photo in Lab, [size, size, 3]: the central square, resized. None: whole, [H, W, 3] at its own size."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        colors = ImageOps.exif_transpose(image).convert("RGB")
        if size is not None:
            colors = ImageOps.fit(colors, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(srgb_to_lab(jnp.asarray(np.asarray(colors), jnp.float32) / 255))


def photo_files(folder: Path | None, number: int | None = None) -> list[Path]:
    """Color photos of a folder and those in it, evenly spread over their sorted paths; None: scikit-image's samples."""
    if folder is None:
        import skimage.data

        samples = Path(skimage.data.__file__).parent
        files = [samples / name for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")]
        files = [path for path in files if path.exists()]
    else:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise SystemExit(f"no photos in {folder}; give a folder with files that end in {', '.join(sorted(SUFFIXES))}")
    if number is None or number >= len(files):
        return files
    return [files[int(i)] for i in np.linspace(0, len(files) - 1, number)]


def halves(files: list[Path]) -> Iterator[list[Path]]:
    """Every other photo, and the rest: to choose on one half and report on the other."""
    yield files[::2]
    yield files[1::2]
