"""Measures of color quality: differences to a truth, how colorful a picture is, and how far its colors bleed.

One picture at a time, ``jax.vmap`` for more; every function works under ``jit``, except for the cluster discrepancy
ratio, which runs on the host. A single number fools: gray scores high on differences and perfectly on bleeding, noise
scores high on colorfulness. Each docstring says what fools it; report one measure of every kind together, and the
gray picture's numbers beside them.

Lab is CIE L*a*b*; chroma [H, W, 2] is (a*, b*); rgb is sRGB-encoded in [0, 1].
"""

from jaxcolor.metrics.bleeding import BandError as BandError
from jaxcolor.metrics.bleeding import alignment_gain as alignment_gain
from jaxcolor.metrics.bleeding import band_error as band_error
from jaxcolor.metrics.bleeding import edge_width as edge_width
from jaxcolor.metrics.bleeding import edges as edges
from jaxcolor.metrics.bleeding import leak_fraction as leak_fraction
from jaxcolor.metrics.bleeding import near as near
from jaxcolor.metrics.bleeding import variation_away_from_edges as variation_away_from_edges
from jaxcolor.metrics.clusters import DiscrepancyRatio as DiscrepancyRatio
from jaxcolor.metrics.clusters import cluster_discrepancy_ratio as cluster_discrepancy_ratio
from jaxcolor.metrics.clusters import kept_apart as kept_apart
from jaxcolor.metrics.difference import area_under_curve as area_under_curve
from jaxcolor.metrics.difference import delta_e_2000 as delta_e_2000
from jaxcolor.metrics.difference import psnr as psnr
from jaxcolor.metrics.difference import ssim as ssim
from jaxcolor.metrics.vividness import colorfulness as colorfulness
from jaxcolor.metrics.vividness import saturation as saturation
