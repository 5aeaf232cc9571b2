"""``jaxcolor train``: a CIC network of any width from folders of color photos."""

import argparse
from pathlib import Path
from typing import Any

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
        "--run", dest="run_folder", metavar="FOLDER", type=Path, required=True, help="checkpoints and log"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT.safetensors", type=Path, required=True, help="the trained weights"
    )
    parser.add_argument("--name", default="trained", help="name in the manifest (default: %(default)s)")
    parser.add_argument("--width", type=float, default=0.25, help="channels, 1 as published (default: %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="side of the crops (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="crops per step (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=20_000, help="in total, resumed ones included (default: %(default)s)"
    )
    parser.add_argument(
        "--decay", type=int, default=4_000, help="steps over which the rate falls (default: %(default)s)"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="(default: %(default)s)")
    parser.add_argument(
        "--uniform-share",
        type=float,
        default=0.5,
        help="of the class rebalancing; 1 switches it off (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--validation-share", type=float, default=0.02, help="of the photos (default: %(default)s)")
    parser.add_argument("--validate-every", type=int, default=500, metavar="STEPS", help="(default: %(default)s)")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Train, and write the averaged weights in half precision; also after Ctrl-C, with what there is."""
    from jaxcolor.cic.training.data import load_photos
    from jaxcolor.cic.training.loop import TrainingConfig, train, trained_network

    names = ("width", "size", "batch", "steps", "decay", "learning_rate", "uniform_share", "seed")
    config = TrainingConfig(**{name: getattr(args, name) for name in names})
    if not args.output.parent.is_dir():
        raise InputError(f"{args.output.parent} is not a folder; create it first, or choose another -o")
    photos = load_photos(args.folders)
    for path, reason in photos.rejected.items():
        print(f"left out: {path}: {reason}")
    training, validation = photos.split(args.validation_share)
    if not training.images or not validation.images:
        raise InputError(
            f"{len(photos.images)} photos do not split into training and validation with share "
            f"{args.validation_share}; give more photos or another --validation-share"
        )
    print(f"{len(training.images)} photos to train on, {len(validation.images)} to validate")
    state = train(config, training.images, validation.images, args.run_folder, args.validate_every)
    net = trained_network(state, config, args.name, [str(folder) for folder in args.folders])
    net.save(args.output, dtype="float16")
    print(f"{args.output}: {int(state.step)} steps")
    return 0
