"""What the subcommands' parsers share."""

import argparse
import sys
import traceback
from dataclasses import fields
from typing import Any, NoReturn

from jaxcolor.errors import InputError
from jaxcolor.settings import METHODS, PRESETS, VARIANTS, WORKING_SIDE, Settings

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
    elif "Unable to initialize backend" in text:
        text = f"{text}; choose another device with JAX_PLATFORMS, such as JAX_PLATFORMS=cpu"
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
    _add_number(group, "candidates", int, "K", "colors per pixel")
    _add_number(
        group,
        "fidelity",
        float,
        "λ",
        "> 0; larger stays closer to the network's colors (default: 0.02, without guidance 0.01)",
    )
    _add_number(group, "coupling", float, "γ", ">= 0; larger ties color edges to gray edges (default: 240)")
    group.add_argument(
        "--variant", choices=VARIANTS, default=Settings.variant, help="how colors are enlarged (default: %(default)s)"
    )
    _add_number(group, "steps", int, "N", "of the primal-dual solver")
    _add_number(group, "refinement_steps", int, "N", "of the inertial solver after it")
    what = f"larger photos are worked on at this size squared, then led by their edges (default: {WORKING_SIDE})"
    _add_number(group, "working_side", int, "PIXELS", what)
    _add_number(group, "resolution", int, "PIXELS", "side of what the network sees")
    _add_number(group, "rebalancing", float, "POWER", "of the class weights: 0 likely colors, 1 vivid ones")
    _add_number(group, "temperature", float, "T", "of method cic: 1 cautious, towards 0 vivid")
    group = parser.add_argument_group("method deep-prior")
    group.add_argument("--preset", choices=PRESETS, help="default: fast on CPU, paper on GPU")
    _add_number(group, "prior_steps", int, "N", "of Adam (default: the preset's)")
    _add_number(group, "learning_rate", float, "RATE", "of Adam (default: the preset's)")
    _add_number(group, "plateau", float, "SHARE", "end when the loss changes by less in 200 steps (default: never)")
    _add_number(group, "seed", int, "N", "of the noise")
    _add_number(group, "seeds", int, "N", "independent starts, of which the best is taken")


def _add_number(group: "argparse._ArgumentGroup", name: str, kind: type, metavar: str, what: str) -> None:
    """Add the option of the field ``name`` of :class:`Settings`, with its default."""
    default = getattr(Settings, name)
    note = "" if default is None else " (default: %(default)s)"
    group.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, type=kind, default=default, help=f"{what}{note}")


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The checked settings among parsed arguments, as keyword arguments; a bad one ends the program with code 2."""
    given = {field.name: getattr(args, field.name) for field in fields(Settings)}
    try:
        Settings(**given)
    except InputError as error:
        args.parser.error(str(error))
    return given
