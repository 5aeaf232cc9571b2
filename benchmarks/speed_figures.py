"""Figures of the tables of ``python -m benchmarks speed``."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcolor.plots import new_figure

from .roofline import least_bytes
from .solver import INERTIAL, TRIAD
from .timing import Table

_CANDIDATES = 10
_TEN = f" {_CANDIDATES} candidates"


def draw(tables: Sequence[Table], folder: Path) -> Iterator[str]:
    """Write every figure that the tables have something for; yields its path, or why there is none."""
    for name, figure in FIGURES.items():
        drawn = figure(tables)
        if drawn is None:
            yield f"no {name}: none of the tables is what it shows"
            continue
        path = folder / f"{name}.svg"
        drawn.savefig(path)
        yield str(path)


def iteration(tables: Sequence[Table]) -> Any:
    """Milliseconds of an iteration against the side of the image."""
    return _by_size(tables, "milliseconds an iteration", lambda seconds, _: 1e3 * seconds)


def roofline(tables: Sequence[Table]) -> Any:
    """The least traffic of an iteration over its time, and the bandwidth that a triad of as many bytes reaches."""

    def rate(seconds: float, side: int) -> float:
        return least_bytes(side**2, _CANDIDATES) / seconds / 1e9

    # The other solver moves other bytes.
    return _by_size(tables, "least bytes of an iteration / time, GB/s", rate, without=INERTIAL)


def _by_size(tables: Sequence[Table], label: str, value: Callable[[float, int], float], without: str = "") -> Any:
    sized = {table.size: table for table in tables if table.kind == "iteration" and _TEN in table.title}
    if not sized:
        return None
    lines: dict[str, list[tuple[float, float]]] = {}
    for side, table in sorted(sized.items()):
        for name, timing in table.rows.items():
            if name != without:
                lines.setdefault(name, []).append((side, value(timing.median, side)))
    return _drawn(lines, "side of the image, pixels", label, ceiling=TRIAD)


def gap(tables: Sequence[Table]) -> Any:
    """The duality gap against seconds, with fixed weights."""
    return _course(tables, "gap", "relative duality gap")


def residual(tables: Sequence[Table]) -> Any:
    """The residual against seconds, on the full problem."""
    return _course(tables, "residual", "residual / residual at the start")


def _course(tables: Sequence[Table], kind: str, label: str) -> Any:
    chosen = next((table for table in tables if table.kind == kind), None)
    return None if chosen is None else _drawn(chosen.curves, "seconds", label, marker=".-")


def memory(tables: Sequence[Table]) -> Any:
    """Peak memory of the command against the pixels of the photo."""
    lines = {
        table.title: [(value["pixels"], value["peak GB"]) for value in table.values.values()]
        for table in tables
        if table.kind == "growth"
    }
    return _drawn(lines, "pixels", "peak memory, GB") if lines else None


def stages(tables: Sequence[Table]) -> Any:
    """Seconds of the color stage against the pixels of the photo."""
    lines = {
        table.title: [(table.values[name]["pixels"], timing.median) for name, timing in table.rows.items()]
        for table in tables
        if table.kind == "growth"
    }
    return _drawn(lines, "pixels", "seconds of the color stage") if lines else None


def _drawn(
    lines: dict[str, list[tuple[float, float]]], across: str, up: str, ceiling: str = "", marker: str = "o-"
) -> Any:
    """One logarithmic panel, the legend below."""
    figure = new_figure(7, 5.5)
    axes = figure.subplots()
    for name, points in lines.items():
        color = {"color": "black"} if name == ceiling else {}
        axes.loglog(*np.transpose(points), "--" if name == ceiling else marker, label=name, **color)
    axes.set(xlabel=across, ylabel=up)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


FIGURES: dict[str, Callable[[Sequence[Table]], Any]] = {
    "iteration": iteration,
    "roofline": roofline,
    "gap": gap,
    "residual": residual,
    "memory": memory,
    "stages": stages,
}
