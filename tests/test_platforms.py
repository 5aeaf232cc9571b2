"""Other platforms than the CPU: every computation is translated for GPU and TPU, which need not be there.

That shows that each of its operations exists there, and with which precision matrix products are asked for: by default
GPUs round their factors to 10 bits, and TPUs to 7.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcolor as jc
from jaxcolor import metrics, registration
from jaxcolor.cic.training.loop import TrainingConfig, initial_state, make_step
from jaxcolor.color.palette import ab_bins
from jaxcolor.deep_prior import PRESETS, SkipNetwork
from jaxcolor.deep_prior.objective import Data
from jaxcolor.deep_prior.steps import _step_of_all, first_state
from jaxcolor.photo import enlarged, padded_photo

SIDE, CELLS = 64, 16
LUMINANCE = np.random.default_rng(0).uniform(0, 100, (SIDE, SIDE)).astype(np.float32)
CHROMA = np.random.default_rng(1).uniform(-40, 40, (SIDE, SIDE, 2)).astype(np.float32)

Program = tuple[Callable[..., Any], tuple[Any, ...]]


def distribution() -> jc.ColorDistribution:
    probabilities = np.random.default_rng(2).dirichlet(np.ones(313), (CELLS, CELLS))
    return jc.ColorDistribution(jnp.asarray(probabilities, jnp.float32), jnp.asarray(ab_bins()))


def problem() -> jc.CoupledTVProblem:
    return jc.CoupledTVProblem.from_distribution(jnp.asarray(LUMINANCE), distribution(), candidates=10)


def solver(which: Any) -> Program:
    return lambda p: jc.solve(p, which, steps=20), (problem(),)


def gradient() -> Program:
    def chroma(fidelity: jax.Array, coupling: jax.Array, p: jc.CoupledTVProblem) -> jax.Array:
        return jc.solve(p.replace(fidelity=fidelity, coupling=coupling), jc.PrimalDual(), steps=8).chroma.sum()

    return jax.grad(chroma, (0, 1, 2), allow_int=True), (0.02, 240.0, problem())


def prediction() -> Program:
    net = jc.CIC.init(jax.random.key(0), width=1 / 16)
    # Differentiated from outside, where the context of the prediction has ended.
    return jax.value_and_grad(lambda light: net.predict(light, SIDE).mean().sum()), (LUMINANCE,)


def fit() -> Program:
    preset = PRESETS["paper"]
    network = SkipNetwork(channels=8, scales=3)
    data = Data.of(LUMINANCE, distribution().palette, (CELLS, CELLS))
    state, inputs = first_state(data, distribution(), jax.random.key(0), None, network, "mean", 2)
    step = _step_of_all.__wrapped__
    return lambda *arguments: step(network, *arguments), (data, preset.objective, state, inputs, np.float32(0.02))


def training() -> Program:
    config = TrainingConfig(width=1 / 16, size=SIDE, batch=2)
    prior = jnp.full(len(ab_bins()), 1 / len(ab_bins()))
    rgb = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    step = make_step(config, config.class_weights(prior)).__wrapped__  # type: ignore[attr-defined]
    return step, (initial_state(config, prior), rgb)


def measures() -> Program:
    def all_of_them(luminance: jax.Array, chroma: jax.Array) -> tuple[Any, ...]:
        lab = jnp.concatenate([luminance[..., None], chroma], -1)
        edges = metrics.alignment_gain(luminance, chroma), metrics.edge_width(luminance, chroma)
        return *edges, metrics.delta_e_2000(lab, lab[::-1]), metrics.band_error(lab, lab[::-1])

    return all_of_them, (LUMINANCE, CHROMA)


# Where colors or positions of pixels are at stake. A network that is being fitted may round.
EXACT: dict[str, Callable[[], Program]] = {
    "candidates": lambda: (
        lambda light: jc.CoupledTVProblem.from_distribution(light, distribution(), candidates=10),
        (jnp.asarray(LUMINANCE),),
    ),
    "primal-dual": lambda: solver(jc.PrimalDual()),
    "inertial": lambda: solver(jc.InertialForwardBackward()),
    "gradient": gradient,
    "prediction": prediction,
    "registration": lambda: (lambda *a: registration.registered(*a, (SIDE, SIDE)), (LUMINANCE, distribution())),
    "shift and blur": lambda: (
        lambda *a: (registration.estimate_shift(*a), registration.excess_blur(*a), registration.blockiness(a[1])),
        (LUMINANCE, CHROMA),
    ),
    "enlarged": lambda: (
        lambda chroma: enlarged(CHROMA, padded_photo(np.zeros((90, 80), np.float32))) + chroma,
        (0.0,),
    ),
    "refine": lambda: (lambda *a: jc.refine(*a, steps=4), (LUMINANCE, np.full((SIDE, SIDE, 3), 0.5, np.float32))),
    "measures": measures,
}
ROUNDED = {"deep prior": fit, "training": training}


def translated(program: Program, platform: str) -> str:
    function, arguments = program
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", [*EXACT, *ROUNDED])
def test_every_computation_exists_on_other_platforms(name: str, platform: str) -> None:
    text = translated((EXACT | ROUNDED)[name](), platform)
    assert "func.func public @main" in text
    if name in EXACT:
        products = [
            line for line in text.splitlines() if "stablehlo.dot_general" in line or "stablehlo.convolution" in line
        ]
        assert [line for line in products if line.count("HIGHEST") < 2] == []


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(EXACT))
def test_an_accelerator_computes_what_the_cpu_does(name: str) -> None:
    function, arguments = EXACT[name]()
    there = jax.jit(function)(*arguments)
    here = jax.jit(function)(*jax.device_put(arguments, jax.devices("cpu")[0]))
    for got, want in zip(jax.tree.leaves(there), jax.tree.leaves(here), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-2)
