"""Small pictures do not change unseen: those that were stored, and the proof of concept of Mouzon et al. 2019."""

import numpy as np
import pytest
from skimage.metrics import mean_squared_error

from benchmarks.parameters import bicubic
from benchmarks.truth import Degradation, distribution_of, two_regions, wrong_share
from jaxcolor.coupled_tv import CoupledTVProblem, PrimalDual, solve
from tests.golden.pictures import METHODS, PHOTOS, path_of, photo, read, sheet

# Decibels. Another machine rounds differently: a luminance that differs by 0.01 leaves 60 dB, and 50 dB of the deep
# prior, whose fit amplifies it.
FLOORS = dict.fromkeys(METHODS, 50.0) | {"deep-prior": 42.0}


def decibels(first, second):
    """PSNR; of equal pictures that of a rounding error."""
    return 10 * np.log10(255**2 / max(mean_squared_error(first, second), 1e-9))


@pytest.mark.parametrize("name", PHOTOS)
def test_pictures_are_those_that_were_stored(name):
    """If the change is meant, look at the new pictures and store them: ``python -m tests.golden``."""
    stored = read(path_of(name))
    for method, picture in sheet(name).items():
        assert decibels(stored[method], picture) > FLOORS[method], method


@pytest.mark.parametrize("name", PHOTOS)
def test_the_floors_tell_methods_apart_and_color_from_gray(name):
    stored = read(path_of(name))
    gray = np.repeat(np.asarray(photo(name)).mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    different = {"cic": ["coupled-tv"], "coupled-tv": ["mouzon2019", "refine"], "deep-prior": ["cic"]}
    for method, others in different.items():
        for other in (*(stored[o] for o in others), gray):
            assert decibels(stored[method], other) < FLOORS[method] - 5


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
