"""Small random problems for the coupled-TV tests; few shapes, because every shape compiles anew."""

import jax
import numpy as np

from jaxcolor.coupled_tv import CoupledTVProblem
from tests.reference.coupled_tv import Data

SHAPE, COUNT = (11, 14), 3


def data(shape=SHAPE, count=COUNT, seed=0, fidelity=0.02, coupling=20.0) -> Data:
    rng = np.random.default_rng(seed)
    luminance = np.clip(50 + 25 * np.sign(rng.normal(size=shape)) + rng.normal(size=shape), 0, 100)
    candidates = 10.0 * rng.integers(-8, 9, (*shape, count, 2))
    weights = rng.dirichlet(np.ones(count), shape)
    return Data(luminance, candidates, weights, fidelity, coupling)


def problem(d: Data, dtype=np.float32, space="lab") -> CoupledTVProblem:
    arrays = (v.astype(dtype) for v in (d.luminance, d.candidates, d.weights))
    return CoupledTVProblem(*arrays, fidelity=d.fidelity, coupling=d.coupling, space=space)


def float64():
    """A context in which JAX computes in float64; the setting outside is untouched."""
    return jax.enable_x64(True)
