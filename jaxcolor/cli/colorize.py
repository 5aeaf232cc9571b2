"""``jaxcolor colorize``: photos, folders and globs in; color photos out."""

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxcolor.cli.jobs import (
    Job,
    Tell,
    Write,
    add_outputs,
    add_own_colors,
    check_report,
    do_all,
    own_colors,
    plan,
    writer,
)
from jaxcolor.cli.parsing import add_settings, settings_of

if TYPE_CHECKING:
    from jaxcolor.images import GrayImage


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add ``colorize`` to the command line."""
    parser = subparsers.add_parser(
        "colorize",
        help="colorize photos",
        description="Colorize gray photos at their own resolution. Of color photos only the lightness is used.",
    )
    parser.add_argument("inputs", metavar="IN", nargs="+", help="a photo, a folder of photos, or a quoted pattern")
    add_outputs(parser)
    parser.add_argument("--weights", metavar="NAME|PATH", help="default: the embedded compact network")
    parser.add_argument(
        "--compare", action="store_true", help="also write gray, cic and the result side by side, as NAME-compare.png"
    )
    add_own_colors(parser)
    add_settings(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Colorize every photo; one that fails is reported and the rest are done. Returns 1 if some failed."""
    settings = settings_of(args)
    check_report(args)
    jobs, failed = plan(args.inputs, args.output, args.compare)
    net = _network(args.weights) if jobs else None
    work = partial(_colorize, args=args, settings=settings | own_colors(args) | {"weights": net})
    return do_all(jobs, failed, args, "colorized", _read, work)


def _network(weights: str | None) -> Any:
    # Here, not on top: a wrong option is answered at once, before JAX is loaded.
    from jaxcolor.cic.predict import CIC

    return CIC.load(weights)


def _read(job: Job) -> "GrayImage":
    from jaxcolor.images import read_gray

    return read_gray(job.source)


def _colorize(job: Job, gray: "GrayImage", tell: Tell, args: argparse.Namespace, settings: dict[str, Any]) -> Write:
    """Colorize one photo."""
    from jaxcolor.comparison import write_comparison
    from jaxcolor.images import check_output
    from jaxcolor.pipeline import colorize

    job.target.parent.mkdir(parents=True, exist_ok=True)
    for place in job.places:
        check_output(place, overwrite=args.force, source=gray.source)
    result = colorize(gray, progress=tell, **settings)
    compare = partial(write_comparison, gray=gray, result=result, overwrite=args.force)
    return writer(job, result, gray, args.force, compare)
