"""What brings the colors of a coarse grid to the size of a photo: the methods of the halo benchmark.

A method is a function of luminance L* ``[H, W]`` and a :class:`ColorDistribution`, and returns chroma ``[H, W, 2]``.
The filters take the enlarged annealed mean and the luminance as their guide; guided filter and joint bilateral are
OpenCV's (``pip install opencv-contrib-python-headless``). OpenCV's fast bilateral solver is missing from that package,
which is built without Eigen, so it is written out here.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.images import GrayImage
from jaxcolor.pipeline import chroma_of
from jaxcolor.registration import registered

Plane = NDArray[np.float32]
Method = Callable[[Plane, ColorDistribution], Plane]
# Of the annealed mean that every filter starts from. Of 0.38, 0.7 and 1 the best of bicubic in the degraded setting, on
# training photos. The parameters of the guided and the joint bilateral filter were tried out there; those of the fast
# bilateral solver were not tuned.
TEMPERATURE = 0.7


def enlarged(distribution: ColorDistribution, shape: tuple[int, ...], kernel: str = "cubic") -> Plane:
    """The annealed mean ``[H, W, 2]`` at the size of the photo."""
    mean = distribution.annealed_mean(TEMPERATURE)
    return np.asarray(jax.image.resize(mean, (*shape, 2), kernel))


def guided_filter(luminance: Plane, distribution: ColorDistribution, radius: float = 1.0, noise: float = 10.0) -> Plane:
    """He, Sun, Tang 2013. ``radius`` in cells of the grid; ``noise`` ε in squared L*."""
    return guided(luminance, enlarged(distribution, luminance.shape), radius * _cell(luminance, distribution), noise)


def joint_bilateral(
    luminance: Plane, distribution: ColorDistribution, spread: float = 1.5, difference: float = 5.0
) -> Plane:
    """Petschnigg et al. 2004, Kopf et al. 2007. ``spread`` in cells of the grid, ``difference`` in L*."""
    size = _cell(luminance, distribution)
    return bilateral(luminance, enlarged(distribution, luminance.shape), spread * size, difference)


def registered_bilateral(luminance: Plane, distribution: ColorDistribution) -> Plane:
    """:func:`joint_bilateral` of the distribution that coupled-tv works with: what registration alone is worth."""
    return joint_bilateral(luminance, registered(jnp.asarray(luminance), distribution, luminance.shape)[0])


def guided(luminance: Plane, chroma: Plane, radius: float, noise: float) -> Plane:
    """OpenCV's guided filter of chroma ``[H, W, 2]``; ``radius`` in pixels."""
    import cv2

    return cv2.ximgproc.guidedFilter(luminance[..., None], chroma, round(radius), noise)


def bilateral(luminance: Plane, chroma: Plane, spread: float, difference: float) -> Plane:
    """OpenCV's joint bilateral filter of chroma ``[H, W, 2]``; ``spread`` in pixels."""
    import cv2

    planes = (np.ascontiguousarray(chroma[..., i]) for i in (0, 1))
    return np.stack(
        [cv2.ximgproc.jointBilateralFilter(luminance, plane, -1, difference, spread) for plane in planes], -1
    )


def fast_bilateral_solver(
    luminance: Plane,
    distribution: ColorDistribution,
    spread: float = 1.0,
    difference: float = 5.0,
    smoothness: float = 4.0,
    steps: int = 30,
) -> Plane:
    """Barron and Poole 2016: the smoothest colors in a bilateral grid that stay near the given ones.

    min_y λ Σ (Dm - Dn B Dn) y² + Σ_x (y(x) - t(x))², all confidences 1, by conjugate gradients in the grid of vertices
    (``spread`` cells of the color grid, ``difference`` in L*); Dn makes the blur B bistochastic (their algorithm 1).
    """
    from scipy import sparse
    from scipy.sparse.linalg import cg

    size = _cell(luminance, distribution)
    targets = enlarged(distribution, luminance.shape).reshape(-1, 2)
    splat, blur = _bilateral_grid(luminance, spread * size, difference)
    mass = splat @ np.ones(splat.shape[1])
    scale = np.ones(splat.shape[0])
    for _ in range(20):
        scale = np.sqrt(scale * mass / (blur @ scale))
    balance = sparse.diags(scale * (blur @ scale))
    smooth = sparse.diags(scale) @ blur @ sparse.diags(scale)
    system = (smoothness * (balance - smooth) + sparse.diags(mass)).tocsr()
    preconditioner = sparse.diags(1 / np.maximum(system.diagonal(), 1e-5))
    given = splat @ targets
    solved = [
        cg(system, given[:, i], given[:, i] / mass, rtol=1e-6, maxiter=steps, M=preconditioner)[0] for i in (0, 1)
    ]
    return (splat.T @ np.stack(solved, -1)).reshape(*luminance.shape, 2).astype(np.float32)


def _bilateral_grid(luminance: Plane, spread: float, difference: float) -> tuple[Any, Any]:
    """Splat ``[vertices, pixels]`` (its transpose slices) and the [1 2 1] blur between neighboring vertices."""
    from scipy import sparse

    row, column = np.indices(luminance.shape)
    coordinates = np.stack([row / spread, column / spread, luminance / difference], -1).reshape(-1, 3).astype(np.int64)
    coordinates -= coordinates.min(0)
    strides = np.cumprod([1, *(coordinates.max(0)[:-1] + 3)])
    vertices, of_pixel = np.unique((coordinates + 1) @ strides, return_inverse=True)
    ones, pixels = np.ones(len(of_pixel)), np.arange(len(of_pixel))
    splat = sparse.csr_matrix((ones, (of_pixel, pixels)), (len(vertices), len(pixels)))
    blur = 2 * len(strides) * sparse.identity(len(vertices), format="csr")
    for stride in strides:
        place = np.searchsorted(vertices, vertices + stride).clip(max=len(vertices) - 1)
        here = np.flatnonzero(vertices[place] == vertices + stride)
        step = sparse.csr_matrix((np.ones(len(here)), (here, place[here])), blur.shape)
        blur = blur + step + step.T
    return splat, blur


def _cell(luminance: Plane, distribution: ColorDistribution) -> float:
    """Pixels per cell of the grid, the mean of both axes."""
    return float(np.mean(np.divide(luminance.shape, distribution.probabilities.shape[:2])))


def _ours(**settings: Any) -> Method:
    def method(luminance: Plane, distribution: ColorDistribution) -> Plane:
        return chroma_of(GrayImage(luminance), distribution, **settings)

    return method


METHODS: dict[str, Method] = {
    "gray": lambda luminance, distribution: np.zeros((*luminance.shape, 2), np.float32),
    "nearest": lambda luminance, distribution: enlarged(distribution, luminance.shape, "nearest"),
    "bilinear": lambda luminance, distribution: enlarged(distribution, luminance.shape, "linear"),
    "bicubic": lambda luminance, distribution: enlarged(distribution, luminance.shape),
    "guided filter": guided_filter,
    "joint bilateral": joint_bilateral,
    "fast bilateral solver": fast_bilateral_solver,
    "registered bilateral": registered_bilateral,
    "coupled-tv": _ours(),
    "coupled-tv inertial": _ours(steps=0, refinement_steps=500),
    "coupled-tv mouzon2019": _ours(variant="mouzon2019"),
    "deep-prior": _ours(method="deep-prior"),
}
# The four that coupled-tv is held against.
PEERS = ("bicubic", "guided filter", "joint bilateral", "fast bilateral solver")
SLOW = ("deep-prior",)
