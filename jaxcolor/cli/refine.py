"""``jaxcolor refine``: colors of any other program, re-drawn on the edges of the gray photo."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcolor.cli.jobs import (
    Job,
    Tell,
    Write,
    add_outputs,
    add_own_colors,
    check_report,
    do_all,
    expand,
    own_colors,
    plan,
    writer,
)
from jaxcolor.errors import InputError

if TYPE_CHECKING:
    from jaxcolor.images import GrayImage

MARK = "-refined"
STRENGTH, STEPS = 0.5, 100


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add ``refine`` to the command line."""
    parser = subparsers.add_parser(
        "refine",
        help="remove the color halos of any colorizer",
        description="Re-draw the colors of a colored photo, of any resolution, on the edges of the gray photo. Files "
        "of two folders are paired by name. Without GRAY the lightness of COLORED is taken.",
    )
    parser.add_argument(
        "inputs", metavar="[GRAY] COLORED", nargs="+", help="a gray photo and a colored one, or two folders of them"
    )
    add_outputs(parser, MARK)
    parser.add_argument(
        "--compare", action="store_true", help="also write gray, given and refined side by side, as NAME-compare.png"
    )
    group = parser.add_argument_group("method")
    group.add_argument(
        "--strength", metavar="S", type=float, default=STRENGTH, help="0 leave alone … 1 strong (default: %(default)s)"
    )
    group.add_argument("--no-align", action="store_true", help="keep the colors where they are, even if shifted")
    group.add_argument("--steps", metavar="N", type=int, default=STEPS, help="of the solver (default: %(default)s)")
    add_own_colors(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Refine every pair; one that fails is reported and the rest are done. Returns 1 if some failed."""
    _check(args)
    check_report(args)
    *gray, colored = args.inputs
    jobs, failed = plan([colored], args.output, args.compare, MARK)
    pairs: dict[Path, Path] = {}
    if gray:
        pairs, unpaired = _pair(gray[0], [job.source for job in jobs], alone=not Path(colored).is_dir())
        failed |= unpaired
        jobs = [job for job in jobs if job.source in pairs]
    read = partial(_read, pairs=pairs)
    work = partial(_refine, args=args, colors=own_colors(args) if jobs else {})
    return do_all(jobs, failed, args, "refined", read, work)


def _check(args: argparse.Namespace) -> None:
    checks = {
        f"expected [GRAY] COLORED, one or two photos or folders; got {len(args.inputs)}": len(args.inputs) <= 2,
        f"--strength must be from 0 to 1; got {args.strength:g}": 0 <= args.strength <= 1,
        f"--steps must be at least 0; got {args.steps}": args.steps >= 0,
    }
    for message, holds in checks.items():
        if not holds:
            args.parser.error(message)
    folders = {Path(name).is_dir() for name in args.inputs}
    if len(folders) == 2:
        raise InputError(f"{args.inputs[0]} and {args.inputs[1]}: one is a folder; give two photos or two folders")


def _pair(gray: str, colored: list[Path], alone: bool) -> tuple[dict[Path, Path], dict[str, str]]:
    """The gray photo of every colored one, and a message for every photo that has no partner.

    Two single photos are a pair whatever their names; in folders names are compared, without their suffixes if need be.
    """
    photos = [path for path, _ in expand(gray)]
    if alone:
        return {path: Path(gray) for path in colored}, {}
    pairs, failed = {}, {}
    for path in colored:
        same = [photo for photo in photos if photo.name == path.name] or [p for p in photos if p.stem == path.stem]
        if len(same) == 1:
            pairs[path] = same[0]
        else:
            found = "no photo of that name" if not same else f"{len(same)} photos of that name"
            failed[str(path)] = f"{path}: {found} in {gray}; expected one called {path.stem}"
    for photo in photos:
        if photo not in pairs.values() and not any(photo.stem == path.stem for path in colored):
            failed[str(photo)] = f"{photo}: has no colored version called {photo.stem}"
    return pairs, failed


def _read(job: Job, pairs: dict[Path, Path]) -> "GrayImage":
    from jaxcolor.images import read_gray

    return read_gray(pairs.get(job.source, job.source))


def _refine(job: Job, gray: "GrayImage", tell: Tell, args: argparse.Namespace, colors: dict[str, Any]) -> Write:
    """Refine one photo."""
    # Here, not on top: a wrong option is answered at once, before JAX is loaded.
    from jaxcolor.comparison import write_refinement
    from jaxcolor.images import check_output
    from jaxcolor.refinement import refine_photo

    job.target.parent.mkdir(parents=True, exist_ok=True)
    for place in job.places:
        for source in (gray.source, job.source):
            check_output(place, overwrite=args.force, source=source)
    result = refine_photo(
        gray, job.source, strength=args.strength, align=not args.no_align, steps=args.steps, progress=tell, **colors
    )
    compare = partial(write_refinement, gray=gray, colored=job.source, refined=result.rgb, overwrite=args.force)
    return writer(job, result, gray, args.force, compare)
