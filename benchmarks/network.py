"""How good the colors are, on color photos that the network has not seen.

    python -m benchmarks.network --photos FOLDER [--weights NAME|PATH] [--side 320]

Each photo is reduced to its lightness, colorized by both methods and compared with itself. Gray stands beside them:
it is hard to beat in PSNR and in error, because a wrong color costs more than none; colorfulness is where it loses.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxcolor as jc
from jaxcolor.color.spaces import lab_to_srgb, srgb_to_lab

MEASURES = ("ab RMSE", "PSNR", "ΔE2000", "colorfulness", "saturation")
SUFFIXES = {".jpg", ".jpeg", ".png"}


def measure(rgb: np.ndarray, truth: np.ndarray) -> list[float]:
    """The measures above of one picture."""
    lab, true = srgb_to_lab(jnp.asarray(rgb)), srgb_to_lab(jnp.asarray(truth))
    return [
        float(jnp.sqrt(((lab - true)[..., 1:] ** 2).mean())),
        float(jc.metrics.psnr(jnp.asarray(rgb), jnp.asarray(truth))),
        float(jc.metrics.delta_e_2000(lab, true).mean()),
        float(jc.metrics.colorfulness(jnp.asarray(rgb))),
        float(jc.metrics.saturation(jnp.asarray(rgb))),
    ]


def main() -> None:
    """Print one row per method: the mean over the photos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights")
    parser.add_argument("--side", type=int, default=320, help="photos are reduced to this longer side")
    parser.add_argument("--most", type=int, default=100, help="number of photos at most, evenly spaced")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet: gray, cic, coupled-tv, original")
    args = parser.parse_args()

    net = jc.CIC.load(args.weights)
    paths = sorted(path for path in args.photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    paths = paths[:: max(1, len(paths) // args.most)]
    rows: dict[str, list[list[float]]] = {"gray": [], "cic": [], "coupled-tv": [], "original": []}
    sheet = []
    for path in paths:
        with Image.open(path) as image:
            image.thumbnail((args.side, args.side), Image.Resampling.LANCZOS)
            truth = np.asarray(image.convert("RGB"), np.float32) / 255
        lab = np.array(srgb_to_lab(jnp.asarray(truth)))
        gray = jc.GrayImage(np.clip(lab[..., 0], 0, 100))
        lab[..., 1:] = 0
        result = jc.colorize(gray, weights=net)
        pictures = {
            "gray": np.clip(np.asarray(lab_to_srgb(jnp.asarray(lab))), 0, 1),
            "cic": jc.read_out(gray, result.distribution, method="cic"),
            "coupled-tv": result.rgb,
            "original": truth,
        }
        for name, rgb in pictures.items():
            rows[name].append(measure(rgb, truth))
        sheet.append(np.concatenate([_fit(rgb, args.side) for rgb in pictures.values()], 1))
    print(f"{len(paths)} photos".ljust(14) + "".join(f"{name:>14}" for name in MEASURES))
    for name, values in rows.items():
        print(f"{name:<14}" + "".join(f"{value:14.3f}" for value in np.mean(values, 0)))
    if args.sheet is not None:
        jc.write_image(args.sheet, np.concatenate(sheet), overwrite=True)


def _fit(rgb: np.ndarray, side: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    return np.pad(rgb, ((0, side - height), (0, side - width), (0, 0)), constant_values=1)


if __name__ == "__main__":
    main()
