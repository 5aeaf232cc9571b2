"""``jaxcolor train``: a CIC network of any width from folders of color photos."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from jaxcolor.cli.parsing import EXIT_INTERRUPTED, progress_bar_wanted
from jaxcolor.cli.targets import check_target
from jaxcolor.constants import INPUT_MULTIPLE, RESOLUTION
from jaxcolor.errors import InputError


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add ``train`` to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train the color network on folders of photos",
        description="Train a CIC network. A run folder holds checkpoints and a log; the same command resumes it.",
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="folders of color photos")
    parser.add_argument(
        "--run", dest="run_folder", metavar="FOLDER", type=Path, required=True, help="checkpoints, log and samples"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT.safetensors", type=Path, required=True, help="the trained weights"
    )
    parser.add_argument("--name", default="trained", help="name in the manifest (default: %(default)s)")
    parser.add_argument(
        "--init",
        metavar="NAME|PATH",
        help="weights that a new run begins with, e.g. embedded; a larger --width adds channels (default: random)",
    )
    parser.add_argument(
        "--teacher",
        metavar="NAME|PATH",
        help="weights of any width, better than these will be, whose predictions are to be learned beside the truth",
    )
    parser.add_argument(
        "--teacher-share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the loss that a teacher has (default: %(default)s)",
    )
    parser.add_argument(
        "--width", type=float, help="channels, 1 as published (default: that of --init, or 0.25 without)"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=128,
        help="side of the crops; end with 256, as it will predict (default: %(default)s)",
    )
    parser.add_argument(
        "--least-share",
        type=float,
        default=0.45,
        metavar="SHARE",
        help="of a photo's sides that a crop covers at least; 1 is the whole photo (default: %(default)s)",
    )
    parser.add_argument("--batch", type=int, default=32, help="crops per step (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=20_000, help="in total, resumed ones included (default: %(default)s)"
    )
    parser.add_argument(
        "--decay", type=int, default=4_000, help="steps over which the rate falls (default: %(default)s)"
    )
    parser.add_argument("--learning-rate", type=float, default=0.03, help="of Muon (default: %(default)s)")
    parser.add_argument(
        "--uniform-share",
        type=float,
        default=0.5,
        help="of the class rebalancing; 1 switches it off (default: %(default)s)",
    )
    parser.add_argument(
        "--rebalance",
        choices=("loss", "prediction"),
        default="prediction",
        help="class weights in the loss, as published, or on what the network predicts (default: %(default)s)",
    )
    parser.add_argument(
        "--repeat",
        metavar="PATTERN=TIMES",
        type=_repetition,
        action="append",
        default=[],
        help="photos whose file names match count so many times, e.g. 'flowers_*=4'; the first match counts",
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--validation-share", type=float, default=0.02, help="of the photos (default: %(default)s)")
    parser.add_argument("--validate-every", type=int, default=500, metavar="STEPS", help="(default: %(default)s)")
    parser.add_argument(
        "--devices", metavar="N", type=int, help="that share every batch (default: as many as divide it)"
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also log for TensorBoard (needs: pip install 'jaxcolor[tensorboard]')",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Train, and write the averaged weights in half precision; also after Ctrl-C, with what there is.

    The manifest of a finished run tells the logit scale that calibrates the network on the photos held out.
    """
    _check(args)
    # Here, not on top: a wrong option is answered at once, before JAX is loaded.
    from jaxcolor.cic.calibration import calibrate
    from jaxcolor.cic.predict import CIC
    from jaxcolor.cic.training.data import load_photos, squeezed
    from jaxcolor.cic.training.loop import MOST_VALIDATED, TrainingConfig, train, trained_network
    from jaxcolor.cic.training.provenance import phases

    init, teacher = (None if name is None else CIC.load(name) for name in (args.init, args.teacher))
    width = args.width or (0.25 if init is None else init.width)
    names = ["size", "batch", "steps", "decay", "learning_rate", "uniform_share", "rebalance", "least_share"]
    names += ["teacher_share", "seed"]
    config = TrainingConfig(width=width, **{name: getattr(args, name) for name in names})
    repetitions = dict(args.repeat)
    photos = load_photos(args.folders, besides=args.run_folder)
    for path, reason in photos.rejected.items():
        print(f"left out: {path}: {reason}", file=sys.stderr)
    training, validation = photos.split(args.validation_share)
    if not training.images or not validation.images:
        raise InputError(
            f"{len(photos.images)} photos do not split into training and validation with share "
            f"{args.validation_share}; give more photos or another --validation-share"
        )
    print(f"{len(training.images)} photos to train on, {len(validation.images)} to validate")
    training = training.repeated(repetitions)
    if not training.images:
        raise InputError("--repeat leaves no photo to train on; give some pattern more than 0 times")
    bar = progress_bar_wanted(quiet=False)
    state = train(
        config,
        training.images,
        validation.images,
        args.run_folder,
        args.validate_every,
        bar,
        args.devices,
        args.tensorboard,
        init,
        teacher,
    )
    source: dict[str, Any] = {"photos": [folder.name for folder in args.folders], "repeated": repetitions}
    source["phases"] = phases(args.run_folder)
    net = trained_network(state, config, training.images, args.name, source)
    finished = int(state.step) >= config.steps
    if finished:
        seen = [squeezed(image, RESOLUTION) for image in validation.images[:MOST_VALIDATED]]
        net = net.with_calibration(calibrate(net, seen), len(seen))
    net.save(args.output, dtype="float16")
    print(f"{args.output}: {int(state.step)} steps")
    if not finished:
        print("jaxcolor: interrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _repetition(text: str) -> tuple[str, int]:
    pattern, _, times = text.rpartition("=")
    if not pattern or not times.isdigit():
        raise argparse.ArgumentTypeError(f"must be PATTERN=TIMES with a whole number of times; got {text!r}")
    return pattern, int(times)


def _check(args: argparse.Namespace) -> None:
    """End the program with code 2 for a number out of range; raise for places that cannot be written."""
    checks = {
        f"--width must be above 0 and at most 8; got {args.width}": args.width is None or 0 < args.width <= 8,
        f"--size must be a positive multiple of {INPUT_MULTIPLE}; got {args.size}": (
            args.size > 0 and args.size % INPUT_MULTIPLE == 0
        ),
        f"--learning-rate must be a positive number; got {args.learning_rate}": 0 < args.learning_rate < math.inf,
        f"--uniform-share must be above 0 and at most 1; got {args.uniform_share}": 0 < args.uniform_share <= 1,
        f"--least-share must be above 0 and at most 1; got {args.least_share}": 0 < args.least_share <= 1,
        f"--teacher-share must be above 0 and at most 1; got {args.teacher_share}": 0 < args.teacher_share <= 1,
        f"--seed must be at least 0 and less than 2**32; got {args.seed}": 0 <= args.seed < 2**32,
        f"--validation-share must be between 0 and 1; got {args.validation_share}": 0 < args.validation_share < 1,
        f"--devices must be at least 1; got {args.devices}": args.devices is None or args.devices >= 1,
        f"--output must end in .safetensors; got {args.output}": args.output.suffix == ".safetensors",
    }
    for name, least in (("batch", 1), ("steps", 0), ("decay", 1), ("validate_every", 1)):
        value = getattr(args, name)
        checks[f"--{name.replace('_', '-')} must be at least {least}; got {value}"] = value >= least
    for message, holds in checks.items():
        if not holds:
            args.parser.error(message)
    check_target(args.output, "weights", "--output", force=True)
    if args.run_folder.exists() and not args.run_folder.is_dir():
        raise InputError(f"{args.run_folder} is a file; --run needs a folder for checkpoints and log")
