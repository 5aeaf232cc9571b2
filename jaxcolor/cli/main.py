"""The ``jaxcolor`` command: parses, dispatches, and turns errors into one line and an exit code."""

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper

import jaxcolor
from jaxcolor.cache import cache_directory
from jaxcolor.cli import bench, colorize, demo, doctor, evaluate, refine, train, weights
from jaxcolor.cli.huge_pages import restart_with_huge_pages
from jaxcolor.cli.parsing import EXIT_FAILURE, EXIT_INTERRUPTED, OneLineParser, one_line
from jaxcolor.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 something failed, 2 bad usage, 130 Ctrl-C.

    Results go to stdout; progress and errors, one line each, to stderr.

    >>> main(["--version"])                                                        # doctest: +SKIP
    jaxcolor 0.1.0
    """
    # A service or a script may have closed them.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        try:
            return _run(arguments)
        finally:
            # Now, not at exit, where Python would complain about a reader that went away, or a full disk.
            sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # For example `jaxcolor … | head -1`, where nobody asks why.
        return EXIT_FAILURE if isinstance(error, BrokenPipeError) else _fail(error)


def _run(arguments: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        # File names may hold what the terminal's encoding does not.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread():
        # Ctrl-C works the same for a process that a script started in the background, where Python ignores it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    args = build_parser().parse_args(arguments)
    # Only in a process of our own.
    if arguments is None and _gains_from_huge_pages(args):
        restart_with_huge_pages()
    _set_environment(warnings_of_jax=args.command == "doctor")
    try:
        with warnings.catch_warnings():
            # Remarks of other libraries are for developers, who ask for them with PYTHONWARNINGS.
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            return args.run(args)
    except InputError as error:
        return _fail(error)
    except KeyboardInterrupt:
        print("jaxcolor: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except (MemoryError, OSError, RuntimeError) as error:  # the last also of a device that does not start, or is full
        return _fail(error)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    parser = OneLineParser(prog="jaxcolor", description="Automatic image colorization without color halos, in JAX.")
    parser.add_argument("--version", action="version", version=f"jaxcolor {jaxcolor.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (colorize, refine, demo, weights, train, evaluate, bench, doctor):
        command.add_parser(subparsers)
    return parser


def _gains_from_huge_pages(args: argparse.Namespace) -> bool:
    """Commands of many steps of a network or with the whole photo in a solver, and what measures them."""
    commands = args.command in ("train", "bench")
    return commands or getattr(args, "method", None) == "deep-prior" or getattr(args, "variant", None) == "mouzon2019"


def _set_environment(warnings_of_jax: bool) -> None:
    """Settings that JAX reads when it is first imported; the user's own come first.

    Compiled programs are kept on disk, so that only the first run of a command compiles, and logs stay out of stderr,
    but for warnings, as of a GPU that cannot be used, where they are wanted.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_directory() / "programs"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    os.environ.setdefault("JAX_LOGGING_LEVEL", "WARNING" if warnings_of_jax else "ERROR")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _fail(error: Exception) -> int:
    print(f"jaxcolor: error: {one_line(error)}", file=sys.stderr)
    return EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
