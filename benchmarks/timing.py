"""Timing and what to record about the machine."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """Seconds: median, smallest and largest of the repetitions."""

    median: float
    least: float
    most: float


def measure(function: Callable[[], object], repetitions: int = 7, before: Callable[[], object] | None = None) -> Timing:
    """Time ``function``, which must wait for its own result; one call before, or one of ``before``, does not count."""
    (before or function)()
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return Timing(statistics.median(times), min(times), max(times))


def machine() -> dict[str, str]:
    """Processor, number of cores, versions and commit."""
    import jax

    folder = Path(__file__).resolve().parent
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True)
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "commit": commit.stdout.strip() or "unknown",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
