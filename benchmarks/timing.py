"""Timing and tables of timings."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6}


@dataclass(frozen=True)
class Timing:
    """Seconds: median, smallest and largest of so many repetitions."""

    median: float
    least: float
    most: float
    repetitions: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Of the repetitions.

        >>> Timing.of([3.0, 1.0, 2.0])
        Timing(median=2.0, least=1.0, most=3.0, repetitions=3)
        """
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))

    def divided(self, count: int) -> "Timing":
        """Of one of so many that were done at once."""
        return Timing(self.median / count, self.least / count, self.most / count, self.repetitions)

    def spread(self, factor: float) -> str:
        """What to print beside the median: few repetitions are named, and a single one has no spread."""
        if self.repetitions == 1:
            return "once"
        of = "" if self.repetitions >= 5 else f" of {self.repetitions}"
        return f"[{factor * self.least:.2f} … {factor * self.most:.2f}]{of}"


@dataclass
class Table:
    """Seconds by name of what does one job; the ratios are those of the medians to the row ``reference``.

    ``size`` is the side of the image and ``kind`` what the table measures, for figures; ``unit`` is that of the printed
    numbers. ``compile`` are the seconds by which a first call took longer, ``values`` further numbers of a row,
    ``curves`` what a row was found from, points (seconds, value). ``notes`` say what is missing and why.
    """

    title: str
    rows: dict[str, Timing]
    reference: str
    size: int | None = None
    unit: str = "ms"
    notes: list[str] = field(default_factory=list)
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    compile: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    kind: str = ""

    def __str__(self) -> str:
        lines = [self.title, *(self._line(name, timing) for name, timing in self.rows.items())]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def _line(self, name: str, timing: Timing) -> str:
        factor, reference = UNITS[self.unit], self.rows.get(self.reference)
        line = f"  {name:36s}{factor * timing.median:10.2f} {self.unit} {timing.spread(factor):24s}"
        line += f"{timing.median / reference.median:8.2f}×" if reference else ""
        if self.compile:
            line += f"   compile {self.compile[name]:5.2f} s" if name in self.compile else 18 * " "
        return (line + "".join(f"   {what} {value:.4g}" for what, value in self.values.get(name, {}).items())).rstrip()

    def plain(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self)


def seconds(function: Callable[..., object], *arguments: Any) -> float:
    """Of one call of ``function``, which must wait for its own result."""
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def compile_seconds(function: Callable[..., object], *arguments: Any) -> float:
    """By which a first call takes longer than a second one."""
    return max(0.0, seconds(function, *arguments) - seconds(function, *arguments))


def measure(function: Callable[[], object], repetitions: int = 7, before: Callable[[], object] | None = None) -> Timing:
    """Time ``function``; one call before, or one of ``before``, does not count."""
    (before or function)()
    return Timing.of([seconds(function) for _ in range(repetitions)])


def measure_within(function: Callable[[], float], limit: float, repetitions: int = 5) -> Timing:
    """Of a ``function`` that returns its own seconds: again until so many repetitions, or the limit of seconds."""
    began, times = time.perf_counter(), [function()]
    while len(times) < repetitions and time.perf_counter() - began + times[-1] < limit:
        times.append(function())
    return Timing.of(times)


def measure_in_turns(functions: dict[str, Callable[[], object]], repetitions: int = 7) -> dict[str, Timing]:
    """Time several functions, one call of each in turn, so that a machine whose speed drifts treats them alike.

    The first two calls of every turn do not count: threads of the library that ran before may still be spinning, and
    the host of a virtual machine takes back what memory lies idle meanwhile, and gives it again in its own time.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repetitions):
        for name, function in functions.items():
            function()
            times[name].append(measure(function, 1).median)
    return {name: Timing.of(of) for name, of in times.items()}


def faster(ways: dict[str, Callable[[], object]]) -> str:
    """The name of the fastest."""
    rows = measure_in_turns(ways, 3)
    return min(rows, key=lambda name: rows[name].median)


class Steps(NamedTuple):
    """``run(n)`` takes n steps and waits for them; it is timed with ``few`` and with ``many``."""

    run: Callable[[int], object]
    few: int
    many: int

    @classmethod
    def within(cls, run: Callable[[int], object], limit: float, most: int = 24) -> "Steps":
        """As many steps as fit in about so many seconds, at least two; compiles what there is to compile."""
        run(1)
        return cls(run, 1, 1 + max(2, min(most, int(limit / max(seconds(run, 1), 1e-9)))))


def measure_steps(ways: dict[str, Steps], repetitions: int = 5) -> dict[str, Timing]:
    """Seconds of one step of each, in turns: what ``many`` take longer than ``few``, so that a run's start is left out.

    The first two runs of every turn do not count, as in :func:`measure_in_turns`.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            way.run(way.few)
            way.run(way.few)
            less, more = seconds(way.run, way.few), seconds(way.run, way.many)
            times[name].append((more - less) / (way.many - way.few))
    return {name: Timing.of(of) for name, of in times.items()}
