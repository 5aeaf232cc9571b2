"""``jaxcolor colorize``: photos, folders and globs in; color photos out."""

import argparse
from functools import partial
from typing import Any

from jaxcolor.cli.jobs import Job, Tell, add_outputs, add_own_colors, check_report, do_all, own_colors, plan
from jaxcolor.cli.parsing import add_settings, settings_of


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
    steps = {"cic": 1, "coupled-tv": settings["steps"] + settings["refinement_steps"], "deep-prior": 1000}
    net = _network(args.weights) if jobs else None
    work = partial(_colorize, args=args, settings=settings | own_colors(args) | {"weights": net})
    return do_all(jobs, failed, args, "colorized", steps[settings["method"]], work)


def _network(weights: str | None) -> Any:
    # Here, not on top: a wrong option is answered at once, before JAX is loaded.
    from jaxcolor.cic.predict import CIC

    return CIC.load(weights)


def _colorize(job: Job, tell: Tell, args: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Colorize one photo."""
    from jaxcolor.images import check_output, read_gray
    from jaxcolor.pipeline import colorize

    gray = read_gray(job.source)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    if job.comparison is not None:
        check_output(job.comparison, overwrite=args.force, source=job.source)
    result = colorize(gray, job.target, overwrite=args.force, progress=tell, **settings)
    if job.comparison is not None:
        from jaxcolor.comparison import write_comparison

        write_comparison(job.comparison, gray, result, overwrite=args.force)
    return result.report
