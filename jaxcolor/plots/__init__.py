"""Plots; they need matplotlib, the extra ``plot``. Every function returns a matplotlib figure, unsaved."""

from jaxcolor.plots.evaluation import PLOTS as PLOTS
from jaxcolor.plots.evaluation import measures_figure as measures_figure
from jaxcolor.plots.evaluation import reliability_figure as reliability_figure
from jaxcolor.plots.evaluation import write_plots as write_plots
from jaxcolor.plots.figure import new_figure as new_figure
from jaxcolor.plots.figure import panels_figure as panels_figure
from jaxcolor.plots.papers import displayed as displayed
from jaxcolor.plots.papers import entropy_figure as entropy_figure
from jaxcolor.plots.papers import losses_figure as losses_figure
from jaxcolor.plots.papers import palette_figure as palette_figure
from jaxcolor.plots.papers import pictures_figure as pictures_figure
from jaxcolor.plots.papers import saturation_figure as saturation_figure
