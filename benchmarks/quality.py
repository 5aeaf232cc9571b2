"""The halo benchmark: how well colors on a coarse grid are brought to the size of a photo, the network left out.

Of color photos the true chroma is averaged on a 64 by 64 grid and soft-encoded over the palette. In the setting "clean"
that is what the methods get; in "degraded" it is blurred and shifted as by a network that sees edges roughly, its
probabilities are noisy, and near color edges cells believe in other cells' colors. Every method must bring it back to
full size; the photo's own chroma is the truth. Without a folder, the sample photos of scikit-image.

Gray wins what measures bleeding, so read those columns beside the saturation, and beside the row "gray".
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcolor import metrics
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.gamut import scale_chroma
from jaxcolor.color.spaces import lab_to_srgb

from .machine import machine
from .truth import GRID, SETTINGS, distribution_of, photo, photo_files
from .upsamplers import METHODS, PEERS, SLOW

# Title and decimals; ↓ and ↑ say which direction is better.
COLUMNS = {
    "delta_e": ("ΔE2000 ↓", 3),
    "band_delta_e": ("band ΔE ↓", 3),
    "psnr": ("PSNR ↑", 2),
    "away_from_edges": ("away ↓", 3),
    "alignment": ("align. ↑", 3),
    "edge_width": ("width ↓", 2),
    "discrepancy": ("CDR ↑", 3),
    "saturation": ("saturat.", 3),
    "seconds": ("seconds", 2),
}
TRUTH = "truth"
Rows = dict[str, list[dict[str, float]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m benchmarks quality``."""
    parser.add_argument("folder", nargs="?", type=Path, help="color photos; without it scikit-image's samples")
    parser.add_argument(
        "--size", type=int, default=512, help="side of the central squares; 0: whole photos as they are"
    )
    parser.add_argument("--photos", type=int, help="how many, evenly spread over the folder; default: all")
    parser.add_argument("--grid", type=int, default=GRID, help="cells along a side; 64 as in the papers")
    parser.add_argument("--clusters", action="store_true", help="the cluster discrepancy ratio too; slow")
    parser.add_argument("--setting", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), help="default: all but deep-prior, which is slow"
    )
    parser.add_argument("--each", action="store_true", help="one line for every photo and method too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything, for machines")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="figures as PNG; needs matplotlib")
    parser.add_argument("--sheets", type=Path, metavar="FOLDER", help="pictures: one sheet for every photo and setting")


def run(options: argparse.Namespace) -> None:
    """Print one table for every setting."""
    chosen = options.methods or [name for name in METHODS if name not in SLOW]
    files = photo_files(options.folder, options.photos)
    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    result: dict[str, Any] = {"machine": machine(), "size": options.size, "photos": [f.name for f in files]}
    for setting in options.setting:
        rows: Rows = {}
        for index, path in enumerate(files):
            lab = photo(path, options.size or None)
            distribution = distribution_of(lab[..., 1:], SETTINGS[setting], options.grid, seed=index)
            pictures = measure_photo(lab, distribution, chosen, rows, options.clusters)
            if options.each:
                print(table(f"{setting}, {path.stem[:14]}", {name: row[-1:] for name, row in rows.items()}), flush=True)
            if options.sheets:
                write_sheet(options.sheets / f"{setting}-{path.stem}.png", pictures)
        print(table(f"{setting}, {len(files)} photos", rows))
        for key in ("band_delta_e", "delta_e"):
            if best := best_peer(rows, key):
                print(comparison("coupled-tv", best, rows, [key]), flush=True)
        result[setting] = rows
    if options.json:
        options.json.write_text(json.dumps(result))
    if options.plot:
        for path in plots({setting: result[setting] for setting in options.setting}, options.plot):
            print(path)


def plots(settings: dict[str, Rows], folder: Path) -> list[Path]:
    """Figures of everything measured; without gray, which errs so much more that the others could not be told apart."""
    from .drawings import draw_quality

    truth = means(next(iter(settings.values()))[TRUTH])
    titles = {key: title for key, (title, _) in COLUMNS.items() if key != "seconds" and np.isfinite(truth[key])}
    drawn = {
        setting: {
            name: {key: [photo[key] for photo in photos] for key in titles}
            for name, photos in rows.items()
            if photos and name not in (TRUTH, "gray")
        }
        for setting, rows in settings.items()
    }
    own = {key: truth[key] for key in ("away_from_edges", "alignment", "edge_width", "saturation")}
    pairs = []
    for setting, rows in settings.items():
        if best := best_peer(rows, "band_delta_e"):
            errors = [[photo["band_delta_e"] for photo in rows[name]] for name in (best, "coupled-tv")]
            pairs.append((f"{setting}: {best}", *errors))
    return draw_quality(titles, drawn, own, pairs, folder)


def measure_photo(
    lab: np.ndarray, distribution: ColorDistribution, methods: Iterable[str], rows: Rows, clusters: bool
) -> dict[str, np.ndarray]:
    """Add one row to each method's list; the pictures [H, W, 3] in [0, 1] by name, the truth among them."""
    luminance = np.ascontiguousarray(np.clip(lab[..., 0], 0, 100))
    pictures = {TRUTH: np.asarray(lab_to_srgb(jnp.asarray(lab))).clip(0, 1)}
    rows.setdefault(TRUTH, []).append(measures(lab, lab[..., 1:], clusters)[0] | {"seconds": 0.0})
    for name in methods:
        began = time.perf_counter()
        try:
            chroma = METHODS[name](luminance, distribution)
        except ImportError as error:
            if not rows.get(name):
                print(f"{name} is left out: it needs {error.name}")
            rows[name] = []
            continue
        seconds = time.perf_counter() - began
        values, pictures[name] = measures(lab, chroma, clusters)
        rows.setdefault(name, []).append(values | {"seconds": seconds})
    return pictures


