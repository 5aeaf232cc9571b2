"""Settings shared by all tests."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Nearly all of the tests' time is compilation. Programs are shared by the processes of a run and kept for the next one.
# Before any test imports JAX, which reads these once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Two processes share a GPU, if there is one.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

# Compilation makes a first example slow; that is no sign of a bad strategy.
settings.register_profile("jaxcolor", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("jaxcolor")

Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def compiled_quickly() -> Iterator[None]:
    """Leaves XLA's optimisations out: where programs are large, small is what they compute, and speed is not asked."""
    import jax

    usual = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", usual)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """As in a terminal, also where the tests were started in the background, where Python ignores it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process; the exit code and the lines of stdout and stderr, C libraries' included."""

    # Not on top: the command line sets the environment that JAX reads.
    from jaxcolor.cli.main import main

    def run(*arguments: Any) -> tuple[int, list[str], list[str]]:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capfd.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run
