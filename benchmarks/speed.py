"""How fast jaxcolor is beside its peers and the limit of the machine: one table for each job.

Medians of several repetitions, their spread in brackets, compilation apart, and the ratio to the named row. Peers that
are not installed are left out and named: PyTorch, scico (``pip install --no-deps scico``; with its dependencies it
replaces JAX by an older one), a C compiler for the bound.
"""

import argparse
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from jaxcolor.cli.targets import check_target

from .timing import Table, machine

# The modules that make the tables, and what each measures.
PARTS = {
    "solver": "an iteration beside C, PyTorch, NumPy and scico",
    "energy": "seconds to an energy",
    "projection": "the projection onto the simplex beside optax's",
    "convolution": "the networks' convolutions beside XLA's own rules and PyTorch",
    "networks": "the color network and its training beside PyTorch",
    "pipeline": "whole processes, memory, a folder",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m benchmarks speed``."""
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    parser.add_argument("--no-peers", action="store_true", help="leave PyTorch, NumPy, scico and optax out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything, for machines")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="figures as SVG; needs matplotlib")


def run(options: argparse.Namespace) -> None:
    """Print the tables as they come."""
    # Whatever is missing is missed now, not after many minutes.
    if options.json:
        check_target(options.json, "the results", "--json", force=True)
    if options.plot:
        # Here, not on top: plots load JAX, which the help of the command line does without.
        from jaxcolor.plots import new_figure

        new_figure(1, 1)
    about, made = machine(), []
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    if about["backend"] != "cpu":
        print("PyTorch, NumPy, scico and C run on the CPU: ratios to them are between devices", flush=True)
    for table in tables(options.only, options.quick, not options.no_peers):
        print(table, flush=True)
        made.append(table)
        if options.json:
            content = json.dumps({"machine": about, "tables": [table.plain() for table in made]}, indent=1)
            options.json.write_text(content)
    if options.plot:
        from .drawings import draw

        for path in draw(made, options.plot):
            print(path)


def tables(names: list[str], quick: bool, peers: bool) -> Iterator[Table]:
    """Of the parts with these names, in their order."""
    for name in names:
        yield from import_module(f".{name}", __package__).tables(quick, peers)
