"""``jaxcolor evaluate``: how good the colors are, on photos that the network has not seen."""

import argparse
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcolor.cli.parsing import EXIT_FAILURE, progress_bar_wanted
from jaxcolor.cli.targets import check_target, write_report
from jaxcolor.constants import INPUT_MULTIPLE, RESOLUTION

if TYPE_CHECKING:
    import numpy as np

    from jaxcolor.cic.predict import CIC
    from jaxcolor.evaluation import Evaluation

SHEET_ROWS = 40


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add ``evaluate`` to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure the colors on folders of color photos",
        description="Colorize the lightness of color photos and compare with their colors. Photos are squeezed to "
        "squares, as in the literature. The calibrated logit scale comes with the weights, from photos held out of "
        "their training; the fitted one suits these photos best.",
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="folders of color photos")
    parser.add_argument("--weights", metavar="NAME|PATH", help="default: the embedded compact network")
    parser.add_argument("--side", type=int, default=RESOLUTION, help="of the squares in pixels (default: %(default)s)")
    parser.add_argument("--most", metavar="N", type=int, help="photos at most, evenly spaced (default: all)")
    parser.add_argument("--coupled-tv", action="store_true", help="also the coupled-TV method: seconds a photo")
    parser.add_argument("--json", metavar="FILE.json", type=Path, help="everything measured, for machines")
    parser.add_argument(
        "--plots", metavar="FOLDER", type=Path, help="reliability and measures (needs: pip install 'jaxcolor[plot]')"
    )
    parser.add_argument(
        "--sheet", metavar="FILE", type=Path, help=f"contact sheet of at most {SHEET_ROWS} photos, evenly spaced"
    )
    parser.add_argument(
        "--calibrate",
        metavar="OUT.safetensors",
        type=Path,
        help="write the network with the logit scale that makes its distribution calibrated on these photos",
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Print the table and write what was asked for; returns 1 when a file was not readable."""
    _check(args)
    # Here, not on top: a wrong option is answered at once, before JAX is loaded.
    from jaxcolor.cic.predict import CIC
    from jaxcolor.cic.training.data import GRAY, load_photos

    if args.plots is not None:
        from jaxcolor.plots import PLOTS, new_figure

        # Whatever is missing is missed now, not after the work.
        new_figure(1, 1)
        args.plots.mkdir(parents=True, exist_ok=True)
        for name in PLOTS:
            check_target(args.plots / name, "a plot", "--plots", args.force)
    net = CIC.load(args.weights)
    photos = load_photos(args.folders, side=args.side, most=args.most)
    for path, reason in photos.rejected.items():
        print(f"left out: {path}: {reason}", file=sys.stderr)
    evaluation, sheet = _evaluate(net, photos.images, args)
    print(evaluation.table(), flush=True)
    if args.json is not None:
        write_report(args.json, evaluation.as_dict() | {"left_out": photos.rejected})
    if args.calibrate is not None:
        _write_calibrated(net, evaluation, args.calibrate)
    if args.plots is not None:
        from jaxcolor.plots import write_plots

        write_plots(evaluation, args.plots)
    if args.sheet is not None:
        import numpy as np

        from jaxcolor.images import write_image

        write_image(args.sheet, np.concatenate(sheet), overwrite=args.force)
    return EXIT_FAILURE if any(reason != GRAY for reason in photos.rejected.values()) else 0


def _check(args: argparse.Namespace) -> None:
    """End the program with code 2 for a bad option; raise for places that cannot be written."""
    checks = {
        f"--side must be a multiple of {INPUT_MULTIPLE} and at least {2 * INPUT_MULTIPLE}; got {args.side}": (
            args.side >= 2 * INPUT_MULTIPLE and args.side % INPUT_MULTIPLE == 0
        ),
        f"--most must be at least 1; got {args.most}": args.most is None or args.most >= 1,
        f"--json must end in .json; got {args.json}": args.json is None or args.json.suffix == ".json",
        f"--calibrate must end in .safetensors; got {args.calibrate}": (
            args.calibrate is None or args.calibrate.suffix == ".safetensors"
        ),
    }
    for message, holds in checks.items():
        if not holds:
            args.parser.error(message)
    targets = {"--json": "the report", "--sheet": "the contact sheet", "--calibrate": "weights"}
    for option, what in targets.items():
        if (path := getattr(args, option[2:])) is not None:
            check_target(path, what, option, args.force)
    if args.sheet is not None:
        from jaxcolor.images import check_output

        check_output(args.sheet, overwrite=args.force)


def _evaluate(
    net: "CIC", photos: "list[np.ndarray]", args: argparse.Namespace
) -> "tuple[Evaluation, list[np.ndarray]]":
    """What is measured, and the rows of the contact sheet if one is wanted."""
    from tqdm import tqdm

    from jaxcolor.comparison import side_by_side
    from jaxcolor.evaluation import Pictures, evaluate

    shown = {i * len(photos) // SHEET_ROWS for i in range(SHEET_ROWS)} if args.sheet is not None else set()
    sheet: list[np.ndarray] = []
    numbers = count()
    with tqdm(total=len(photos), unit="photo", disable=not progress_bar_wanted(quiet=False), leave=False) as bar:

        def watch(pictures: Pictures) -> None:
            if next(numbers) in shown:
                sheet.append(side_by_side(pictures))
            bar.update()

        return evaluate(net, photos, args.coupled_tv, watch), sheet


def _write_calibrated(net: "CIC", evaluation: "Evaluation", path: Path) -> None:
    import jax
    import jax.numpy as jnp

    scale = evaluation.distribution["logit_scale_fitted"]
    # Half precision stays half precision, and nothing else loses any.
    kernels = [x for x in jax.tree.leaves(net.variables["params"]) if x.ndim == 4]
    half = all(bool((x.astype(jnp.float16).astype(x.dtype) == x).all()) for x in kernels)
    calibrated = net.with_calibration(scale, evaluation.photos).calibrated()
    calibrated.save(path, dtype="float16" if half else "float32")
    print(f"{path}: logit scale {scale:.4g}")
