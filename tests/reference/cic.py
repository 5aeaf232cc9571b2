"""Bins, read-outs and the training loss of Zhang et al. 2016 in float64 NumPy, one color at a time."""

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# The corners of the polygon around the bins, counter-clockwise, as (a*, b*).
POLYGON = [
    (-90, 50), (-80, 20), (-60, -20), (-30, -50), (10, -80), (40, -100), (60, -110), (90, -110),
    (100, -90), (100, 0), (90, 70), (70, 80), (40, 90), (0, 100), (-50, 100), (-90, 90),
]  # fmt: skip


def bins() -> Float:
    """The points of the grid of step 10 on or inside the polygon, a* ascending, then b*."""

    def inside(a: int, b: int) -> bool:
        edges = zip(POLYGON, POLYGON[1:] + POLYGON[:1], strict=True)
        return all((x1 - x0) * (b - y0) - (y1 - y0) * (a - x0) >= 0 for (x0, y0), (x1, y1) in edges)

    grid = range(-200, 201, 10)
    return np.array([(a, b) for a in grid for b in grid if inside(a, b)], np.float64)


def soft_encode(color: Float, palette: Float, neighbors: int, sigma: float) -> Float:
    distance2 = ((palette - color) ** 2).sum(1)
    z = np.zeros(len(palette))
    for q in np.argsort(distance2, kind="stable")[:neighbors]:
        z[q] = np.exp(-(distance2[q] - distance2.min()) / (2 * sigma**2))
    return z / z.sum()


def smooth_prior(prior: Float, palette: Float, sigma: float) -> Float:
    smoothed = np.zeros(len(prior))
    for mass, center in zip(prior, palette, strict=True):
        spread = np.exp(-((palette - center) ** 2).sum(1) / (2 * sigma**2))
        smoothed += mass * spread / spread.sum()
    return smoothed


def rebalancing_weights(prior: Float, uniform_share: float) -> Float:
    seen = np.flatnonzero(prior)
    weights = np.zeros(len(prior))
    for q in seen:
        weights[q] = 1 / ((1 - uniform_share) * prior[q] + uniform_share / len(seen))
    return weights / np.dot(prior, weights)


def annealed_mean(probabilities: Float, palette: Float, temperature: float) -> Float:
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) / temperature
    sharpened = np.exp(logits - logits.max(-1, keepdims=True))
    return (sharpened / sharpened.sum(-1, keepdims=True)) @ palette


def rebalanced_loss(logits: Float, ab: Float, class_weights: Float) -> tuple[float, float]:
    """(mean over the cells of the crops with color, weighted; mean over all cells, unweighted)."""
    palette = bins()
    weighted, plain = [], []
    for crop_logits, crop in zip(logits, ab, strict=True):
        colored = np.abs(crop).max() > 5
        for cell_logits, color in zip(crop_logits.reshape(-1, len(palette)), crop.reshape(-1, 2), strict=True):
            z = soft_encode(color, palette, 5, 5.0)
            log_probabilities = cell_logits - np.log(np.exp(cell_logits).sum())
            plain.append(-z @ log_probabilities)
            if colored:
                weighted.append(class_weights[z.argmax()] * plain[-1])
    return float(np.mean(weighted)) if weighted else 0.0, float(np.mean(plain))
