"""What several plots share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcolor.errors import InputError


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of so many inches that no window and no global state belong to.

    Raises :class:`InputError` when matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib; install it with: pip install 'jaxcolor[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def panels_figure(
    titles: Mapping[str, str],
    rows: Mapping[str, Mapping[str, Sequence[float | None]]],
    reference: Mapping[str, float | None],
) -> Any:
    """One panel for every measure, a line in it for every row: a dot for each value, and a diamond for their mean.

    ``rows`` has the values of each measure by the row's name; ``reference`` a value of the measures that have one,
    which becomes a dashed line. What is None or not finite is left out.

    >>> figure = panels_figure({"psnr": "PSNR"}, {"ours": {"psnr": [30.0, 32.0]}}, {"psnr": None})
    >>> figure.axes[0].get_title()
    'PSNR'
    """
    columns = min(3, len(titles))
    lines = -(-len(titles) // columns)
    figure = new_figure(3 * columns, lines * (0.9 + 0.2 * len(rows)))
    panels = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    for axes, (key, title) in zip(panels, titles.items(), strict=False):
        for index, row in enumerate(rows.values()):
            values = np.asarray(row[key], float)
            values = values[np.isfinite(values)]
            several = values.size > 1
            axes.plot(values, np.full(values.shape, index), "o", color="C0", alpha=0.25 if several else 1, markersize=4)
            if several:
                axes.plot(values.mean(), index, "D", color="C3", markersize=4)
        value = reference.get(key)
        if value is not None:
            axes.axvline(value, color="gray", linestyle="dashed", linewidth=1)
        axes.set(title=title, yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(alpha=0.4)
    for axes in panels[len(titles) :]:
        axes.axis("off")
    return figure
