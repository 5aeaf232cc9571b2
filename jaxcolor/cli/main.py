"""The ``jaxcolor`` command: parses, dispatches, and turns errors into one line and an exit code."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

import jaxcolor
from jaxcolor.cache import cache_directory
from jaxcolor.cli import colorize, demo, doctor, train, weights
from jaxcolor.cli.parsing import OneLineParser
from jaxcolor.errors import InputError

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 something failed, 2 bad usage, 130 Ctrl-C.

    >>> main(["--version"])                                                        # doctest: +SKIP
    jaxcolor 0.1.0
    """
    # Ctrl-C works the same for a process that a script started in the background, where Python ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    args = build_parser().parse_args(arguments)
    _keep_compiled_programs()
    try:
        return args.run(args)
    except InputError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("jaxcolor: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except MemoryError:
        return _fail("out of memory; resize the photo or use fewer candidates")
    except BrokenPipeError:
        # The reader of our output went away, for example `head`; Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    parser = OneLineParser(prog="jaxcolor", description="Automatic image colorization without color halos, in JAX.")
    parser.add_argument("--version", action="version", version=f"jaxcolor {jaxcolor.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (colorize, demo, weights, train, doctor):
        command.add_parser(subparsers)
    return parser


def _keep_compiled_programs() -> None:
    """Let JAX keep compiled programs on disk, so that only the first run of a command compiles.

    By environment variables, which JAX reads when it is first imported; the user's own settings come first.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_directory() / "programs"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _fail(message: str) -> int:
    print(f"jaxcolor: error: {message}", file=sys.stderr)
    return EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
