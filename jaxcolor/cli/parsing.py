"""What the subcommands' parsers share."""

import argparse
from dataclasses import fields
from typing import Any, NoReturn

from jaxcolor.errors import InputError
from jaxcolor.settings import METHODS, Settings


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports bad usage in one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print what was wrong and where the usage is found."""
        self.exit(2, f"{self.prog}: error: {message}; see '{self.prog} --help'\n")


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


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The checked settings among parsed arguments, as keyword arguments; a bad one ends the program with code 2."""
    given = {field.name: getattr(args, field.name) for field in fields(Settings)}
    try:
        Settings(**given)
    except InputError as error:
        args.parser.error(str(error))
    return given
