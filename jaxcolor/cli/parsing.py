"""What the subcommands' parsers share."""

import argparse
import sys
import traceback
from dataclasses import fields
from typing import Any, NoReturn

from jaxcolor.errors import InputError
from jaxcolor.settings import METHODS, PRESETS, Settings

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports bad usage in one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print what was wrong and where the usage is found."""
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}; see '{self.prog} --help'\n")


def one_line(error: BaseException) -> str:
    """What went wrong, in one line for people.

    >>> one_line(FileNotFoundError(2, "No such file or directory", "a.png"))
    'a.png: No such file or directory'
    """
    text = str(error)
    if isinstance(error, InputError):
        pass
    elif isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        text = "out of memory; resize the photo or use fewer candidates"
    elif isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        text = ": ".join([*names, error.strerror or text])
    else:
        place = traceback.extract_tb(error.__traceback__)[-1:]
        where = "".join(f" at {frame.filename}:{frame.lineno}" for frame in place)
        text = f"unexpected {type(error).__name__}{where}: {text}; please report this"
    return " ".join(text.splitlines())


def progress_bar_wanted(quiet: bool) -> bool:
    """Whether somebody sits before the terminal to watch a progress bar."""
    return not quiet and sys.stderr.isatty()


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add an option for every field of :class:`Settings`."""
    group = parser.add_argument_group("method")
    group.add_argument("--method", choices=METHODS, default=Settings.method, help="default: %(default)s")
    group.add_argument(
        "--candidates",
        metavar="K",
        type=int,
        default=Settings.candidates,
        help="colors per pixel (default: %(default)s)",
    )
    group.add_argument("--fidelity", metavar="λ", type=float, help="> 0; larger stays closer to the network's colors")
    group.add_argument("--coupling", metavar="γ", type=float, help=">= 0; larger ties color edges to gray edges")
    group.add_argument(
        "--steps",
        metavar="N",
        type=int,
        default=Settings.steps,
        help="of the primal-dual solver (default: %(default)s)",
    )
    group.add_argument(
        "--refinement-steps",
        metavar="N",
        type=int,
        default=Settings.refinement_steps,
        help="of the inertial solver after it (default: %(default)s)",
    )
    group.add_argument(
        "--resolution",
        metavar="PIXELS",
        type=int,
        default=Settings.resolution,
        help="side of what the network sees (default: %(default)s)",
    )
    group.add_argument(
        "--temperature",
        metavar="T",
        type=float,
        default=Settings.temperature,
        help="of method cic: 1 cautious, towards 0 vivid (default: %(default)s)",
    )
    group = parser.add_argument_group("method deep-prior")
    group.add_argument("--preset", choices=PRESETS, help="default: fast on CPU, paper on GPU")
    group.add_argument("--prior-steps", metavar="N", type=int, help="of Adam (default: the preset's)")
    group.add_argument(
        "--seed", metavar="N", type=int, default=Settings.seed, help="of the noise (default: %(default)s)"
    )
    group.add_argument(
        "--seeds",
        metavar="N",
        type=int,
        default=Settings.seeds,
        help="independent starts, of which the best is taken (default: %(default)s)",
    )
    group.add_argument(
        "--working-side",
        metavar="PIXELS",
        type=int,
        default=Settings.working_side,
        help="larger photos are fitted at this size squared (default: %(default)s)",
    )


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The checked settings among parsed arguments, as keyword arguments; a bad one ends the program with code 2."""
    given = {field.name: getattr(args, field.name) for field in fields(Settings)}
    try:
        Settings(**given)
    except InputError as error:
        args.parser.error(str(error))
    return given
