"""``jaxcolor weights list|fetch|convert|average``: which weights there are, and how to get more."""

import argparse
from pathlib import Path

from jaxcolor.cli.targets import check_target
from jaxcolor.errors import InputError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``weights`` with its actions to the command line."""
    parser = subparsers.add_parser("weights", help="list, fetch, convert or average network weights")
    actions = parser.add_subparsers(dest="action", metavar="list|fetch|convert|average", required=True)

    listing = actions.add_parser("list", help="embedded, fetched and fetchable weights")
    listing.set_defaults(run=run_list)

    fetching = actions.add_parser("fetch", help="download released weights into the cache (needs torch once)")
    fetching.add_argument("name", metavar="NAME", nargs="?", default="zhang2016", help="default: zhang2016")
    fetching.add_argument("--url", metavar="MIRROR", help="another address of the same file")
    fetching.add_argument("--force", action="store_true", help="fetch again even if it is there")
    fetching.set_defaults(run=run_fetch)

    converting = actions.add_parser("convert", help="convert a PyTorch checkpoint of the CIC network")
    converting.add_argument("checkpoint", metavar="FILE.pth", type=Path)
    converting.add_argument(
        "-o",
        "--output",
        metavar="OUT.safetensors",
        type=Path,
        help="default: the cache for a released checkpoint, else beside the checkpoint",
    )
    converting.add_argument("--width", type=float, default=1.0, help="of its network; the released one is 1")
    converting.add_argument("--force", action="store_true", help="replace an existing output")
    converting.set_defaults(run=run_convert)

    averaging = actions.add_parser("average", help="the mean of weights from one training")
    averaging.add_argument("files", metavar="FILE.safetensors", nargs="+", type=Path)
    averaging.add_argument("-o", "--output", metavar="OUT.safetensors", type=Path, required=True)
    averaging.add_argument("--force", action="store_true", help="replace an existing output")
    averaging.set_defaults(run=run_average)


def run_list(args: argparse.Namespace) -> int:
    """Print a line for every known name."""
    from jaxcolor.cic.weights import cache_directory, list_weights

    for info in list_weights():
        if info.manifest is not None:
            parameters = info.manifest.get("parameters", 0) / 1e6
            print(f"{info.name:<12}{parameters:.1f} M parameters, width {info.manifest['width']:g}   {info.path}")
            for key in ("origin", "source", "training", "license"):
                # The settings of a run of our own would fill the screen.
                if isinstance(told := info.manifest.get(key), str):
                    print(f"{'':<12}{key}: {told}")
        elif info.problem is not None:
            print(f"{info.name:<12}unusable: {info.problem}")
        else:
            print(f"{info.name:<12}not on this machine")
    print(f"cache       {cache_directory()}")
    return 0


def run_fetch(args: argparse.Namespace) -> int:
    """Fetch released weights and print where they are."""
    from jaxcolor.cic.download import fetch

    print(fetch(args.name, url=args.url, force=args.force))
    return 0


def run_convert(args: argparse.Namespace) -> int:
    """Convert a checkpoint and print where the result is."""
    from jaxcolor.cic.convert import convert_checkpoint
    from jaxcolor.cic.download import install, released_name

    name = released_name(args.checkpoint)
    if name is not None and args.output is None:
        print(f"{install(args.checkpoint, name)}\nuse it as: --weights {name}")
        return 0
    output = args.output or args.checkpoint.with_suffix(".safetensors")
    if output.exists() and args.checkpoint.exists() and output.samefile(args.checkpoint):
        raise InputError(f"{output} is the checkpoint itself; choose another name with -o")
    check_target(output, "weights", "--output", args.force)
    convert_checkpoint(args.checkpoint, output, width=args.width)
    print(f"{output}\nuse it as: --weights {output}")
    return 0


def run_average(args: argparse.Namespace) -> int:
    """Average weights, in half precision, and print where the result is."""
    check_target(args.output, "weights", "--output", args.force)
    from jaxcolor.cic.predict import CIC

    CIC.averaged([CIC.load(file) for file in args.files]).save(args.output, dtype="float16")
    print(f"{args.output}\nuse it as: --weights {args.output}")
    return 0
