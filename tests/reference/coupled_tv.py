"""Coupled TV in float64 NumPy, as the papers write it: arrays [H, W, ...], six dual components, sorted projection."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass
class Data:
    luminance: Float
    candidates: Float
    weights: Float
    fidelity: float
    coupling: float


def gradient(v: Float) -> Float:
    """[H, W] to [H, W, 2]: along columns, along rows."""
    g = np.zeros((*v.shape, 2))
    for j in range(v.shape[1] - 1):
        g[:, j, 0] = v[:, j + 1] - v[:, j]
    for i in range(v.shape[0] - 1):
        g[i, :, 1] = v[i + 1] - v[i]
    return g


def divergence(p: Float) -> Float:
    """Chambolle's formula, case by case: first, inner and last row and column."""
    height, width = p.shape[:2]
    d = np.zeros((height, width))
    if width > 1:
        d[:, 0] += p[:, 0, 0]
        d[:, 1:-1] += p[:, 1:-1, 0] - p[:, :-2, 0]
        d[:, -1] -= p[:, -2, 0]
    if height > 1:
        d[0] += p[0, :, 1]
        d[1:-1] += p[1:-1, :, 1] - p[:-2, :, 1]
        d[-1] -= p[-2, :, 1]
    return d


def project_simplex(v: Float) -> Float:
    """Over the last axis, by sorting and counting (Duchi et al. 2008)."""
    u = np.sort(v, -1)[..., ::-1]
    means = (np.cumsum(u, -1) - 1) / np.arange(1, v.shape[-1] + 1)
    last = np.sum(u > means, -1, keepdims=True) - 1
    return np.maximum(v - np.take_along_axis(means, last, -1), 0)


def distances(u: Float, c: Float) -> Float:
    return ((u[:, :, None] - c) ** 2).sum(-1)


def mean(w: Float, c: Float) -> Float:
    return (w[..., None] * c).sum(-2)


def energy(data: Data, u: Float, w: Float, smoothing: float = 0.0) -> float:
    square = smoothing**2 + data.coupling * (gradient(data.luminance) ** 2).sum(-1)
    square = square + (gradient(u[..., 0]) ** 2).sum(-1) + (gradient(u[..., 1]) ** 2).sum(-1)
    return float(np.sqrt(square).sum() + data.fidelity / 2 * (w * distances(u, data.candidates)).sum())


def primal_dual(
    data: Data, steps: int, sigma: float, tau: float, rho: float, smoothing: float = 0.0, project=lambda u: u
) -> tuple[Float, Float]:
    """(u, w) after some steps, from p = 0 and the weighted mean; a seventh dual component carries the smoothing."""
    c, lam, w = data.candidates, data.fidelity, data.weights
    u = project(mean(w, c))
    ahead = u
    p = np.zeros((*u.shape[:2], 7))
    offset = np.sqrt(data.coupling) * gradient(data.luminance)
    constant = np.full((*u.shape[:2], 1), smoothing)
    for _ in range(steps):
        p = p + sigma * np.concatenate([offset, gradient(ahead[..., 0]), gradient(ahead[..., 1]), constant], -1)
        p = p / np.maximum(1, np.linalg.norm(p, axis=-1, keepdims=True))
        w = project_simplex(w - rho * lam / 2 * distances(ahead, c))
        div = np.stack([divergence(p[..., 2:4]), divergence(p[..., 4:6])], -1)
        new = project((u + tau * div + tau * lam * mean(w, c)) / (1 + tau * lam))
        u, ahead = new, 2 * new - u
    return u, w


def relaxed(data: Data, steps: int, sigma: float, tau: float, relaxation: float) -> tuple[Float, Float]:
    """(u, p) of the last prox after some steps with fixed weights: Condat 2013, algorithm 3.1, in its own order."""
    lam, center = data.fidelity, mean(data.weights, data.candidates)
    u, p = center, np.zeros((*center.shape[:2], 6))
    offset = np.sqrt(data.coupling) * gradient(data.luminance)

    def ascended(u: Float, p: Float) -> Float:
        q = p + sigma * np.concatenate([offset, gradient(u[..., 0]), gradient(u[..., 1])], -1)
        return q / np.maximum(1, np.linalg.norm(q, axis=-1, keepdims=True))

    near = u
    for _ in range(steps):
        p = p + relaxation * (ascended(2 * near - u, p) - p)
        u = u + relaxation * (near - u)
        div = np.stack([divergence(p[..., 2:4]), divergence(p[..., 4:6])], -1)
        near = (u + tau * div + tau * lam * center) / (1 + tau * lam)
    return near, p


def inertial(
    data: Data, steps: int, smoothing: float, inertia: float, weight_inertia: float, rho: float
) -> tuple[Float, Float]:
    """(u, w) after some steps of the derived scheme, with the metric from the explicit matrix row sums."""
    c, lam, w = data.candidates, data.fidelity, data.weights
    a = np.sqrt(smoothing**2 + data.coupling * (gradient(data.luminance) ** 2).sum(-1))
    metric = row_sums(a)
    u = mean(w, c)
    u_old, w_old = u, w
    for _ in range(steps):
        v = u + inertia * (u - u_old)
        slopes = [gradient(v[..., 0]), gradient(v[..., 1])]
        norm = np.sqrt(a**2 + sum((s**2).sum(-1) for s in slopes))[..., None]
        slope = -np.stack([divergence(s / norm) for s in slopes], -1)
        new = (metric[..., None] * v - slope + lam * mean(w, c)) / (metric[..., None] + lam)
        u, u_old = new, u
        q = w + weight_inertia * (w - w_old)
        w, w_old = project_simplex(q - rho * lam / 2 * distances(u, c)), w
    return u, w


def row_sums(a: Float) -> Float:
    """Absolute row sums of gradientᵀ diag(1/a) gradient, from the assembled matrix."""
    size = a.size
    columns = [gradient(np.eye(size)[n].reshape(a.shape)).ravel() for n in range(size)]
    matrix = np.stack(columns, 1)
    scale = np.repeat(1 / a.ravel(), 2)
    return np.abs(matrix.T @ (scale[:, None] * matrix)).sum(1).reshape(a.shape)
