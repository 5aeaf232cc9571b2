"""The primal-dual iteration in C (``fused.c``), in the fastest of several builds: what the machine can do."""

import ctypes
import itertools
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import jaxcolor.coupled_tv as ctv
from jaxcolor.coupled_tv.operators import edge_strength
from jaxcolor.coupled_tv.simplex import _sorting_network

from .machine import compiler

LANES = (8, 16, 32)
THRESHOLDS = ("sorted", "Newton")
LAYOUTS = ("planes", "rows")
_offsets = itertools.count()


class NoCompiler(Exception):
    """Why there is no C loop."""


class FusedC:
    """Steps in C on copies of a problem's planes; calling it takes so many more, of one build.

    ``builds`` names all: how many lanes, how the threshold is found, and whether a step passes over memory once or
    twice. ``layout``: every plane by itself, or the rows of all planes together.
    """

    def __init__(self, problem: ctv.CoupledTVProblem, solver: ctv.PrimalDual, layout: str = "planes") -> None:
        self.count, self.shape = problem.count, problem.shape
        libraries, self.notes = compiled(problem.count)
        self.builds = {
            f"{name}, {passes}": (library, passes == "one pass")
            for name, library in libraries.items()
            for passes in ("one pass", "two passes")
        }
        self.build = next(iter(self.builds))
        groups = _planes_of(problem, solver)
        names = list(itertools.chain.from_iterable([[name] * len(planes) for name, planes in groups.items()]))
        planes = list(_laid_out(list(itertools.chain.from_iterable(groups.values())), layout))
        self.planes = {name: [p for n, p in zip(names, planes, strict=True) if n == name] for name in groups}
        self.stride = planes[0].strides[0] // planes[0].itemsize
        self.numbers = [
            ctypes.c_float(float(x))
            for x in (solver.dual_step, solver.primal_step, problem.fidelity, solver.weight_step)
        ]

    def __call__(self, steps: int, turning: bool = False) -> None:
        """Take so many steps; with ``turning`` every core takes in each step the rows that another took in the last."""
        library, single = self.builds[self.build]
        pointers = [(ctypes.c_void_p * len(of))(*(p.ctypes.data for p in of)) for of in list(self.planes.values())[1:]]
        strength = ctypes.c_void_p(self.planes["strength"][0].ctypes.data)
        size = (*self.shape, ctypes.c_size_t(self.stride))
        library.iterate(steps, int(single), int(turning), *size, strength, *pointers, *self.numbers)
        if steps % 2:
            self.planes["chroma"], self.planes["before"] = self.planes["before"], self.planes["chroma"]

    def choose(self) -> float:
        """Go on with the build that took the least time for one step of three; that time."""
        seconds = {build: min(self._seconds(build) for _ in range(3)) for build in self.builds}
        self.build = min(seconds, key=seconds.__getitem__)
        return seconds[self.build]

    def _seconds(self, build: str) -> float:
        self.build, began = build, time.perf_counter()
        self(1)
        return time.perf_counter() - began


def fastest(problem: ctv.CoupledTVProblem, solver: ctv.PrimalDual) -> tuple[FusedC, str]:
    """The C loop in the build and layout that a few steps found to be the fastest, and their name.

    Raises :class:`NoCompiler`.
    """
    found: dict[str, tuple[FusedC, float]] = {}
    for layout in LAYOUTS:
        loop = FusedC(problem, solver, layout)
        found[layout] = loop, loop.choose()
    layout, (loop, _) = min(found.items(), key=lambda item: item[1][1])
    return loop, f"{loop.build}, {layout}"


