"""What commands on many photos share: which file goes where, and doing one after the other whatever fails."""

import argparse
import glob
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcolor.cli.parsing import EXIT_FAILURE, one_line, progress_bar_wanted
from jaxcolor.cli.targets import check_target, write_report
from jaxcolor.errors import InputError

if TYPE_CHECKING:
    from tqdm import tqdm

    from jaxcolor.images import GrayImage
    from jaxcolor.photo import Picture

READABLE = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif"}
MARK = "-color"
# In photos and their parts: how many steps one has is known only when it is begun.
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
Tell = Callable[[str, int, int], None]
Write = Callable[[], dict[str, Any]]


class Job(NamedTuple):
    """One photo and where its result goes, and the comparison if one is wanted."""

    source: Path
    target: Path
    comparison: Path | None

    @property
    def places(self) -> list[Path]:
        """Everything that is written."""
        return [place for place in (self.target, self.comparison) if place is not None]


def add_outputs(parser: argparse.ArgumentParser, mark: str = MARK) -> None:
    """Add the options of every such command."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help=f"a file or a folder; default: NAME{mark}.SUFFIX beside a photo, FOLDER{mark}/ for a folder",
    )
    parser.add_argument(
        "--report", metavar="FILE.json", type=Path, help="timings, energies and measures of every photo"
    )
    parser.add_argument("--force", action="store_true", help="replace existing outputs")
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def add_own_colors(parser: argparse.ArgumentParser) -> None:
    """Add the options of known colors."""
    parser.add_argument(
        "--hints",
        metavar="FILE",
        type=Path,
        help="known colors: a PNG of strokes with alpha, or points (x, y, radius, color) as .csv or .json",
    )
    parser.add_argument("--palette", metavar="FILE", type=Path, help="use these colors only: GIMP .gpl, .json or .png")


def own_colors(args: argparse.Namespace) -> dict[str, Any]:
    """Hints and palette, read once for all photos."""
    if args.hints is None and args.palette is None:
        return {}
    # Here, not on top: a wrong option is answered at once, before JAX is loaded.
    from jaxcolor.hints import as_hints
    from jaxcolor.palettes import as_palette

    return {"hints": as_hints(args.hints), "palette": as_palette(args.palette)}


def check_report(args: argparse.Namespace) -> None:
    """End the program with code 2 for a report of another format, raise for a place that cannot be written."""
    if args.report is None:
        return
    if args.report.suffix.lower() != ".json":
        args.parser.error(f"the report must be a .json file; got {args.report}")
    check_target(args.report, "the report", "--report", args.force)


def do_all(
    jobs: Sequence[Job],
    failed: dict[str, str],
    args: argparse.Namespace,
    done: str,
    read: Callable[[Job], Any],
    work: Callable[[Job, Any, Tell], Write],
) -> int:
    """Do the jobs, with a progress bar; one that fails is reported and the rest are done.

    ``work(job, photo, tell)`` gets what ``read(job)`` returned. What it returns writes the result, and returns the
    report. Other threads read the next photo and write the last one meanwhile. ``done`` is the verb of the summary.
    ``failed`` holds a message for every input that is no job. Returns the exit code.
    """
    count = len(jobs) + len(failed)
    for message in failed.values():
        print(f"jaxcolor: error: {message}", file=sys.stderr)
    photos: list[dict[str, Any]] = []
    finished = not jobs
    try:
        if jobs:
            _one_by_one(jobs, args, read, work, photos, failed)
            finished = True
    finally:
        if args.report is not None:
            write_report(args.report, {"photos": photos, "failed": failed, "interrupted": not finished})
    if failed and count > 1:
        print(f"{len(photos)} of {count} photos {done}, {len(failed)} failed", file=sys.stderr)
    return EXIT_FAILURE if failed else 0


def writer(job: Job, result: "Picture", like: "GrayImage", force: bool, compare: Callable[[Path], None]) -> Write:
    """What writes a result and, if it is wanted, its comparison; if only that fails, the message says so."""

    def write() -> dict[str, Any]:
        result.write(job.target, like=like, overwrite=force)
        if job.comparison is not None:
            try:
                compare(job.comparison)
            except Exception as error:
                raise InputError(f"{job.target} is written, but not {job.comparison}: {one_line(error)}") from error
        return result.report

    return write


def _one_by_one(
    jobs: Sequence[Job],
    args: argparse.Namespace,
    read: Callable[[Job], Any],
    work: Callable[[Job, Any, Tell], Write],
    photos: list[dict[str, Any]],
    failed: dict[str, str],
) -> None:
    """Append a report to ``photos`` or a message to ``failed`` for each job, in their order."""
    from tqdm import tqdm

    def computed(job: Job, photo: Future[Any], tell: Tell) -> Write:
        try:
            return work(job, photo.result(), tell)
        except Exception as error:  # whatever it is, the other photos are done
            return partial(_fail, error)

    def settle(job: Job, write: Write) -> None:
        try:
            photos.append(write())
        except Exception as error:
            failed[str(job.source)] = one_line(error)
            tqdm.write(f"jaxcolor: error: {one_line(error)}", file=sys.stderr)
        else:
            if not args.quiet:
                tqdm.write(_summary(photos[-1]), file=sys.stdout)

    # Left in the opposite order: also after Ctrl-C what is begun is written, and reported.
    with (
        tqdm(total=len(jobs), bar_format=_BAR, disable=not progress_bar_wanted(args.quiet), leave=False) as bar,
        ThreadPoolExecutor(1, "read") as reader,
        ThreadPoolExecutor(1, "write") as writer,
    ):
        ahead = reader.submit(read, jobs[0])
        settled = writer.submit(lambda: None)
        for number, job in enumerate(jobs):
            bar.set_description(job.source.name)
            photo = ahead
            if number + 1 < len(jobs):
                ahead = reader.submit(read, jobs[number + 1])
            write = computed(job, photo, _teller(bar, number))
            settled.result()
            settled = writer.submit(settle, job, write)
            # One picture at most is kept beside the one that is computed.
            del write, photo
            bar.update(number + 1 - bar.n)
        settled.result()


def _fail(error: Exception) -> dict[str, Any]:
    raise error


def _teller(bar: "tqdm[Any]", number: int) -> Tell:
    """What moves the bar from photo ``number`` to the next, and tells the step."""

    def tell(stage: str, done: int, total: int) -> None:
        bar.set_postfix_str(f"step {done} of {total}, {stage}", refresh=False)
        bar.update(number + done / max(total, 1) - bar.n)

    return tell


def plan(
    inputs: Sequence[str], output: Path | None, compare: bool = False, mark: str = MARK
) -> tuple[list[Job], dict[str, str]]:
    """Which file goes where, and a message for every input that holds no photo; ``mark`` is added to default names.

    Raises :class:`InputError` when two results would go to one place, or a result to the place of an input.
    """
    failed: dict[str, str] = {}
    sources: dict[Path, tuple[Path, Path | None]] = {}
    for pattern in inputs:
        if not pattern:  # of a variable that is not set; a path would make the working folder of it
            failed[pattern] = "an empty name; expected a photo, a folder or a pattern"
            continue
        try:
            found = expand(pattern)
        except OSError as error:
            failed[pattern] = f"{pattern}: {error.strerror}; expected a readable file or folder; check its permissions"
            continue
        if not found:
            failed[pattern] = f"{pattern}: no photo in it; expected files ending in {', '.join(sorted(READABLE))}"
        for path, root in found:
            sources.setdefault(_absolute(path), (path, root))
    into_folder = output is not None and (
        len(sources) > 1 or any(root for _, root in sources.values()) or output.is_dir() or not output.suffix
    )
    if into_folder and output is not None and output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file, and the results of {', '.join(inputs)} need a folder; give one with -o")
    jobs: list[Job] = []
    written: dict[Path, Path] = {}
    for path, root in sources.values():
        if output is None:
            target = _beside(path, mark) if root is None else _sibling(root, mark) / _writable(path.name)
        else:
            target = output / _writable(path.name) if into_folder else output
        comparison = target.with_name(f"{target.stem}-compare.png") if compare else None
        jobs.append(Job(path, target, comparison))
        for place in jobs[-1].places:
            key = _absolute(place)
            if key in written:
                raise InputError(f"{written[key]} and {path} would both be written to {place}; do them apart")
            if key in sources and sources[key][0] != path:
                raise InputError(
                    f"the result of {path} would replace {place}, itself an input; write elsewhere with -o"
                )
            written[key] = path
    return jobs, failed


def expand(pattern: str) -> list[tuple[Path, Path | None]]:
    """(file, the folder it was found in as a whole, if so) for a file, a folder or a pattern."""
    path = Path(pattern)
    if path.is_dir():
        # Absolute, because the output folder is named after it, also for "." and "..", but for a link after the link.
        return [(file, _absolute(path)) for file in sorted(path.iterdir()) if _is_photo(file)]
    if path.exists() or not glob.has_magic(pattern):
        # A missing file stays in the plan: it fails with its own message, and the others are done.
        return [(path, None)]
    found = (Path(name) for name in sorted(glob.glob(pattern, recursive=True)))
    return [(file, None) for file in found if _is_photo(file)]


def _is_photo(path: Path) -> bool:
    # Dot files: other programs' previews and leftovers.
    return path.suffix.lower() in READABLE and not path.name.startswith(".") and path.is_file()


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _sibling(root: Path, mark: str) -> Path:
    if not root.name:
        raise InputError(f"no folder can be made beside {root}; say with -o where the results go")
    return root.with_name(root.name + mark)


def _beside(path: Path, mark: str) -> Path:
    name = Path(_writable(path.name))
    return path.with_name(name.stem + mark + name.suffix)


def _writable(name: str) -> str:
    """The name with a suffix that can be written: GIF holds 256 colors only, so it becomes PNG."""
    from jaxcolor.images import OUTPUT_SUFFIXES

    path = Path(name)
    return name if path.suffix.lower() in OUTPUT_SUFFIXES else f"{path.stem}.png"


def _summary(report: dict[str, Any]) -> str:
    seconds = sum(report["seconds"].values())
    text = (
        f"{report['input']} → {report['output']}: {report['width']}×{report['height']}, {report['method']}, "
        f"colorfulness {report['colorfulness']:.1f}, saturation {report['saturation']:.2f}, "
        f"out of gamut {100 * report['out_of_gamut_share']:.1f} %, {seconds:.1f} s"
        + "".join(f"; {note}" for note in report["notes"])
    )
    return " ".join(text.splitlines())
