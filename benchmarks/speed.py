"""How fast jaxcolor is beside its peers and the limit of the machine: one table for each job.

Medians of several repetitions, their spread in brackets, and the ratio to the named row; what was timed only once says
so. Compilation is a column of its own, with JAX's cache of programs off. Peers that are not installed are left out and
named: PyTorch, scico (``pip install --no-deps scico``; with its dependencies it replaces JAX by an older one), grain,
a C compiler for the fused loop. The default takes about half an hour on two cores.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from jaxcolor.cli.targets import check_target
from jaxcolor.errors import InputError

from .machine import machine, torch_threads

# The modules that make the tables, and what each measures.
PARTS = {
    "solver": "an iteration and a solve beside C, PyTorch, NumPy and scico",
    "energy": "seconds to an energy",
    "projection": "the projection onto the simplex beside optax's",
    "convolution": "the networks' convolutions beside XLA's own rules and PyTorch",
    "networks": "the color network and its training beside PyTorch",
    "loading": "training photos beside grain",
    "prior": "a step and a fit of the deep prior beside PyTorch",
    "pipeline": "whole processes, memory, folders",
    "accelerator": "what a GPU takes, or could at best",
}
FIGURES = Path("speed-figures")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m benchmarks speed``."""
    told = "; ".join(f"{name}: {what}" for name, what in PARTS.items())
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="NAME", help=f"default: all ({told})"
    )
    parser.add_argument("--no-peers", action="store_true", help="leave PyTorch, NumPy, scico, optax and grain out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything, for machines")
    parser.add_argument(
        "--plot",
        type=Path,
        nargs="?",
        const=FIGURES,
        metavar="FOLDER",
        help=f"figures as SVG, in {FIGURES}/ if no folder is given; needs matplotlib",
    )


def run(options: argparse.Namespace) -> None:
    """Print the tables as they come."""
    check(options)
    began, made = time.monotonic(), []
    with compiling_anew():
        about = machine() | ({} if options.no_peers else torch_threads())
        print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
        if about["backend"] != "cpu":
            print("PyTorch, NumPy, scico and C run on the CPU: ratios to them are between devices", flush=True)
        for name, table in tables(options.only, options.quick, not options.no_peers):
            made.append(table)
            print(table, f"  — {name}, {time.monotonic() - began:.0f} s since the start", sep="\n", flush=True)
            if options.json:
                content = json.dumps({"machine": about, "tables": [table.plain() for table in made]}, indent=1)
                options.json.write_text(content)
    if options.plot:
        from .speed_figures import draw

        for line in draw(made, options.plot):
            print(line)


def check(options: argparse.Namespace) -> None:
    """Raise for whatever is missing now, not after many minutes."""
    if options.json:
        check_target(options.json, "the results", "--json", force=True)
    if options.plot:
        # Here, not on top: plots load JAX, which the help of the command line does without.
        from jaxcolor.plots import new_figure

        new_figure(1, 1)
        try:
            options.plot.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {options.plot} of --plot: {error.strerror}") from error
        check_target(options.plot / "iteration.svg", "the figures", "--plot", force=True)


@contextmanager
def compiling_anew() -> Iterator[None]:
    """JAX's cache of compiled programs is off inside: first calls are timed too, and must compile."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    def set_to(use: bool) -> None:
        jax.config.update("jax_enable_compilation_cache", use)
        # Whether it is used was decided at the first compilation.
        compilation_cache.reset_cache()

    before = jax.config.jax_enable_compilation_cache
    set_to(False)
    try:
        yield
    finally:
        set_to(before)


def tables(names: list[str], quick: bool, peers: bool) -> Iterator[tuple[str, Any]]:
    """Of the parts with these names, in their order, each with its part's name."""
    # All at once: what cannot be imported is missed now too.
    modules = {name: import_module(f".{name}", __package__) for name in names}
    for name, module in modules.items():
        for table in module.tables(quick, peers):
            yield name, table
