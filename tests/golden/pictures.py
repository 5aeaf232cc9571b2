"""Small photos in color by every method, and the files that they are stored in.

The photos are samples of scikit-image, in the public domain or CC0: a portrait (NASA), a cat (Stéfan van der Walt), a
cup of coffee (Rachel Michetti) and a rocket (SpaceX).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import jaxcolor as jc
from benchmarks.truth import photo_files

PHOTOS = {path.stem: path for path in photo_files(None)}
LARGEST_SIDE = 64

Picture = NDArray[np.uint8]


def photo(name: str) -> Picture:
    """The photo in color, small."""
    with Image.open(PHOTOS[name]) as image:
        small = image.convert("RGB")
        small.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small)


def refined(truth: Picture) -> NDArray[np.float32]:
    """The photo after its colors were reduced four times and moved by two pixels."""
    height, width = truth.shape[:2]
    coarse = Image.fromarray(truth).resize((width // 4, height // 4), Image.Resampling.BOX)
    colors = np.roll(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)), 2, 1)
    return np.asarray(jc.refine(jc.GrayImage.from_array(truth), colors / np.float32(255)))


METHODS: dict[str, Callable[[Picture], NDArray[np.float32]]] = {
    "cic": lambda truth: jc.colorize(truth, method="cic").rgb,
    "coupled-tv": lambda truth: jc.colorize(truth).rgb,
    "mouzon2019": lambda truth: jc.colorize(truth, variant="mouzon2019").rgb,
    "deep-prior": lambda truth: jc.colorize(truth, method="deep-prior", preset="fast").rgb,
    "refine": refined,
}


def sheet(name: str) -> dict[str, Picture]:
    """What every method makes of a photo."""
    return {method: _bytes(run(photo(name))) for method, run in METHODS.items()}


def path_of(name: str) -> Path:
    """The file of a photo: its results below each other."""
    return Path(__file__).parent / f"{name}.png"


def write(path: Path, results: dict[str, Picture]) -> None:
    """Store the results of a photo."""
    Image.fromarray(np.concatenate(list(results.values()))).save(path, optimize=True)


def read(path: Path) -> dict[str, Picture]:
    """The stored results of a photo."""
    with Image.open(path) as image:
        return dict(zip(METHODS, np.split(np.asarray(image), len(METHODS)), strict=True))


def _bytes(rgb: NDArray[np.float32]) -> Picture:
    return (255 * np.clip(rgb, 0, 1)).round().astype(np.uint8)
