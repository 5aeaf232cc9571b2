"""``python -m benchmarks``: ``speed``, which is also what runs without a name, or one of the others."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from jaxcolor.cli.huge_pages import restart_with_huge_pages
from jaxcolor.errors import InputError

COMMANDS = {
    "speed": "solvers, networks and whole processes beside their peers",
    "quality": "the halo benchmark: colors against the truth",
    "deep-prior": "the deep prior: seconds a step, loss against time, colors beside other methods",
    "parameters": "the parameters of both methods, varied one after the other",
    "refine": "damage to colors that jc.refine undoes",
    "figures": "the figures of the two papers",
}
DEFAULT, HELP = "speed", ("-h", "--help")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark; options without a name are those of ``speed``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in {*COMMANDS, *HELP}:
        given.insert(0, DEFAULT)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in COMMANDS.items():
        # Only the benchmark that runs is imported; the others need packages that may not be there.
        chosen = name == (DEFAULT if given[0] in HELP else given[0])
        module = import_module(f".{name.replace('-', '_')}", __package__) if chosen else None
        command = commands.add_parser(name, help=what, description=module.__doc__ if module else what)
        if module is not None:
            module.add_arguments(command)
            command.set_defaults(run=module.run)
            parser.epilog = f"{name}:\n\n{command.format_help()}"
    options = parser.parse_args(given)
    if arguments is None and options.command in ("speed", "deep-prior"):  # as the commands that they measure
        restart_with_huge_pages()
    try:
        options.run(options)
    except InputError as error:
        raise SystemExit(f"{parser.prog}: error: {error}") from None


if __name__ == "__main__":
    main()
