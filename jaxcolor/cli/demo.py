"""``jaxcolor demo``: colorize the photo that comes with the package, offline."""

import argparse
from importlib.resources import files
from pathlib import Path
from typing import Any

from jaxcolor.cli.parsing import add_settings, progress_bar_wanted, settings_of

PHOTO = "demo.jpg"


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add ``demo`` to the command line."""
    parser = subparsers.add_parser("demo", help="colorize the bundled photo, offline")
    parser.add_argument("-o", "--output", metavar="FOLDER", type=Path, default=Path(), help="default: this folder")
    parser.add_argument("--weights", metavar="NAME|PATH", help="default: the embedded compact network")
    add_settings(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Write the picture and a comparison with the original, replacing those of an earlier demo; print a report."""
    settings = settings_of(args)
    import numpy as np
    from PIL import Image
    from tqdm import tqdm

    from jaxcolor.comparison import write_comparison
    from jaxcolor.images import read_gray
    from jaxcolor.pipeline import colorize

    args.output.mkdir(parents=True, exist_ok=True)
    photo = Path(str(files("jaxcolor"))) / "data" / PHOTO
    picture, comparison = args.output / "jaxcolor-demo.png", args.output / "jaxcolor-demo-compare.png"
    gray = read_gray(photo)
    with tqdm(unit="step", disable=not progress_bar_wanted(quiet=False), leave=False) as bar:

        def tell(stage: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_postfix_str(stage, refresh=False)
            bar.update(done - bar.n)

        result = colorize(
            gray,
            picture,
            weights=args.weights,
            overwrite=True,
            progress=tell,
            **settings,
        )
    with Image.open(photo) as original:
        truth = np.asarray(original.convert("RGB"), np.float32) / np.float32(255)
    write_comparison(comparison, gray, result, truth, overwrite=True)
    report = result.report
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in report["seconds"].items())
    print(f"picture        {picture}  ({report['width']}×{report['height']})")
    print(f"comparison     {comparison}")
    print(f"method         {report['method']}, {report['status']}")
    print(f"colorfulness   {report['colorfulness']:.1f} (gray: 0)   saturation {report['saturation']:.2f}")
    print(f"out of gamut   {100 * report['out_of_gamut_share']:.1f} % of pixels, brought back with L* and hue kept")
    print(f"seconds        {seconds}")
    return 0
