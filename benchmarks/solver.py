"""One iteration of the solvers, beside the hand-fused C bound, PyTorch and NumPy, in one run."""

import ctypes
import itertools
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxcolor.coupled_tv as ctv
from jaxcolor.coupled_tv.operators import edge_strength
from jaxcolor.coupled_tv.simplex import _sorting_network

from .timing import Table, Timing, measure_in_turns

SIGMA, TAU, RHO, LAM, GAMMA = 0.03125, 4.0, 1.8e-4, 0.01, 240.0


def instance(size: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A smooth luminance with edges, and random candidates of the palette's grid with random weights; float32."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    luminance = 50 + 30 * np.sign(np.sin(9 * x + 4 * np.cos(5 * y))) + rng.normal(0, 2, (size, size))
    candidates = 10.0 * rng.integers(-9, 10, (size, size, count, 2))
    weights = rng.dirichlet(np.ones(count), (size, size))
    return tuple(v.astype(np.float32) for v in (np.clip(luminance, 0, 100), candidates, weights))  # type: ignore[return-value]


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """Iterations over sizes with ten candidates, over candidates at one size; then with fixed weights."""
    cases = [(64, 4)] if quick else [(s, 10) for s in (128, 256, 512, 1024, 2048)] + [(512, 4), (512, 32)]
    for size, count in cases:
        yield iteration(size, count, peers)
    yield fixed_weights(64 if quick else 256, peers)


def iteration(size: int, count: int, peers: bool) -> Table:
    """Seconds per iteration by implementation; the first call of ``solve``, which compiles, in the title."""
    # Enough that what a solve does once does not count.
    steps = max(20, min(200, int(2.5e7 / size**2)))
    luminance, candidates, weights = instance(size, count)
    problem = ctv.CoupledTVProblem(luminance, candidates, weights, LAM, GAMMA)
    runs: dict[str, tuple[Callable[[], object], int]] = {}
    solver = ctv.PrimalDual(SIGMA, TAU, RHO)
    began = time.perf_counter()
    jax.block_until_ready(ctv.solve(problem, solver, steps))
    first = time.perf_counter() - began
    runs["jaxcolor primal-dual"] = (lambda: jax.block_until_ready(ctv.solve(problem, solver, steps)), steps)
    inertial = ctv.InertialForwardBackward()
    runs["jaxcolor inertial"] = (lambda: jax.block_until_ready(ctv.solve(problem, inertial, steps)), steps)
    notes = []
    if fused := fused_c(problem, steps):
        runs["fused C"] = (fused, steps)
    else:
        notes.append("no C compiler: the bound and the ratios to it are left out")
    # The peers' minutes at the largest sizes would tell nothing new.
    if peers and size <= 1024:
        runs |= _peers(luminance, candidates, weights, notes)
    title = f"primal-dual iteration, {size}², {count} candidates, float32; first call {first:.1f} s"
    return Table(title, _each(runs), "fused C", size, notes=notes)


def _each(runs: dict[str, tuple[Callable[[], object], int]]) -> dict[str, Timing]:
    """Of one of the iterations that every function makes, measured in turns."""
    whole = measure_in_turns({name: run for name, (run, _) in runs.items()}, 5)
    steps = {name: count for name, (_, count) in runs.items()}
    return {
        name: Timing(t.median / steps[name], t.least / steps[name], t.most / steps[name]) for name, t in whole.items()
    }


def _peers(
    luminance: np.ndarray, candidates: np.ndarray, weights: np.ndarray, notes: list[str]
) -> dict[str, tuple[Callable[[], object], int]]:
    runs: dict[str, tuple[Callable[[], object], int]] = {}
    try:
        import torch
    except ImportError:
        notes.append("PyTorch is not installed: its rows are left out")
    else:
        tensors = [torch.from_numpy(v) for v in (luminance, candidates, weights)]
        runs["PyTorch eager"] = (lambda: textbook(torch, *tensors, steps=3), 3)
        compiled = torch.compile(textbook, dynamic=False)
        try:
            compiled(torch, *tensors, steps=3)
        except Exception as error:  # no C++ compiler, or a Python that torch.compile does not know
            notes.append(f"torch.compile does not work here ({type(error).__name__}): its row is left out")
        else:
            runs["PyTorch compiled"] = (lambda: compiled(torch, *tensors, steps=3), 3)
    runs["NumPy"] = (lambda: textbook(np, luminance, candidates, weights, steps=2), 2)
    return runs


def fixed_weights(size: int, peers: bool) -> Table:
    """An iteration on the convex problem: one candidate, so that the weights stay."""
    luminance, candidates, weights = instance(size, 10)
    mean = np.einsum("hwk,hwkc->hwc", weights, candidates)
    problem = ctv.CoupledTVProblem(luminance, mean[:, :, None], np.ones((size, size, 1)), LAM, GAMMA)
    solver, steps = ctv.PrimalDual(SIGMA, TAU, 0.0), 50
    runs = {"jaxcolor": (lambda: jax.block_until_ready(ctv.solve(problem, solver, steps)), steps)}
    notes = []
    if peers:
        try:
            runs["scico PDHG"] = (scico_pdhg(luminance, mean, 20), 20)
        except ImportError:
            notes.append("scico is not installed: its row is left out")
    return Table(f"iteration with fixed weights, {size}²", _each(runs), "jaxcolor", notes=notes)


def scico_pdhg(luminance: np.ndarray, mean: np.ndarray, steps: int) -> Callable[[], object]:
    """scico's primal-dual solver: the gradient of luminance is an offset inside the norm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import
        import scico.numpy as snp
        from scico import functional, linop, loss
        from scico.optimize import PDHG

    def gradient(u: Any) -> Any:
        right = snp.pad(snp.diff(u, axis=2), ((0, 0), (0, 0), (0, 1)))
        below = snp.pad(snp.diff(u, axis=1), ((0, 0), (0, 1), (0, 0)))
        return snp.concatenate([right, below])

    y = snp.array(luminance)[None]
    offset = GAMMA**0.5 * gradient(y)

    class Coupled(functional.Functional):  # type: ignore[misc]
        """The norm over all components together of (offset, z): with the offset fixed its prox is a scalar equation,
        so the offset is a block of variables that the operator maps to zero."""

        has_eval, has_prox = True, True

        def __call__(self, z: Any) -> Any:
            return snp.sqrt((offset**2).sum(0) + (z[2:] ** 2).sum(0)).sum()

        def prox(self, v: Any, lam: float = 1.0, **_: Any) -> Any:
            moved = v.at[:2].add(offset)
            norm = snp.sqrt((moved**2).sum(0, keepdims=True))
            return (moved * snp.maximum(1 - lam / snp.maximum(norm, 1e-12), 0)).at[:2].add(-offset)

    shape = (2, *luminance.shape)
    operator = linop.LinearOperator(
        input_shape=shape,
        output_shape=(6, *luminance.shape),
        input_dtype=np.float32,
        eval_fn=lambda u: snp.concatenate([0 * offset, gradient(u)]),
        jit=True,
    )
    target = snp.array(np.moveaxis(mean, -1, 0))
    fidelity = loss.SquaredL2Loss(y=target, scale=LAM / 2)

    def run() -> object:
        solver = PDHG(fidelity, Coupled(), operator, tau=TAU, sigma=SIGMA, x0=target, maxiter=steps)
        return solver.solve().block_until_ready()

    return run


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
