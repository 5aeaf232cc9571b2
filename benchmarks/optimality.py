"""How far chroma and weights are from a solution, in float64 NumPy: energies, a lower bound of them, and residuals.

Of the problem in Lab without padding. J(u, w) = Σ sqrt(ε² + γ|∇Y|² + |∇U|² + |∇V|²) + λ/2 Σ_x Σ_i w_i |u - c_i|².
"""

from collections.abc import Sequence

import numpy as np

import jaxcolor.coupled_tv as ctv

# The set R of Lab: what the problem allows.
BOX = 160.0


def gradient(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forward differences along columns and rows, zero at the border."""
    right, below = np.zeros_like(plane), np.zeros_like(plane)
    right[:, :-1], below[:-1] = np.diff(plane, axis=1), np.diff(plane, axis=0)
    return right, below


def divergence(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Minus the adjoint of the gradient."""
    x, y = x.copy(), y.copy()
    x[:, -1], y[-1] = 0, 0
    spread = x + y
    spread[:, 1:] -= x[:, :-1]
    spread[1:] -= y[:-1]
    return spread


def energy(problem: ctv.CoupledTVProblem, chroma: np.ndarray, weights: np.ndarray, smoothing: float = 0.0) -> float:
    """J(u, w)."""
    density, _ = _density(problem, chroma, smoothing)
    return float(density.sum() + _number(problem.fidelity) / 2 * (weights * _distances(problem, chroma)).sum())


def dual_energy(problem: ctv.CoupledTVProblem, dual: Sequence[np.ndarray]) -> float:
    """D(p) = Σ p₀ a - <div p, c> - |div p|² / 2λ: a lower bound of the energy with the weights fixed, for |p| ≤ 1.

    ``dual``: a plane along the luminance's gradient, two for U, two for V; brought into the ball where they leave it.
    """
    planes = [np.asarray(plane, float) for plane in dual]
    norm = np.maximum(np.sqrt(sum(plane * plane for plane in planes)), 1)
    planes = [plane / norm for plane in planes]
    mean, lam = np.asarray(problem.mean(), float), _number(problem.fidelity)
    value = (planes[0] * np.sqrt(_guide(problem))).sum()
    for channel, (x, y) in enumerate((planes[1:3], planes[3:5])):
        spread = divergence(x, y)
        value -= (spread * mean[..., channel]).sum() + (spread**2).sum() / (2 * lam)
    # |u - c_i|² in the weighted mean is |u - mean|² and the candidates' own spread.
    spread_of_candidates = (np.asarray(problem.weights, float) * _distances(problem, mean)).sum()
    return float(value + lam / 2 * spread_of_candidates)


def residuals(
    problem: ctv.CoupledTVProblem, chroma: np.ndarray, weights: np.ndarray, smoothing: float, step: float
) -> tuple[float, float]:
    """Root mean squares over the pixels of u - P_R(u - ∇_u J) and of w - P_Δ(w - step λ/2 (|u - c_i|²)_i).

    Both are 0 where, and only where, J is stationary.
    """
    chroma, weights = np.asarray(chroma, float), np.asarray(weights, float)
    density, slopes = _density(problem, chroma, smoothing)
    candidates, lam = np.asarray(problem.candidates, float), _number(problem.fidelity)
    mean = (weights[..., None] * candidates).sum(-2)
    variation = np.stack([-divergence(x / density, y / density) for x, y in slopes], -1)
    moved = np.clip(chroma - variation - lam * (chroma - mean), -BOX, BOX)
    chosen = project_simplex(weights - step * lam / 2 * _distances(problem, chroma))
    return _rms(chroma - moved), _rms(weights - chosen)


def project_simplex(v: np.ndarray) -> np.ndarray:
    """The nearest points of the simplex, over the last axis (Duchi et al. 2008)."""
    sums = np.cumsum(np.sort(v, -1)[..., ::-1], -1)
    theta = ((sums - 1) / np.arange(1, v.shape[-1] + 1)).max(-1, keepdims=True)
    return np.maximum(v - theta, 0)


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt((difference**2).sum(-1).mean()))


def _number(value: object) -> float:
    return float(np.asarray(value))


def _guide(problem: ctv.CoupledTVProblem) -> np.ndarray:
    """γ|∇Y|²."""
    return _number(problem.coupling) * sum(g * g for g in gradient(np.asarray(problem.luminance, float)))  # type: ignore[no-any-return]


def _density(
    problem: ctv.CoupledTVProblem, chroma: np.ndarray, smoothing: float
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """The square roots, and the gradients of both channels."""
    slopes = [gradient(plane) for plane in np.moveaxis(np.asarray(chroma, float), -1, 0)]
    return np.sqrt(smoothing**2 + _guide(problem) + sum(x * x + y * y for x, y in slopes)), slopes


def _distances(problem: ctv.CoupledTVProblem, chroma: np.ndarray) -> np.ndarray:
    candidates = np.asarray(problem.candidates, float)
    return ((np.asarray(chroma, float)[:, :, None] - candidates) ** 2).sum(-1)
