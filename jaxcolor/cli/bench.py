"""``jaxcolor bench``: how fast this machine is, beside its peers; ``python -m benchmarks speed`` of the repository."""

import argparse
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add ``bench`` to the command line."""
    speed = _speed()
    parser = subparsers.add_parser(
        "bench", help="how fast this machine is, beside its peers", description=speed.__doc__
    )
    speed.add_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Print the tables."""
    _speed().run(args)
    return 0


def _speed() -> Any:
    # The wheel holds the benchmarks inside the package; in a checkout they lie beside it.
    inside = "jaxcolor.benchmarks"
    return import_module(f"{inside if find_spec(inside) else 'benchmarks'}.speed")
