"""Plots of an evaluation."""

import os
from pathlib import Path
from typing import Any

from jaxcolor.cic.calibration import Reliability
from jaxcolor.errors import InputError
from jaxcolor.evaluation import COLUMNS, TRUTH, Evaluation
from jaxcolor.files import replacing
from jaxcolor.plots.figure import new_figure, panels_figure


def reliability_figure(evaluation: Evaluation) -> Any:
    """Share of correct likeliest colors against their probability, at every logit scale; the diagonal is perfect.

    The area of a dot is its share of the cells. Source: Guo et al. 2017, figure 1.
    """
    figure = new_figure(5, 4.5)
    axes = figure.add_subplot()
    for name, curve in evaluation.reliability.items():
        confidence, share, weight = _points(curve)
        label = f"{name}: calibration error {curve.error():.3f}"
        axes.plot(confidence, share, linewidth=1)
        axes.scatter(confidence, share, 10 + 400 * weight, alpha=0.5, label=label)
    axes.plot([0, 1], [0, 1], color="gray", linestyle="dashed", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the likeliest color", ylabel="share that is the true bin")
    axes.legend(loc="upper left")
    return figure


def measures_figure(evaluation: Evaluation) -> Any:
    """One panel for every measure, a dot for every row; the truth's own value, where it has one, is a dashed line."""
    titles = {key: title for key, (title, _) in COLUMNS.items()}
    rows = {
        name: {key: [value] for key, value in row.items()} for name, row in evaluation.rows.items() if name != TRUTH
    }
    return panels_figure(titles, rows, evaluation.rows[TRUTH])


PLOTS = {"reliability.png": reliability_figure, "measures.png": measures_figure}


def write_plots(evaluation: Evaluation, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the ``PLOTS`` into ``folder``, made if it is not there; returns their paths.

    Existing files of these names are replaced. Raises :class:`InputError` when matplotlib is missing or the folder
    cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in PLOTS.items():
            with replacing(folder / name) as temporary:
                figure(evaluation).savefig(temporary, format="png", dpi=120)
    except OSError as error:
        raise InputError(f"cannot write plots to {folder}: {error.strerror}; choose a writable folder") from error
    return [folder / name for name in PLOTS]


def _points(curve: Reliability) -> tuple[Any, Any, Any]:
    """Mean probability, share correct and share of the cells of every interval that has any."""
    seen = curve.count > 0
    count = curve.count[seen]
    return curve.confidence[seen] / count, curve.correct[seen] / count, count / count.sum()
