"""``jaxcolor colorize``: photos, folders and globs in; color photos out."""

import argparse
import glob
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcolor.cli.parsing import add_settings, settings_of
from jaxcolor.errors import InputError

if TYPE_CHECKING:
    from tqdm import tqdm

READABLE = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif"}
MARK = "-color"


class Job(NamedTuple):
    """One photo and where its result goes."""

    source: Path
    target: Path


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add ``colorize`` to the command line."""
    parser = subparsers.add_parser(
        "colorize",
        help="colorize photos",
        description="Colorize gray photos at their own resolution. Of color photos only the lightness is used.",
    )
    parser.add_argument("inputs", metavar="IN", nargs="+", help="a photo, a folder of photos, or a quoted pattern")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help=f"a file or a folder; default: NAME{MARK}.SUFFIX beside a photo, FOLDER{MARK}/ for a folder",
    )
    parser.add_argument("--weights", metavar="NAME|PATH", help="default: the embedded compact network")
    parser.add_argument("--compare", action="store_true", help="also write gray, cic and the result side by side")
    parser.add_argument(
        "--report", metavar="FILE.json", type=Path, help="timings, energies and measures of every photo"
    )
    parser.add_argument("--force", action="store_true", help="replace existing outputs")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_settings(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Colorize every photo; one that fails is reported and the rest are done. Returns 1 if some failed."""
    settings = settings_of(args)
    jobs = plan(args.inputs, args.output)
    if args.report is not None:
        _check_report(args.report, args.force)
    # Here, not on top: a wrong option is answered at once, before JAX is loaded.
    from tqdm import tqdm

    from jaxcolor.cic.predict import CIC

    net = CIC.load(args.weights)
    photos: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    steps = settings["steps"] + settings["refinement_steps"] if settings["method"] == "coupled-tv" else 1
    bar = tqdm(total=len(jobs) * steps, unit="step", disable=args.quiet or not sys.stderr.isatty(), leave=False)
    try:
        for number, job in enumerate(jobs):
            bar.set_description(job.source.name)
            try:
                photos.append(_colorize(job, net, args, settings, bar))
                tqdm.write(_summary(photos[-1]), file=sys.stdout)
            except (InputError, MemoryError) as error:
                message = str(error) or "out of memory; resize the photo or use fewer candidates"
                failed[str(job.source)] = message
                tqdm.write(f"jaxcolor: error: {message}", file=sys.stderr)
            bar.update((number + 1) * steps - bar.n)
    finally:
        bar.close()
        if args.report is not None:
            _write_report(args.report, {"photos": photos, "failed": failed})
    if failed and len(jobs) > 1:
        print(f"{len(photos)} of {len(jobs)} photos colorized, {len(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


def _colorize(
    job: Job, net: Any, args: argparse.Namespace, settings: dict[str, Any], bar: "tqdm[Any]"
) -> dict[str, Any]:
    from jaxcolor.images import check_output, read_gray
    from jaxcolor.pipeline import colorize

    start = bar.n
    gray = read_gray(job.source)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    comparison = job.target.with_name(f"{job.target.stem}-compare.png")
    if args.compare:
        check_output(comparison, overwrite=args.force, source=job.source)
    result = colorize(
        gray,
        job.target,
        weights=net,
        overwrite=args.force,
        progress=lambda stage, done, total: bar.update(start + done - bar.n),
        **settings,
    )
    if args.compare:
        from jaxcolor.comparison import write_comparison

        write_comparison(comparison, gray, result, overwrite=args.force)
    return result.report


def plan(inputs: Sequence[str], output: Path | None) -> list[Job]:
    """Which file goes where. Raises :class:`InputError` when there is nothing to do or outputs would collide."""
    sources = [(path, root) for pattern in inputs for path, root in _expand(pattern)]
    if not sources:
        raise InputError(f"no photo found in {', '.join(inputs)}; readable are {', '.join(sorted(READABLE))}")
    into_folder = output is not None and (
        len(sources) > 1 or sources[0][1] is not None or output.is_dir() or not output.suffix
    )
    if into_folder and output is not None and output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file, and {len(sources)} photos need a folder; give a folder with -o")
    jobs: dict[Path, Job] = {}
    for path, root in sources:
        if output is None:
            target = _beside(path) if root is None else root.with_name(root.name + MARK) / _writable(path.name)
        else:
            target = output / _writable(path.name) if into_folder else output
        key = Path(os.path.abspath(target))
        if key in jobs and jobs[key].source != path:
            raise InputError(f"{jobs[key].source} and {path} would both be written to {target}; colorize them apart")
        jobs[key] = Job(path, target)
    return list(jobs.values())


def _expand(pattern: str) -> list[tuple[Path, Path | None]]:
    """(file, the folder it was found in as a whole, if so) for a file, a folder or a pattern."""
    path = Path(pattern)
    if path.is_dir():
        # Resolved, because the output folder is named after it, also for "." and "..".
        root = path.resolve()
        return [(file, root) for file in sorted(path.iterdir()) if file.suffix.lower() in READABLE and file.is_file()]
    if path.exists() or not glob.has_magic(pattern):
        # A missing file stays in the plan: it fails with its own message, and the others are done.
        return [(path, None)]
    return [(Path(file), None) for file in sorted(glob.glob(pattern, recursive=True)) if Path(file).is_file()]


def _beside(path: Path) -> Path:
    return path.with_name(Path(_writable(path.name)).stem + MARK + Path(_writable(path.name)).suffix)


def _writable(name: str) -> str:
    """The name with a suffix that can be written: GIF holds 256 colors only, so it becomes PNG."""
    from jaxcolor.images import OUTPUT_SUFFIXES

    path = Path(name)
    return name if path.suffix.lower() in OUTPUT_SUFFIXES else f"{path.stem}.png"


def _summary(report: dict[str, Any]) -> str:
    seconds = sum(report["seconds"].values())
    return (
        f"{report['input']} → {report['output']}: {report['width']}×{report['height']}, {report['method']}, "
        f"colorfulness {report['colorfulness']:.1f}, saturation {report['saturation']:.2f}, "
        f"out of gamut {100 * report['out_of_gamut_share']:.1f} %, {seconds:.1f} s"
        + "".join(f"; {note}" for note in report["notes"])
    )


def _check_report(path: Path, force: bool) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"cannot write the report to {path}: expected a file in an existing folder")
    if path.exists() and not force:
        raise InputError(f"{path} exists; give --force to replace it, or another --report")


def _write_report(path: Path, report: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write the report to {path}: {error.strerror}; choose a writable place") from error
    finally:
        temporary.unlink(missing_ok=True)
