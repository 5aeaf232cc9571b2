"""How much damage to colors ``jc.refine`` undoes: ``python -m benchmarks.refine FOLDER [FOLDER …] [--most N]``.

The chroma of color photos at native size is damaged in ways that colorizers show, stored in 8 bits, and refined at the
default strength, beside OpenCV's guided filter and joint bilateral filter (``pip install
opencv-contrib-python-headless``), whose parameters are usual ones, not tuned. Printed: mean ΔE2000 within 4 pixels of
the strongest tenth of color edges ("band") and of the whole photo, before; their mean changes in percent; and the worst
change of one photo.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage

import jaxcolor as jc
from benchmarks.truth import photo_files
from benchmarks.upsamplers import bilateral, guided
from jaxcolor.color.spaces import lab_to_srgb, srgb_to_lab
from jaxcolor.images import read_color

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
    "blurred, shifted": lambda lab, chroma: shifted(lab, blurred(lab, chroma, 2.0)),
}


def restored(method: str, lab: Floats, damaged: Floats) -> Floats:
    """Lab of the damaged photo, uint8 [H, W, 3], after a method."""
    if method == "refine":
        rgb = np.asarray(jc.refine(lab[..., 0], jnp.asarray(damaged, jnp.float32) / 255))
        return lab_of(np.rint(rgb * 255))
    luminance, chroma = lab[..., 0], lab_of(damaged)[..., 1:]
    filtered = guided(luminance, chroma, 4, 10.0) if method == "guided" else bilateral(luminance, chroma, 4.0, 5.0)
    return lab_of(with_chroma(lab, filtered))


def errors(lab: Floats, truth: Floats) -> tuple[float, float]:
    """ΔE2000 near the truth's color edges, and everywhere."""
    band = jc.metrics.near(jc.metrics.edges(jnp.asarray(truth[..., 1:])), 4)
    difference = jc.metrics.delta_e_2000(jnp.asarray(lab), jnp.asarray(truth))
    return float(jnp.mean(difference, where=band)), float(difference.mean())


METHODS = ("refine", "guided", "joint bilateral")


def measure(path: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """For every damage the errors of the damaged photo ("damaged") and after every method."""
    truth = lab_of(np.rint(read_color(path) * 255))
    rows = {}
    for name, damage in DAMAGES.items():
        damaged = with_chroma(truth, damage(truth, truth[..., 1:]))
        results = {method: errors(restored(method, truth, damaged), truth) for method in METHODS}
        rows[name] = {"damaged": errors(lab_of(damaged), truth)} | results
    return rows


def table(photos: list[dict[str, dict[str, tuple[float, float]]]]) -> str:
    """One line per damage and one for the mean over all damages."""
    lines = [f"{'band / mean ΔE2000':20}{'damaged':>14}" + "".join(f"{m + ', % (worst)':>26}" for m in METHODS)]
    changes: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    for name in DAMAGES:
        values = {m: np.array([photo[name][m] for photo in photos]) for m in ("damaged", *METHODS)}
        before = values["damaged"]
        line = f"{name:20}" + "{:7.2f} /{:5.2f}".format(*before.mean(0))
        for method in METHODS:
            if name == "none":
                after = values[method]
                line += "{:13.2f} /{:5.2f} ({:.2f})".format(*after.mean(0), after[:, 1].max())
                continue
            change = 100 * (values[method] / before - 1)
            changes[method].append(change)
            line += "{:+12.1f} /{:+6.1f} ({:+.1f})".format(*change.mean(0), change[:, 1].max())
        lines.append(line)
    means = (
        "{:+12.1f} /{:+6.1f} ({:+.1f})".format(*np.mean(c, (0, 1)), np.max(c, (0, 1))[1]) for c in changes.values()
    )
    return "\n".join([*lines, f"{'mean of damages':34}" + "".join(means)])


def main() -> None:
    """Print the table; for the undamaged photos the errors themselves."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refine", description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="folders of color photos")
    parser.add_argument("--most", metavar="N", type=int, help="photos at most, evenly spaced")
    options = parser.parse_args()
    paths = [path for folder in options.folders for path in photo_files(folder)]
    if options.most is not None:
        paths = [paths[int(i)] for i in np.linspace(0, len(paths) - 1, min(options.most, len(paths)))]
    photos = []
    for path in paths:
        photos.append(measure(path))
        print(path.name, {name: np.round(row["refine"], 2).tolist() for name, row in photos[-1].items()}, flush=True)
    print(f"{len(photos)} photos\n{table(photos)}")


if __name__ == "__main__":
    main()
