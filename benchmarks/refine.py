"""How much damage to colors ``jc.refine`` undoes.

The chroma of color photos at native size is damaged in ways that colorizers show, stored in 8 bits, and refined at the
default strength, beside OpenCV's guided filter and joint bilateral filter (``pip install
opencv-contrib-python-headless``), whose parameters are usual ones, not tuned. Printed: mean ΔE2000 within 4 pixels of
the strongest tenth of color edges ("band") and of the whole photo, before; their mean changes in percent; and the worst
change of one photo in ΔE2000 of the whole.
"""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage

import jaxcolor as jc
from jaxcolor.color.spaces import lab_to_srgb, srgb_to_lab
from jaxcolor.images import read_color
from jaxcolor.refinement import DEFAULT_STRENGTH

from .quality import write_sheet
from .truth import photo_files
from .upsamplers import bilateral, guided

Floats = np.ndarray
SHIFT = 6


def with_chroma(lab: Floats, chroma: Floats) -> Floats:
    """8-bit sRGB [H, W, 3] of the photo's L* and this chroma."""
    rgb = np.asarray(lab_to_srgb(jnp.concatenate([lab[..., :1], jnp.asarray(chroma, jnp.float32)], -1)))
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def lab_of(rgb: Floats) -> Floats:
    """Lab [H, W, 3] of 8-bit sRGB."""
    return np.asarray(srgb_to_lab(jnp.asarray(rgb, jnp.float32) / 255))


