"""``jaxcolor train``: a CIC network of any width from folders of color photos."""

import argparse
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcolor.cli.parsing import EXIT_INTERRUPTED, progress_bar_wanted
from jaxcolor.cli.targets import check_target
from jaxcolor.constants import INPUT_MULTIPLE, RESOLUTION
from jaxcolor.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from jaxcolor.cic.predict import CIC
    from jaxcolor.cic.training.config import TrainingConfig
    from jaxcolor.cic.training.data import Photos

# Learning rate and weight decay, of each optimiser; Adam's are those of Zhang et al. 2016.
RATES = {"muon": (0.03, 0.02), "adam": (3e-5, 1e-3)}
# Options that are fields of a run's configuration.
FIELDS = (
    "size", "batch", "steps", "warmup", "decay", "gradient_norm", "average", "uniform_share", "rebalance",
    "least_share", "teacher_share", "seed", "optimiser", "precision",
)  # fmt: skip


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
    _add_data(parser.add_argument_group("photos"))
    _add_network(parser.add_argument_group("network"))
    _add_steps(parser.add_argument_group("steps"))
    _add_loss(parser.add_argument_group("loss"))
    _add_manifest(parser.add_argument_group("what the weights say of themselves"))
    parser.set_defaults(run=run, parser=parser)


def _add_data(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--size",
        type=int,
        default=128,
        metavar="PIXELS",
        help="side of the crops; end with 256, as it will predict (default: %(default)s)",
    )
    group.add_argument(
        "--least-share",
        type=float,
        default=0.45,
        metavar="SHARE",
        help="of a photo's sides that a crop covers at least; 1 is the whole photo (default: %(default)s)",
    )
    group.add_argument(
        "--repeat",
        metavar="PATTERN=TIMES",
        type=_repetition,
        action="append",
        default=[],
        help="photos whose file names match count so many times, e.g. 'flowers_*=4'; the first match counts",
    )
    group.add_argument(
        "--validation-share", type=float, default=0.02, metavar="SHARE", help="of the photos (default: %(default)s)"
    )
    group.add_argument("--seed", type=int, default=0, help="of weights and crops (default: %(default)s)")


def _add_network(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--width", type=float, help="channels, 1 as published (default: that of --init, or 0.25 without)"
    )
    group.add_argument(
        "--init",
        metavar="NAME|PATH",
        help="weights that a new run begins with, e.g. embedded; a larger --width adds channels (default: random)",
    )
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the convolutions; bfloat16 is for accelerators (default: %(default)s)",
    )
    group.add_argument(
        "--devices", metavar="N", type=int, help="that share every batch (default: as many as divide it)"
    )


def _add_steps(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--batch", type=int, default=32, help="crops per step (default: %(default)s)")
    group.add_argument(
        "--steps", type=int, default=20_000, help="in total, resumed ones included (default: %(default)s)"
    )
    group.add_argument(
        "--optimiser", choices=tuple(RATES), default="muon", help="adam is the paper's (default: %(default)s)"
    )
    rates, decays = (", ".join(f"{name} {numbers[i]:g}" for name, numbers in RATES.items()) for i in (0, 1))
    group.add_argument("--learning-rate", type=float, metavar="RATE", help=f"(default: {rates})")
    group.add_argument("--weight-decay", type=float, metavar="DECAY", help=f"of the kernels (default: {decays})")
    for name, default, what in (("warmup", 100, "rises at the start"), ("decay", 4_000, "falls to 0 at the end")):
        what = f"over which the rate {what} (default: %(default)s)"
        group.add_argument(f"--{name}", type=int, default=default, metavar="STEPS", help=what)
    group.add_argument(
        "--gradient-norm",
        type=float,
        default=1.0,
        metavar="NORM",
        help="to which longer ones are cut (default: %(default)s)",
    )
    group.add_argument(
        "--average", type=float, default=0.999, metavar="DECAY", help="of the weights' average (default: %(default)s)"
    )
    group.add_argument("--validate-every", type=int, default=500, metavar="STEPS", help="(default: %(default)s)")
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="also log for TensorBoard (needs: pip install 'jaxcolor[tensorboard]')",
    )


