"""One iteration of the solvers, beside the hand-fused C bound, PyTorch and NumPy, in one run."""

import ctypes
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxcolor.coupled_tv as ctv
from benchmarks.timing import Timing, measure
from jaxcolor.coupled_tv.operators import edge_strength
from jaxcolor.coupled_tv.simplex import _sorting_network

SIGMA, TAU, RHO, LAM, GAMMA = 0.03125, 4.0, 1.8e-4, 0.01, 240.0


def instance(size: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A smooth luminance with edges, and random candidates of the palette's grid with random weights; float32."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    luminance = 50 + 30 * np.sign(np.sin(9 * x + 4 * np.cos(5 * y))) + rng.normal(0, 2, (size, size))
    candidates = 10.0 * rng.integers(-9, 10, (size, size, count, 2))
    weights = rng.dirichlet(np.ones(count), (size, size))
    return tuple(v.astype(np.float32) for v in (np.clip(luminance, 0, 100), candidates, weights))  # type: ignore[return-value]


def compare(size: int, count: int, steps: int, peers: bool) -> tuple[dict[str, Timing], float]:
    """Seconds per iteration by implementation, and compile time of ``solve`` in seconds."""
    luminance, candidates, weights = instance(size, count)
    problem = ctv.CoupledTVProblem(luminance, candidates, weights, LAM, GAMMA)
    runs: dict[str, tuple[Callable[[], object], int]] = {}
    solver = ctv.PrimalDual(SIGMA, TAU, RHO)
    began = time.perf_counter()
    jax.block_until_ready(ctv.solve(problem, solver, steps))
    compile_time = time.perf_counter() - began
    runs["jaxcolor primal-dual"] = (lambda: jax.block_until_ready(ctv.solve(problem, solver, steps)), steps)
    inertial = ctv.InertialForwardBackward()
    runs["jaxcolor inertial"] = (lambda: jax.block_until_ready(ctv.solve(problem, inertial, steps)), steps)
    if fused := fused_c(problem, steps):
        runs["fused C"] = (fused, steps)
    if peers:
        try:
            import torch
        except ImportError:
            pass
        else:
            tensors = [torch.from_numpy(v) for v in (luminance, candidates, weights)]
            runs["PyTorch eager"] = (lambda: textbook(torch, *tensors, steps=3), 3)
        runs["NumPy"] = (lambda: textbook(np, luminance, candidates, weights, steps=2), 2)
    timings = {}
    for name, (run, inner) in runs.items():
        t = measure(run, 5)
        timings[name] = Timing(t.median / inner, t.least / inner, t.most / inner)
    return timings, compile_time


_offsets = itertools.count()


def staggered(values: np.ndarray) -> np.ndarray:
    """A float32 copy whose address differs from that of other planes modulo the page size.

    Planes of 2^n bytes would all start in the same cache set, and forty streams would evict each other.
    """
    start = 16 * 7 * (next(_offsets) % 64)
    plane = np.empty(values.size + 16 * 7 * 64, np.float32)[start : start + values.size].reshape(values.shape)
    plane[...] = values
    return plane


def fused_c(problem: ctv.CoupledTVProblem, steps: int) -> Callable[[], object] | None:
    """The C iteration on copies of the problem's planes, or None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        network = "".join(f"S({i}, {j})\n" for i, j in _sorting_network(problem.count))
        Path(folder, "network.h").write_text(network)
        library = Path(folder, "fused.so")
        flags = [
            "-O3",
            "-march=native",
            "-mprefer-vector-width=512",
            "-ffast-math",
            "-fopenmp",
            "-shared",
            "-fPIC",
            f"-DK={problem.count}",
        ]
        source = Path(__file__).with_name("fused.c")
        command = [compiler, *flags, f"-I{folder}", str(source), "-o", str(library), "-lm"]
        if subprocess.run(command, capture_output=True).returncode:
            return None
        iterate = ctypes.CDLL(str(library)).iterate

    def planes(values: Any) -> tuple[Any, list[np.ndarray]]:
        arrays = [staggered(np.asarray(v)) for v in values]
        return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays)), arrays

    state = ctv.PrimalDual(SIGMA, TAU, RHO).init(problem)
    groups = [
        planes(layer for planes in problem.candidate_planes for layer in np.moveaxis(np.asarray(planes), 1, 0)),
        *map(planes, (np.moveaxis(np.asarray(state.weights), 1, 0), state.chroma, state.extrapolated, state.dual)),
    ]
    strength = np.array(edge_strength(problem.luminance, problem.coupling, 0.0))
    numbers = [ctypes.c_float(v) for v in (SIGMA, TAU, LAM, RHO)]
    pointers = [group[0] for group in groups]
    height, width = problem.shape

    def run() -> list[np.ndarray]:
        iterate(steps, height, width, ctypes.c_void_p(strength.ctypes.data), *pointers, *numbers)
        return groups[2][1]

    return run


def textbook(xp: Any, luminance: Any, candidates: Any, weights: Any, steps: int) -> Any:
    """The same iteration as one writes it first, with arrays [H, W, k, 2], in NumPy or PyTorch."""
    maximum = np.maximum if xp is np else lambda x, low: x.clamp(min=low)

    def gradient(v: Any) -> Any:
        g = xp.zeros((*v.shape, 2)) if xp is not np else np.zeros((*v.shape, 2), v.dtype)
        g[:, :-1, ..., 0] = v[:, 1:] - v[:, :-1]
        g[:-1, ..., 1] = v[1:] - v[:-1]
        return g

    def divergence(p: Any) -> Any:
        d = p.sum(-1)
        d[:, 1:] -= p[:, :-1, ..., 0]
        d[1:] -= p[:-1, ..., 1]
        return d

    def project(v: Any) -> Any:
        down = -np.sort(-v, -1) if xp is np else xp.sort(v, -1, descending=True).values
        count = xp.arange(1, v.shape[-1] + 1)
        theta = ((down.cumsum(-1) - 1) / count).max(-1)
        theta = theta if xp is np else theta.values
        return maximum(v - theta[..., None], 0)

    offset = GAMMA**0.5 * gradient(luminance)[:, :, None]
    u = (weights[..., None] * candidates).sum(-2)
    ahead, p, w = u, xp.zeros((*u.shape[:2], 3, 2)), weights
    if xp is np:
        p = p.astype(u.dtype)
    for _ in range(steps):
        p = p + SIGMA * (np.concatenate if xp is np else xp.cat)([offset, gradient(ahead)], 2)
        p = p / maximum((p * p).sum((-2, -1)) ** 0.5, 1)[..., None, None]
        distance = ((ahead[:, :, None] - candidates) ** 2).sum(-1)
        w = project(w - RHO * LAM / 2 * distance)
        mean = (w[..., None] * candidates).sum(-2)
        new = (u + TAU * divergence(p[:, :, 1:]) + TAU * LAM * mean) / (1 + TAU * LAM)
        u, ahead = new, 2 * new - u
    return u
