"""Figures of the tables of ``python -m benchmarks``: of ``quality`` and ``parameters``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Percent that a panel of the parameter study shows.
_MOST_CHANGE = 25.0


def draw_quality(
    titles: Mapping[str, str],
    settings: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
    reference: Mapping[str, float],
    pairs: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    folder: Path,
) -> list[Path]:
    """Every measure of every photo, a figure for each setting; and photo by photo coupled-tv against another method.

    ``settings`` has the values of each measure by setting and row; ``pairs`` labels, each with the errors of the other
    and of coupled-tv.
    """
    from jaxcolor.plots import new_figure, panels_figure

    folder.mkdir(parents=True, exist_ok=True)
    figures = {f"quality-{name}": panels_figure(titles, rows, reference) for name, rows in settings.items()}
    if pairs:
        figures["quality-per-photo"] = new_figure(4.5, 4.5)
        axes = figures["quality-per-photo"].add_subplot()
        for label, theirs, ours in pairs:
            axes.plot(theirs, ours, "o", alpha=0.7, label=label)
        axes.axline((0, 0), slope=1, color="gray", linestyle="dashed", linewidth=1)
        axes.set(xlabel="best other method", ylabel="coupled-tv", title="error near color edges, a dot for every photo")
        axes.grid(alpha=0.4)
        axes.legend()
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        figure.savefig(path, dpi=120)
    return paths


def parameters_figure(result: Mapping[str, Any]) -> Any:
    """One panel for every axis of :func:`benchmarks.parameters.study`: errors in percent of the center's.

    Solid near color edges, dashed everywhere; the dotted line is at the center's own value. What errs more than
    ``_MOST_CHANGE`` percent leaves its panel, so that the others can be told apart.
    """
    from jaxcolor.plots import new_figure

    from .parameters import COLUMNS

    columns = min(4, len(result["axes"]))
    lines = -(-len(result["axes"]) // columns)
    figure = new_figure(2.6 * columns, 2.2 * lines + 0.4)
    panels = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    center = np.array(result["chosen"][result["center"]])
    least = most = 0.0
    for axes, (name, line) in zip(panels, result["axes"].items(), strict=False):
        change = 100 * (np.array([result["chosen"][label] for _, label in line]) / center - 1)
        least, most = min(least, change[..., :2].min()), max(most, change[..., :2].max())
        values = [value for value, _ in line]
        for index, column in enumerate(COLUMNS):
            axes.plot(values, change[:, index, 0], ".-", color=f"C{index}", label=column)
            axes.plot(values, change[:, index, 1], ".--", color=f"C{index}", linewidth=0.8)
        axes.axvline(next(v for v, label in line if label == result["center"]), color="gray", linestyle="dotted")
        axes.set_title(name, fontsize=10)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    # The panels share one axis.
    panels[0].set_ylim(1.1 * least - 0.1, min(1.1 * most + 0.1, _MOST_CHANGE))
    for axes in panels[len(result["axes"]) :]:
        axes.axis("off")
    for axes in panels[::columns]:
        axes.set_ylabel("error, %", fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(COLUMNS), fontsize=8)
    return figure
