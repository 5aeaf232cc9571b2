"""The primal-dual iteration as others would write it: by the textbook in NumPy and PyTorch, and as ours in PyTorch."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import jaxcolor.coupled_tv as ctv
from jaxcolor.coupled_tv.simplex import _sorting_network

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Iteration:
    """A state to start from, one step, and the chroma ``[H, W, 2]`` and weights ``[H, W, k]`` of a state."""

    start: Any
    step: Callable[[Any], Any]
    chroma: Callable[[Any], np.ndarray]
    weights: Callable[[Any], np.ndarray]

    def run(self, steps: int) -> Any:
        """The state after so many steps."""
        state = self.start
        for _ in range(steps):
            state = self.step(state)
        return state


def textbook(xp: Any, arrays: Arrays, problem: ctv.CoupledTVProblem, solver: ctv.PrimalDual) -> Iteration:
    """As one writes it first, with arrays ``[H, W, k, 2]``; ``xp`` is NumPy or PyTorch."""
    numpy = xp is np
    luminance, candidates, weights = arrays if numpy else map(xp.from_numpy, arrays)
    numbers = solver.dual_step, solver.primal_step, solver.weight_step, problem.fidelity, problem.coupling
    sigma, tau, rho, lam, gamma = map(float, numbers)
    maximum = np.maximum if numpy else lambda x, low: x.clamp(min=low)
    joined = np.concatenate if numpy else xp.cat
    # Of the data's own type, or NumPy would compute in double precision.
    count = xp.arange(1, weights.shape[-1] + 1, dtype=weights.dtype)

    def gradient(v: Any) -> Any:
        g = xp.zeros((*v.shape, 2), dtype=v.dtype)
        g[:, :-1, ..., 0] = v[:, 1:] - v[:, :-1]
        g[:-1, ..., 1] = v[1:] - v[:-1]
        return g

    def divergence(p: Any) -> Any:
        d = p.sum(-1)
        d[:, 1:] -= p[:, :-1, ..., 0]
        d[1:] -= p[:-1, ..., 1]
        return d

    def project(v: Any) -> Any:
        down = -np.sort(-v, -1) if numpy else xp.sort(v, -1, descending=True).values
        theta = ((down.cumsum(-1) - 1) / count).max(-1)
        theta = theta if numpy else theta.values
        return maximum(v - theta[..., None], 0)

    offset = gamma**0.5 * gradient(luminance)[:, :, None]

    def step(state: Any) -> Any:
        u, ahead, w, p = state
        p = p + sigma * joined([offset, gradient(ahead)], 2)
        p = p / maximum((p * p).sum((-2, -1)) ** 0.5, 1)[..., None, None]
        distance = ((ahead[:, :, None] - candidates) ** 2).sum(-1)
        w = project(w - rho * lam / 2 * distance)
        mean = (w[..., None] * candidates).sum(-2)
        new = (u + tau * divergence(p[:, :, 1:]) + tau * lam * mean) / (1 + tau * lam)
        return new, 2 * new - u, w, p

    u = (weights[..., None] * candidates).sum(-2)
    start = u, u, weights, xp.zeros((*u.shape[:2], 3, 2), dtype=u.dtype)
    return Iteration(start, step, lambda state: np.asarray(state[0]), lambda state: np.asarray(state[2]))


def planes(torch: Any, arrays: Arrays, problem: ctv.CoupledTVProblem, solver: ctv.PrimalDual) -> Iteration:
    """As ours: planes ``[H, W]``, a dual variable along the luminance's gradient, a sorting network, sums kept once."""
    luminance, candidates, weights = map(torch.from_numpy, arrays)
    numbers = solver.dual_step, solver.primal_step, solver.weight_step, problem.fidelity, problem.coupling
    sigma, tau, rho, lam, gamma = map(float, numbers)
    pad, network = torch.nn.functional.pad, _sorting_network(weights.shape[-1])

    def gradient(v: Any) -> tuple[Any, Any]:
        return pad(v[:, 1:] - v[:, :-1], (0, 1)), pad(v[1:] - v[:-1], (0, 0, 0, 1))

    def divergence(x: Any, y: Any) -> Any:
        return x - pad(x[:, :-1], (1, 0)) + y - pad(y[:-1], (0, 0, 1, 0))

    def threshold(entries: list[Any]) -> Any:
        v = list(entries)
        for i, j in network:
            v[i], v[j] = torch.maximum(v[i], v[j]), torch.minimum(v[i], v[j])
        partial, best = v[0], v[0] - 1
        for count, value in enumerate(v[1:], start=2):
            partial = partial + value
            best = torch.maximum(best, (partial - 1) * (1 / count))
        return best

    def split(array: Any) -> list[Any]:
        return [plane.contiguous() for plane in array.unbind(-1)]

    strength = (gamma * sum(g * g for g in gradient(luminance))) ** 0.5
    colors = [split(candidates[..., 0]), split(candidates[..., 1])]

    def step(state: Any) -> Any:
        u, ahead, w, p = state
        slopes = strength, *gradient(ahead[0]), *gradient(ahead[1])
        moved = [q + sigma * slope for q, slope in zip(p, slopes, strict=True)]
        scale = torch.rsqrt(sum(q * q for q in moved).clamp(min=1))
        p = [q * scale for q in moved]
        entries = [
            x - rho * lam / 2 * ((ahead[0] - a) ** 2 + (ahead[1] - b) ** 2) for x, a, b in zip(w, *colors, strict=True)
        ]
        theta = threshold(entries)
        w = [(x - theta).clamp(min=0) for x in entries]
        means = [sum(x * c for x, c in zip(w, of, strict=True)) for of in colors]
        new = [
            (plane + tau * divergence(x, y) + tau * lam * mean) / (1 + tau * lam)
            for plane, x, y, mean in zip(u, p[1::2], p[2::2], means, strict=True)
        ]
        return new, [2 * n - plane for n, plane in zip(new, u, strict=True)], w, p

    w = split(weights)
    u = [sum(x * c for x, c in zip(w, of, strict=True)) for of in colors]
    start = u, u, w, [torch.zeros_like(luminance) for _ in range(5)]
    return Iteration(start, step, lambda state: np.stack(state[0], -1), lambda state: np.stack(state[2], -1))


def without_gradients(torch: Any, iteration: Iteration) -> Iteration:
    """The same in PyTorch's inference mode, as one runs a solver."""
    return replace(iteration, step=torch.inference_mode()(iteration.step))


def compiled(torch: Any, iteration: Iteration) -> Iteration:
    """The same with a step that ``torch.compile`` made; raises what that raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own parts
        made = without_gradients(torch, replace(iteration, step=torch.compile(iteration.step, dynamic=False)))
        made.run(2)  # The second step begins from other strides and may compile again.
    return made
