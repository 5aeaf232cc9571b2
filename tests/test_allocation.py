"""Memory that stays with the process between two runs of a program, and comes back to the system afterwards."""

import os
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.prior import start
from jaxcolor import allocation
from jaxcolor.allocation import in_blocks, memory_kept
from jaxcolor.cic.training.config import TrainingConfig
from jaxcolor.cic.training.state import initial_state
from jaxcolor.cic.training.step import largest_array, make_step
from jaxcolor.color.palette import ab_bins
from jaxcolor.deep_prior import SkipNetwork
from jaxcolor.deep_prior import steps as steps_of_fit
from jaxcolor.deep_prior.presets import Preset

# A program with some 100 MB of temporaries: pages that are touched for the first time by a run of it, outside and
# inside the context, and the process's resident memory inside and after it, in MB.
MEASURE = """
import os, resource, sys
import jax, jax.numpy as jnp
from jaxcolor.allocation import in_blocks, memory_kept

def program(x):
    parts = [(x + i) @ jnp.ones((4, 4)) for i in range(8)]
    return sum(part[::-1] for part in parts).sum()

run, x = jax.jit(program, compiler_options=in_blocks(0)), jnp.ones((750_000, 4))

def faults():
    # The fewest, because the first run by each of the threads touches memory of its own.
    counts = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
    for _ in range(10):
        run(x).block_until_ready()
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return min(after - before for before, after in zip(counts, counts[1:]))

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 10**6

print(faults())
with memory_kept():
    print(faults(), resident())
print(resident())
"""


def measured(**environment: str) -> list[int]:
    usual = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", MEASURE]
    result = subprocess.run(command, env=usual | environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return [int(word) for word in result.stdout.split()]


@pytest.mark.skipif(allocation._library() is None, reason="memory is kept with glibc on CPUs of few cores")
def test_pages_are_touched_once_and_given_back_at_the_end() -> None:
    outside, inside, resident, after = measured()
    assert outside > 10_000
    assert inside < outside / 50
    assert after < resident - 50


@pytest.mark.skipif(allocation._library() is None, reason="memory is kept with glibc on CPUs of few cores")
def test_a_users_own_settings_stay() -> None:
    outside, inside, *_ = measured(GLIBC_TUNABLES="glibc.malloc.mmap_threshold=1000000")
    assert inside > outside / 2 > 5_000


class Library:
    """Notes what is asked of it."""

    gnu_get_libc_version = None

    def __init__(self) -> None:
        self.settings: dict[int, int] = {}
        self.trimmed = 0

    def mallopt(self, number: int, value: int) -> None:
        self.settings[number] = value

    def malloc_trim(self, pad: Any) -> None:
        self.trimmed += 1


def test_only_the_last_of_several_contexts_gives_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(allocation, "_library", lambda: library)
    first, second = memory_kept(), memory_kept()  # beside each other: the one that began first ends first
    first.__enter__()
    second.__enter__()
    kept = dict(library.settings)
    first.__exit__(None, None, None)
    assert (library.settings, library.trimmed) == (kept, 0)
    second.__exit__(None, None, None)
    assert library.trimmed == 1
    assert library.settings.keys() > kept.keys()
    assert all(library.settings[number] != value for number, value in kept.items())
    with pytest.raises(ZeroDivisionError), memory_kept():
        raise ZeroDivisionError
    assert library.trimmed == 2


@pytest.mark.parametrize("what", ["another library", "an accelerator", "many cores", "another system"])
def test_elsewhere_nothing_is_set(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    changes: dict[str, tuple[str, Any]] = {
        "another library": ("ctypes.CDLL", lambda name: object()),
        "an accelerator": ("jax.default_backend", lambda: "gpu"),
        "many cores": ("os.sched_getaffinity", lambda process: set(range(64))),
        "another system": ("sys.platform", "win32"),
    }
    monkeypatch.setattr(f"jaxcolor.allocation.{changes[what][0]}", changes[what][1], raising=False)
    assert in_blocks(1) is None
    with memory_kept():
        assert allocation._depth == 0


def largest(program: Any) -> int:
    """Bytes of the largest array of a compiled program."""
    shapes = re.findall(r"\bf32\[([\d,]+)\]", program.as_text())
    return max(4 * int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes)


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize("channels", [16, pytest.param(128, marks=pytest.mark.slow)])
def test_the_largest_array_of_a_step_of_the_deep_prior(channels: int) -> None:
    preset = Preset(network=SkipNetwork(channels=channels, scales=1))
    data, state, inputs = start(preset, 64)
    state, noise = jax.tree.map(lambda leaf: leaf[0], (state, inputs))
    arguments = (preset.network, data, preset.objective, state, noise, np.float32(0.01))
    program = jax.jit(steps_of_fit._step, static_argnums=0).lower(*arguments).compile()
    most = steps_of_fit.largest_array(preset.network, data)
    assert most / 4 < largest(program) <= most


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize(("width", "size"), [(1 / 32, 32), pytest.param(1 / 4, 64, marks=pytest.mark.slow)])
def test_the_largest_array_of_a_training_step(width: float, size: int) -> None:
    config = TrainingConfig(width=width, size=size, batch=2)
    step = make_step(config, jnp.ones(len(ab_bins())))
    state = initial_state(config, jnp.full(len(ab_bins()), 1 / len(ab_bins())))
    program = step.lower(state, np.zeros((2, size, size, 3), np.uint8)).compile()  # type: ignore[attr-defined]
    assert largest(program) <= largest_array(config)
