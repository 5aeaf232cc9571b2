"""Timing, tables of timings, and what to record about the machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxcolor.cic.training.provenance import code_commit

PACKAGES = ("jax", "numpy", "torch", "scico")


@dataclass(frozen=True)
class Timing:
    """Seconds: median, smallest and largest of the repetitions."""

    median: float
    least: float
    most: float


@dataclass
class Table:
    """Seconds by name of what does one job; the ratios are those of the medians to the row ``reference``.

    ``size`` is the side of the image, for figures; ``unit`` is that of the printed numbers. ``notes`` say what is
    missing and why, ``values`` are further numbers of a row.
    """

    title: str
    rows: dict[str, Timing]
    reference: str
    size: int | None = None
    unit: str = "ms"
    notes: list[str] = field(default_factory=list)
    values: dict[str, dict[str, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        factor = {"s": 1.0, "ms": 1e3, "µs": 1e6}[self.unit]
        bound = self.rows.get(self.reference)
        lines = [self.title]
        for name, t in self.rows.items():
            spread = f"[{factor * t.least:.2f} … {factor * t.most:.2f}]"
            line = f"  {name:30s} {factor * t.median:9.2f} {self.unit} {spread:22s}"
            line += f"{t.median / bound.median:8.2f}×" if bound else ""
            line += "".join(f"   {what} {value:.4g}" for what, value in self.values.get(name, {}).items())
            lines.append(line.rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def plain(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self)


def measure(function: Callable[[], object], repetitions: int = 7, before: Callable[[], object] | None = None) -> Timing:
    """Time ``function``, which must wait for its own result; one call before, or one of ``before``, does not count."""
    (before or function)()
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return Timing(statistics.median(times), min(times), max(times))


def measure_in_turns(functions: dict[str, Callable[[], object]], repetitions: int = 7) -> dict[str, Timing]:
    """Time several functions, one call of each in turn, so that a machine whose speed drifts treats them alike.

    The first call of every turn does not count: threads of the library that ran before may still be spinning.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repetitions):
        for name, function in functions.items():
            times[name].append(measure(function, 1).median)
    return {name: Timing(statistics.median(of), min(of), max(of)) for name, of in times.items()}


def machine() -> dict[str, str]:
    """Processor, number of cores, versions of what is installed, commit, and how memory is taken if not as usual.

    ``jaxcolor train`` and the deep prior's command run with ``GLIBC_TUNABLES=glibc.malloc.hugetlb=1``.
    """
    import jax

    tunables = os.environ.get("GLIBC_TUNABLES")
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        **{package: version for package in PACKAGES if (version := _version(package))},
        "commit": code_commit() or "unknown",
        **({"GLIBC_TUNABLES": tunables} if tunables else {}),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
