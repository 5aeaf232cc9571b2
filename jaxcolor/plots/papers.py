"""What the papers' figures draw, from arrays of one's own.

A: Mouzon, Pierre, Berger 2019. B: Agazzotti, Pierre, Sur 2023. ``python -m benchmarks figures`` computes and draws all
of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.gamut import scale_chroma
from jaxcolor.color.spaces import lab_to_srgb
from jaxcolor.errors import InputError
from jaxcolor.plots.figure import new_figure

SATURATION_BINS = 50


def displayed(luminance: ArrayLike, chroma: ArrayLike | None = None) -> NDArray[np.float32]:
    """RGB ``[H, W, 3]`` in [0, 1] of L* and (a*, b*) ``[H, W, 2]``; None: gray.

    ``luminance`` is ``[H, W]`` or one number: the chrominance alone, as in B, figure 7 (L* = 50). What is out of
    gamut moves toward gray.

    >>> displayed(50.0, jnp.zeros((2, 3, 2))).round(3)[0, 0].tolist()
    [0.4659999907016754, 0.4659999907016754, 0.4659999907016754]
    """
    light = jnp.asarray(luminance, jnp.float32)
    colors = jnp.zeros((*light.shape, 2)) if chroma is None else jnp.asarray(chroma, jnp.float32)
    lab = jnp.concatenate([jnp.broadcast_to(light, colors.shape[:-1])[..., None], colors], -1)
    return np.clip(np.asarray(lab_to_srgb(scale_chroma(lab)[0])), 0, 1)


def pictures_figure(rows: Sequence[Mapping[str, ArrayLike]], side: float = 2.2) -> Any:
    """Pictures in rows and columns, their names above; RGB ``[H, W, 3]`` in [0, 1] (A, figures 4 to 6; B, 2, 7 and 8).

    Raises :class:`InputError` for no picture, or rows of different lengths. ``side`` is the width of one in inches.
    """
    if len({len(row) for row in rows} | {0}) != 2:
        raise InputError(f"pictures_figure needs rows of one length, at least 1; got {[len(row) for row in rows]}")
    shape = np.shape(next(iter(rows[0].values())))
    figure = new_figure(side * len(rows[0]), (side * shape[0] / shape[1] + 0.3) * len(rows))
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for place, (name, picture) in zip(line, row.items(), strict=True):
            place.imshow(np.asarray(picture))
            place.set_title(name, fontsize=9)
            place.axis("off")
    return figure


def saturation_figure(pictures: Mapping[str, ArrayLike]) -> Any:
    """Histograms of the HSV saturation of pictures ``[H, W, 3]`` in [0, 1], with their means (A, figure 3).

    Dark pixels count as saturated although hardly any color is seen in them.

    >>> figure = saturation_figure({"red": np.full((2, 2, 3), [0.8, 0.2, 0.2])})
    >>> figure.axes[0].get_legend_handles_labels()[1]
    ['red: mean 0.7500']
    """
    figure = new_figure(5.5, 3.2)
    from matplotlib.colors import rgb_to_hsv

    axes = figure.add_subplot()
    for index, (name, picture) in enumerate(pictures.items()):
        saturation = rgb_to_hsv(np.asarray(picture))[..., 1].ravel()
        counts, edges = np.histogram(saturation, SATURATION_BINS, (0, 1))
        axes.stairs(counts / saturation.size, edges, color=f"C{index}", label=f"{name}: mean {saturation.mean():.4f}")
        axes.axvline(saturation.mean(), color=f"C{index}", linestyle="dashed", linewidth=1)
    axes.set(xlabel="saturation", ylabel="share of pixels", xlim=(0, 1))
    axes.legend()
    return figure


def palette_figure(palette: ArrayLike, luminance: float = 50.0) -> Any:
    """The colors (a*, b*) ``[Q, 2]`` among which the network chooses, at one L* (B, figure 3)."""
    colors = np.asarray(palette, np.float32)
    figure = new_figure(4, 4)
    axes = figure.add_subplot()
    axes.scatter(colors[:, 1], colors[:, 0], 45, displayed(luminance, colors[None])[0], marker="s")
    axes.invert_yaxis()
    axes.set(xlabel="b*", ylabel="a*", title=f"{len(colors)} colors, L* = {luminance:g}", aspect="equal")
    return figure


def entropy_figure(luminance: ArrayLike, distribution: ColorDistribution) -> Any:
    """A photo, L* ``[H, W]``, and how undecided the network is at every cell, in nats (B, figure 4)."""
    entropy = np.asarray(distribution.entropy())
    figure = new_figure(6.5, 3)
    gray, cells = figure.subplots(1, 2)
    gray.imshow(displayed(luminance))
    height, width = np.shape(luminance)
    drawn = cells.imshow(entropy, vmin=0, vmax=np.log(len(distribution.palette)), extent=(0, width, height, 0))
    figure.colorbar(drawn, ax=cells, label="entropy in nats")
    for axes, title in ((gray, "photo"), (cells, f"entropy: mean {entropy.mean():.2f}")):
        axes.set_title(title)
        axes.axis("off")
    return figure


def losses_figure(history: ArrayLike, assignments: Sequence[int] = ()) -> Any:
    """The parts of the deep prior's loss ``[steps, 3]`` and their sum, with the steps of assignment (B, figure 6)."""
    parts = np.asarray(history)
    figure = new_figure(5.5, 3.2)
    axes = figure.add_subplot()
    axes.semilogy(parts.sum(1), color="black", label="loss")
    for values, name in zip(parts.T, ("color", "luminance", "variation"), strict=True):
        axes.semilogy(values, linewidth=1, label=name)
    for step in assignments:
        axes.axvline(step, color="gray", linestyle="dotted", linewidth=1)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    return figure
