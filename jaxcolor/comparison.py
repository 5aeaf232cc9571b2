"""Pictures side by side, with a line of text above each."""

import math
import os
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jaxcolor.color.spaces import lab_to_srgb
from jaxcolor.images import GrayImage, read_color, write_image
from jaxcolor.pipeline import ColorizationResult, read_out
from jaxcolor.resampling import resize

MAX_SIDE = 1024
_HEADER, _GAP, _MARGIN = 22, 6, 4


def side_by_side(pictures: Mapping[str, NDArray[np.float32]], max_side: int = MAX_SIDE) -> NDArray[np.float32]:
    """One picture ``[h, w, 3]`` of several RGB pictures of one size in [0, 1], shrunk to ``max_side`` if larger.

    Columns are at least as wide as their titles.

    >>> side_by_side({"a": np.zeros((10, 30, 3), np.float32), "b": np.ones((10, 30, 3), np.float32)}).shape
    (32, 66, 3)
    """
    panels = [_shrunk(rgb, max_side) for rgb in pictures.values()]
    font = ImageFont.load_default(size=13)
    height = panels[0].height
    width = max(panels[0].width, *(math.ceil(font.getlength(title)) + 2 * _MARGIN for title in pictures))
    sheet = Image.new("RGB", (len(panels) * (width + _GAP) - _GAP, height + _HEADER), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, panel) in enumerate(zip(pictures, panels, strict=True)):
        left = number * (width + _GAP)
        draw.text((left + _MARGIN, _MARGIN), title, fill="black", font=font)
        sheet.paste(panel, (left, _HEADER))
    return np.asarray(sheet, np.float32) / np.float32(255)


def write_comparison(
    path: str | os.PathLike[str],
    gray: GrayImage,
    result: ColorizationResult,
    truth: NDArray[np.float32] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the gray photo, the CIC baseline from the same distribution, the result, and the truth if known."""
    small = _gray_as_shown(gray)
    pictures = {"gray": _gray_rgb(small)}
    if result.report["method"] != "cic":
        pictures["cic"] = read_out(small, result.distribution, method="cic")
    pictures[result.report["method"]] = result.rgb
    if truth is not None:
        pictures["original"] = truth
    write_image(path, side_by_side(pictures), overwrite=overwrite)


def write_refinement(
    path: str | os.PathLike[str],
    gray: GrayImage,
    colored: str | os.PathLike[str],
    refined: NDArray[np.float32],
    overwrite: bool = False,
) -> None:
    """Write the gray photo, the colored one enlarged to its size, and the refined colors ``[H, W, 3]``."""
    small = _gray_as_shown(gray)
    given = np.clip(np.asarray(resize(read_color(colored), small.shape)), 0, 1)
    pictures = {"gray": _gray_rgb(small), "given": given, "refined": refined}
    write_image(path, side_by_side(pictures), overwrite=overwrite)


def _gray_as_shown(gray: GrayImage) -> GrayImage:
    """The photo at the size of a panel: what else is shown need not be made at full size."""
    width, height = _panel_size(gray.shape[1], gray.shape[0], MAX_SIDE)
    if (height, width) == gray.shape:
        return gray
    return GrayImage(np.clip(np.asarray(resize(gray.luminance, (height, width))), 0, 100))


def _panel_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(scale * width)), max(1, round(scale * height))


def _gray_rgb(gray: GrayImage) -> NDArray[np.float32]:
    lab = np.zeros((*gray.shape, 3), np.float32)
    lab[..., 0] = gray.luminance
    return np.clip(np.asarray(lab_to_srgb(jnp.asarray(lab))), 0, 1)


def _shrunk(rgb: NDArray[np.float32], max_side: int) -> Image.Image:
    image = Image.fromarray(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8))
    size = _panel_size(*image.size, max_side)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