def _planes_of(problem: ctv.CoupledTVProblem, solver: ctv.PrimalDual) -> dict[str, Sequence[np.ndarray]]:
    """In the order of the arguments of ``iterate``."""
    state = solver.init(problem)

    def layers(planes: Any) -> np.ndarray:
        return np.moveaxis(np.asarray(planes), 1, 0)

    return {
        "strength": [np.asarray(edge_strength(problem.luminance, problem.coupling, solver.smoothing))],
        "candidates": [layer for planes in problem.candidate_planes for layer in layers(planes)],
        "weights": list(layers(state.weights)),
        "chroma": [np.asarray(plane) for plane in state.chroma],
        "before": [np.asarray(plane) for plane in state.chroma],
        "dual": [np.asarray(plane) for plane in state.dual],
    }


def _laid_out(planes: Sequence[np.ndarray], layout: str) -> Iterator[np.ndarray]:
    """Copies, with one stride for all."""
    height, width = planes[0].shape
    together = np.empty((height, len(planes), width), np.float32) if layout == "rows" else None
    for number, plane in enumerate(planes):
        copy = _apart(height, width) if together is None else together[:, number]
        copy[...] = plane
        yield copy


def _apart(height: int, width: int) -> np.ndarray:
    """A plane whose address differs from that of others modulo the page size.

    Planes of 2^n bytes would all start in the same cache set, and forty streams would evict each other.
    """
    step, places = 16 * 7, 64
    start = step * (next(_offsets) % places)
    return np.empty(height * width + step * places, np.float32)[start : start + height * width].reshape(height, width)


def triad(moved: int) -> Callable[[], object]:
    """A sweep that reads two numbers and writes one with all cores, so many bytes in all."""
    library = next(iter(compiled(1)[0].values()))
    count = moved // 12
    x, y = np.zeros(count, np.float32), np.ones(count, np.float32)
    # Its pointers keep no array alive.
    return lambda: (library.triad(ctypes.c_long(count), *map(_pointer, (x, y)), ctypes.c_float(0.5)), x, y)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@lru_cache
def compiled(count: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Libraries for so many candidates by name, and what there is to say about them; raises :class:`NoCompiler`."""
    libraries, openmp = {}, True
    for lanes, threshold in itertools.product(LANES if count > 1 else LANES[:1], THRESHOLDS):
        settings = [f"-DK={count}", f"-DLANES={lanes}", *(["-DNEWTON"] if threshold == "Newton" else [])]
        try:
            library = build(settings, _sorting_network(count), openmp)
        except NoCompiler:
            if not openmp:
                raise
            openmp = False
            library = build(settings, _sorting_network(count), openmp)
        libraries[f"{lanes} lanes, {threshold}"] = library
    return libraries, () if openmp else ("the C compiler has no OpenMP: fused C uses one core",)


def build(settings: Sequence[str], network: Sequence[tuple[int, int]], openmp: bool = True) -> Any:
    """``fused.c`` as a library; raises :class:`NoCompiler` with the compiler's first words."""
    if (program := compiler()) is None:
        raise NoCompiler("there is no C compiler")
    threads = ["-fopenmp"] if openmp else []
    flags = ["-O3", "-ffast-math", "-fopenmp-simd", "-fPIC", *_of_this_processor(), *threads, *settings]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "network.h").write_text("".join(f"S({i}, {j})\n" for i, j in network))
        source, made, library = Path(__file__).with_name("fused.c"), Path(folder, "fused.o"), Path(folder, "fused.so")
        _run([program, "-c", *flags, f"-I{folder}", str(source), "-o", str(made)])
        # Without -ffast-math here: with it, loading the library would flush small numbers to 0 in the whole process.
        _run([program, "-shared", *threads, str(made), "-o", str(library), "-lm"])
        return ctypes.CDLL(str(library))


def _of_this_processor() -> list[str]:
    if platform.machine().lower() in ("x86_64", "amd64", "i686"):
        return ["-march=native", "-mprefer-vector-width=512"]
    return ["-mcpu=native"]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = next((line.strip() for line in done.stderr.splitlines() if line.strip()), "no message")
        raise NoCompiler(f"the C compiler failed: {said}")