def measures(lab: np.ndarray, chroma: np.ndarray, clusters: bool) -> tuple[dict[str, float], np.ndarray]:
    """The columns of the table, without seconds, and the picture: what is out of gamut is brought in first."""
    pictures = _pictures(jnp.asarray(lab), jnp.asarray(chroma))
    row = {name: float(measure(pictures)) for name, measure in MEASURES.items()} | {"discrepancy": float("nan")}
    if clusters:
        ratios = metrics.cluster_discrepancy_ratio(pictures.chroma, lab[..., 1:])
        row["discrepancy"] = float(np.mean(ratios))
    return row, np.asarray(pictures.rgb)


class Pictures(NamedTuple):
    """The truth and a picture of the same lightness, in Lab and in RGB, all ``[H, W, 3]``."""

    truth: jax.Array
    lab: jax.Array
    true_rgb: jax.Array
    rgb: jax.Array

    @property
    def light(self) -> jax.Array:
        return self.lab[..., 0]

    @property
    def chroma(self) -> jax.Array:
        return self.lab[..., 1:]


@jax.jit
def _pictures(truth: jax.Array, chroma: jax.Array) -> Pictures:
    lab, _ = scale_chroma(jnp.concatenate([truth[..., :1], chroma], -1))
    return Pictures(truth, lab, *(jnp.clip(lab_to_srgb(x), 0, 1) for x in (truth, lab)))


def _band_delta_e(p: Pictures) -> jax.Array:
    band = metrics.near(metrics.edges(p.truth[..., 1:], 0.05), 4)
    return jnp.mean(metrics.delta_e_2000(p.lab, p.truth), where=band)


# Each compiled apart: in one program XLA:CPU (jax 0.10) computes what they share many times over, and takes four times
# as long as for all of them.
MEASURES: dict[str, Callable[[Pictures], jax.Array]] = {
    "delta_e": jax.jit(lambda p: metrics.delta_e_2000(p.lab, p.truth).mean()),
    "band_delta_e": jax.jit(_band_delta_e),
    "psnr": jax.jit(lambda p: metrics.psnr(p.rgb, p.true_rgb)),
    "away_from_edges": jax.jit(lambda p: metrics.variation_away_from_edges(p.light, p.chroma)),
    "alignment": jax.jit(lambda p: metrics.alignment_gain(p.light, p.chroma, 240.0)),
    "edge_width": jax.jit(lambda p: metrics.edge_width(p.light, p.chroma)),
    "saturation": jax.jit(lambda p: metrics.saturation(p.rgb)),
}


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means over photos, of what is known; of the seconds the median, since the first call compiles."""
    mean = {}
    for key in COLUMNS:
        values = np.array([row[key] for row in rows])
        known = values[np.isfinite(values)]
        mean[key] = float(np.median(known) if key == "seconds" else known.mean()) if known.size else float("nan")
    return mean


def table(title: str, rows: Rows) -> str:
    """One line for every method."""
    lines = [title.ljust(24) + "".join(f"{name:>11}" for name, _ in COLUMNS.values())]
    for name, values in rows.items():
        if values:
            row = means(values)
            cells = (
                f"{row[key]:11.{digits}f}" if np.isfinite(row[key]) else f"{'–':>11}"
                for key, (_, digits) in COLUMNS.items()
            )
            lines.append(name.ljust(24) + "".join(cells))
    return "\n".join(lines)


def comparison(name: str, peer: str, rows: Rows, keys: Iterable[str]) -> str:
    """How far measures of ``name`` are from those of ``peer``, and on how many photos better, or more saturated.

    Mean differences with their standard errors over photos, both in percent of the mean of ``peer``. Unknown values are
    left out.
    """
    parts = []
    for key in keys:
        title = COLUMNS[key][0]
        ours, theirs = (np.array([row[key] for row in rows[of]]) for of in (name, peer))
        known = np.isfinite(ours) & np.isfinite(theirs)
        if not (count := np.sum(known)):
            continue
        differences = 100 * (ours - theirs)[known] / theirs[known].mean()
        error = differences.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        better = np.sum(differences < 0 if title.endswith("↓") else differences > 0)
        parts.append(f"{title.rstrip(' ↓↑')} {differences.mean():+.1f} ± {error:.1f} % ({better} of {count})")
    return f"{name} against {peer} (better on how many photos): {', '.join(parts)}"


def best_peer(rows: Rows, key: str) -> str | None:
    """The peer with the least mean of a measure; None where coupled-tv or all of its peers are missing."""
    peers = [name for name in PEERS if rows.get(name)] if rows.get("coupled-tv") else []
    return min(peers, key=lambda name: means(rows[name])[key], default=None)


def write_sheet(path: Path, pictures: dict[str, np.ndarray]) -> None:
    """All pictures of a photo side by side, in two rows, their names on them."""
    from PIL import Image, ImageDraw

    height, width = next(iter(pictures.values())).shape[:2]
    columns = -(-len(pictures) // 2)
    sheet = Image.new("RGB", (columns * width, 2 * height))
    for index, (name, rgb) in enumerate(pictures.items()):
        picture = Image.fromarray((255 * rgb).round().astype(np.uint8))
        ImageDraw.Draw(picture).text((4, 4), name, fill="white", stroke_width=2, stroke_fill="black")
        sheet.paste(picture, (index % columns * width, index // columns * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