def _add_loss(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--uniform-share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the class rebalancing; 1 switches it off (default: %(default)s)",
    )
    group.add_argument(
        "--rebalance",
        choices=("loss", "prediction"),
        default="prediction",
        help="class weights in the loss, as published, or on what the network predicts (default: %(default)s)",
    )
    group.add_argument(
        "--teacher",
        metavar="NAME|PATH",
        help="weights of any width, better than these will be, whose predictions are to be learned beside the truth",
    )
    group.add_argument(
        "--teacher-share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the loss that a teacher has (default: %(default)s)",
    )


def _add_manifest(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--name", default="trained", help="(default: %(default)s)")
    group.add_argument("--license", metavar="TEXT", help="under which they may be used")
    group.add_argument("--source", metavar="TEXT", help="whose they are, and where the photos are from")


def run(args: argparse.Namespace) -> int:
    """Train, and write the averaged weights in half precision; also after Ctrl-C, with what there is.

    The manifest of a finished run tells what was measured on the photos held out, and the logit scale that calibrates
    the network there.
    """
    _check(args)
    # Here, not on top: a wrong option is answered at once, before JAX is loaded.
    from jaxcolor.cic.predict import CIC
    from jaxcolor.cic.training.config import TrainingConfig
    from jaxcolor.cic.training.loop import train, trained_network
    from jaxcolor.cic.training.provenance import phases

    init, teacher = (None if name is None else CIC.load(name) for name in (args.init, args.teacher))
    width = args.width or (0.25 if init is None else init.width)
    rate, decay = RATES[args.optimiser]
    config = TrainingConfig(
        width=width,
        learning_rate=rate if args.learning_rate is None else args.learning_rate,
        weight_decay=decay if args.weight_decay is None else args.weight_decay,
        **{name: getattr(args, name) for name in FIELDS},
    )
    with _memory_in_words():
        training, validation, data = _photos(args, config)
        state = train(
            config,
            training.images,
            validation.images,
            args.run_folder,
            args.validate_every,
            "bar" if progress_bar_wanted(quiet=False) else "lines",
            args.devices,
            args.tensorboard,
            data,
            init,
            teacher,
        )
        source: dict[str, Any] = {"photos": [folder.name for folder in args.folders], "repeated": data["repeated"]}
        source["phases"] = phases(args.run_folder)
        net = trained_network(state, config, training.images, args.name, source)
        finished = int(state.step) >= config.steps
        if finished:
            net = _measured(net, validation.images)
    told = {name: value for name in ("license", "source") if (value := getattr(args, name)) is not None}
    _with_notes(net, told).save(args.output, dtype="float16")
    print(f"{args.output}: {int(state.step)} steps")
    if not finished:
        print("jaxcolor: interrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _photos(args: argparse.Namespace, config: "TrainingConfig") -> "tuple[Photos, Photos, dict[str, Any]]":
    """Photos to train on, those held out, and what the run's record says of them; says what is odd about them."""
    from jaxcolor.cic.training.crops import useful_side
    from jaxcolor.cic.training.data import load_photos
    from jaxcolor.cic.training.provenance import other_photos

    short = max(useful_side(config.size, config.least_share), RESOLUTION)
    photos = load_photos(args.folders, besides=args.run_folder, short=short)
    for path, reason in photos.rejected.items():
        print(f"left out: {path}: {reason}", file=sys.stderr)
    training, validation = photos.split(args.validation_share)
    if not training.images or not validation.images:
        raise InputError(
            f"{len(photos.images)} photos do not split into training and validation with share "
            f"{args.validation_share}; give more photos or another --validation-share"
        )
    print(f"{len(training.images)} photos to train on, {len(validation.images)} to validate")
    if other_photos(args.run_folder, photos.digest):
        print(
            f"jaxcolor: warning: these are not the photos that the run in {args.run_folder} had before: "
            "it goes on, but not as if it had never been interrupted",
            file=sys.stderr,
        )
    data = {"training": len(training.images), "held_out": len(validation.images), "digest": photos.digest}
    data |= {"validation_share": args.validation_share, "repeated": dict(args.repeat)}
    training = training.repeated(dict(args.repeat))
    if not training.images:
        raise InputError("--repeat leaves no photo to train on; give some pattern more than 0 times")
    return training, validation, data


def _measured(net: "CIC", held_out: "list[np.ndarray]") -> "CIC":
    """The network with a manifest that tells how good it is on photos held out, and what calibrates it there."""
    from jaxcolor.cic.calibration import calibrate
    from jaxcolor.cic.training.crops import squeezed
    from jaxcolor.cic.training.validation import MOST_VALIDATED, held_out_measures

    seen = [squeezed(image, RESOLUTION) for image in held_out[:MOST_VALIDATED]]
    metrics = {"on": f"photos held out, squeezed to {RESOLUTION} pixels", "photos": len(seen)}
    metrics |= {name: float(f"{value:.5g}") for name, value in held_out_measures(net, seen).items()}
    return _with_notes(net, {"metrics": metrics}).with_calibration(calibrate(net, seen), len(seen))


def _with_notes(net: "CIC", notes: dict[str, Any]) -> "CIC":
    from dataclasses import replace

    from jaxcolor.cic.predict import Manifest

    return replace(net, manifest=Manifest({**net.manifest, **notes}))


@contextmanager
def _memory_in_words() -> Iterator[None]:
    """Says what a training can do without, where memory runs out; the command line knows photos to colorize only."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
            raise
        raise InputError(
            "out of memory; give a smaller --batch, --size or --width, or fewer photos, and the same command goes on "
            "from its last checkpoint, if there is one"
        ) from error


def _repetition(text: str) -> tuple[str, int]:
    pattern, _, times = text.rpartition("=")
    if not pattern or not times.isdigit():
        raise argparse.ArgumentTypeError(f"must be PATTERN=TIMES with a whole number of times; got {text!r}")
    return pattern, int(times)


def _check(args: argparse.Namespace) -> None:
    """End the program with code 2 for a number out of range; raise for places that cannot be written."""
    rate, decay = args.learning_rate, args.weight_decay
    checks = {
        f"--width must be above 0 and at most 8; got {args.width}": args.width is None or 0 < args.width <= 8,
        f"--size must be a positive multiple of {INPUT_MULTIPLE}; got {args.size}": (
            args.size > 0 and args.size % INPUT_MULTIPLE == 0
        ),
        f"--learning-rate must be a positive number; got {rate}": rate is None or 0 < rate < math.inf,
        f"--weight-decay must be at least 0; got {decay}": decay is None or 0 <= decay < math.inf,
        f"--gradient-norm must be a positive number; got {args.gradient_norm}": 0 < args.gradient_norm < math.inf,
        f"--average must be at least 0 and below 1; got {args.average}": 0 <= args.average < 1,
        f"--uniform-share must be above 0 and at most 1; got {args.uniform_share}": 0 < args.uniform_share <= 1,
        f"--least-share must be above 0 and at most 1; got {args.least_share}": 0 < args.least_share <= 1,
        f"--teacher-share must be above 0 and at most 1; got {args.teacher_share}": 0 < args.teacher_share <= 1,
        f"--seed must be at least 0 and less than 2**32; got {args.seed}": 0 <= args.seed < 2**32,
        f"--validation-share must be between 0 and 1; got {args.validation_share}": 0 < args.validation_share < 1,
        f"--devices must be at least 1; got {args.devices}": args.devices is None or args.devices >= 1,
        f"--output must end in .safetensors; got {args.output}": args.output.suffix == ".safetensors",
    }
    for name, least in (("batch", 1), ("steps", 0), ("warmup", 1), ("decay", 1), ("validate_every", 1)):
        value = getattr(args, name)
        checks[f"--{name.replace('_', '-')} must be at least {least}; got {value}"] = value >= least
    for message, holds in checks.items():
        if not holds:
            args.parser.error(message)
    check_target(args.output, "weights", "--output", force=True)
    if args.run_folder.exists() and not args.run_folder.is_dir():
        raise InputError(f"{args.run_folder} is a file; --run needs a folder for checkpoints and log")
