"""Proof of concept of Mouzon et al. 2019, figure 4: no halo at a curved edge, with the defaults."""

import numpy as np

from benchmarks.parameters import bicubic
from benchmarks.truth import Degradation, distribution_of, two_regions, wrong_share
from jaxcolor.coupled_tv import CoupledTVProblem, PrimalDual, solve


def test_two_regions_without_a_halo():
    luminance, truth, colors = two_regions(256)
    dist = distribution_of(truth, Degradation(blur=1.2, shift=0.7))
    problem = CoupledTVProblem.from_distribution(luminance, dist)
    solution = solve(problem, PrimalDual())
    baseline = bicubic(dist, luminance.shape)

    def error(chroma):
        return np.linalg.norm(np.asarray(chroma) - truth, axis=-1).mean()

    assert wrong_share(baseline, truth, colors) > 0.008
    assert wrong_share(solution.chroma, truth, colors) < 0.0005
    assert error(solution.chroma) < 0.5 * error(baseline)