def reduced(lab: Floats, chroma: Floats) -> Floats:
    """Down-sampled 8 times and brought back bilinearly."""
    size = (max(1, chroma.shape[0] // 8), max(1, chroma.shape[1] // 8), 2)
    small = jax.image.resize(chroma, size, "linear", antialias=True)
    return np.asarray(jax.image.resize(small, chroma.shape, "linear"))


def blurred(lab: Floats, chroma: Floats, deviation: float = 4.0) -> Floats:
    """Under a Gaussian."""
    return ndimage.gaussian_filter(chroma, (deviation, deviation, 0), mode="nearest")


def shifted(lab: Floats, chroma: Floats, by: int = SHIFT) -> Floats:
    """Moved to the right."""
    return ndimage.shift(chroma, (0, by, 0), order=0, mode="nearest")


def compressed(lab: Floats, chroma: Floats) -> Floats:
    """JPEG, quality 40, chroma at half resolution."""
    file = io.BytesIO()
    Image.fromarray(with_chroma(lab, chroma)).save(file, "JPEG", quality=40)
    return lab_of(np.asarray(Image.open(file)))[..., 1:]


DAMAGES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "none": lambda lab, chroma: chroma,
    "reduced 8×": reduced,
    "blurred σ 4": blurred,
    "shifted 6": shifted,
    "JPEG 40": compressed,
    "reduced, JPEG": lambda lab, chroma: compressed(lab, reduced(lab, chroma)),
    "blurred, JPEG": lambda lab, chroma: compressed(lab, blurred(lab, chroma)),
    "blurred σ 2, shifted": lambda lab, chroma: shifted(lab, blurred(lab, chroma, 2.0)),
    "reduced, shifted": lambda lab, chroma: shifted(lab, reduced(lab, chroma)),
    "shifted, JPEG": lambda lab, chroma: compressed(lab, shifted(lab, chroma)),
}
METHODS = ("refine", "guided", "joint bilateral")
# (band, mean) after every method, and "damaged": before.
Row = dict[str, tuple[float, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m benchmarks refine``."""
    parser.add_argument("folder", nargs="?", type=Path, help="color photos; without it scikit-image's samples")
    parser.add_argument("--photos", type=int, help="how many, evenly spread over the folder; default: all")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME", help="default: all")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write every number of every photo there; photos already in it are kept",
    )
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="write a sheet of pictures for every photo there")


def run(options: argparse.Namespace) -> None:
    """Print the table; for the undamaged photos the errors themselves."""
    photos: dict[str, dict[str, Row]] = {}
    if options.json is not None and options.json.exists():
        photos = json.loads(options.json.read_text())
    for path in photo_files(options.folder, options.photos):
        if path.name in photos:
            continue
        photos[path.name], pictures = measure(path, options.methods)
        if options.sheets is not None:
            write_sheet(options.sheets / f"{path.stem}.png", pictures)
        worst = max(change(row, options.methods[0])[1] for name, row in photos[path.name].items() if name != "none")
        print(f"{path.name}: {options.methods[0]} at worst {worst:+.1f} %", flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(photos, ensure_ascii=False, indent=1))
    print(f"{len(photos)} photos\n{table(list(photos.values()), options.methods)}")


@partial(jax.jit, static_argnames="strength")
def refined(luminance: jax.Array, rgb: jax.Array, strength: float = DEFAULT_STRENGTH) -> jax.Array:
    """``jc.refine``, compiled once for every size."""
    return jc.refine(luminance, rgb, strength=strength)


def restored(method: str, lab: Floats, damaged: Floats) -> Floats:
    """Lab of the damaged photo, uint8 [H, W, 3], after a method."""
    if method == "refine":
        return lab_of(np.rint(255 * np.asarray(refined(lab[..., 0], jnp.asarray(damaged, jnp.float32) / 255))))
    luminance, chroma = lab[..., 0], lab_of(damaged)[..., 1:]
    filtered = guided(luminance, chroma, 4, 10.0) if method == "guided" else bilateral(luminance, chroma, 4.0, 5.0)
    return lab_of(with_chroma(lab, filtered))


def errors(lab: Floats, truth: Floats) -> tuple[float, float]:
    """ΔE2000 near the truth's color edges, and everywhere."""
    band, mean = _errors(lab, truth)
    return float(band), float(mean)


@jax.jit
def _errors(lab: jax.Array, truth: jax.Array) -> tuple[jax.Array, jax.Array]:
    band = jc.metrics.near(jc.metrics.edges(truth[..., 1:]), 4)
    difference = jc.metrics.delta_e_2000(lab, truth)
    return jnp.mean(difference, where=band), difference.mean()


def measure(path: Path, methods: Sequence[str] = METHODS) -> tuple[dict[str, Row], dict[str, Floats]]:
    """For every damage the errors before ("damaged") and after every method; and pictures, before and after."""
    truth = lab_of(np.rint(read_color(path) * 255))
    rows, before, after = {}, {}, {}
    for name, damage in DAMAGES.items():
        damaged = with_chroma(truth, damage(truth, truth[..., 1:]))
        results = {method: restored(method, truth, damaged) for method in methods}
        rows[name] = {method: errors(lab, truth) for method, lab in {"damaged": lab_of(damaged), **results}.items()}
        before[name] = damaged / np.float32(255)
        after[f"{name}: {methods[0]}"] = np.clip(np.asarray(lab_to_srgb(results[methods[0]])), 0, 1)
    return rows, before | after


def change(row: Row, method: str) -> Floats:
    """Percent by which (band, mean) change."""
    return 100 * (np.array(row[method]) / np.maximum(row["damaged"], 1e-6) - 1)


def table(photos: list[dict[str, Row]], methods: Sequence[str] = METHODS) -> str:
    """One line per damage and one for the mean over all damages."""
    lines = [f"{'band / mean ΔE2000':22}{'damaged':>14}" + "".join(f"{m + ', % (worst)':>27}" for m in methods)]
    changes = np.array([[[change(p[name], m) for m in methods] for p in photos] for name in DAMAGES if name != "none"])
    for name, line_of in zip(DAMAGES, [None, *changes], strict=True):
        line = f"{name:22}" + "{:7.2f} /{:5.2f}".format(*np.mean([p[name]["damaged"] for p in photos], 0))
        for index, method in enumerate(methods):
            if line_of is None:
                after = np.array([p[name][method] for p in photos])
                line += "{:13.2f} /{:6.2f} ({:.2f})".format(*after.mean(0), after[:, 1].max())
            else:
                line += "{:+12.1f} /{:+6.1f} ({:+.1f})".format(*line_of[:, index].mean(0), line_of[:, index, 1].max())
        lines.append(line)
    line = f"{'mean of damages':36}"
    for index in range(len(methods)):
        over = changes[:, :, index]
        line += "{:+12.1f} /{:+6.1f} ({:+.1f})".format(*over.mean((0, 1)), over[..., 1].max())
    return "\n".join([*lines, line])
