"""The network and prediction: any size, any dtype, its pytree, and files."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcolor.cic import predict
from jaxcolor.cic.network import NORM_SUFFIX, CICNetwork, merged, random_variables, relu, unmerged, variable_shapes
from jaxcolor.cic.predict import CIC, Manifest
from jaxcolor.color.palette import ab_bins
from jaxcolor.errors import InputError
from jaxcolor.resampling import resampling_matrix
from tests.coupled_tv_data import float64
from tests.reference import cic as reference

WIDTH, RESOLUTION = 1 / 32, 16


@pytest.fixture(scope="module")
def fresh() -> CIC:
    return CIC.init(jax.random.key(1), WIDTH)


@pytest.fixture(scope="module")
def net(fresh: CIC) -> CIC:
    """Small, with all parameters and statistics away from their neutral values and probabilities far from uniform."""
    rng = np.random.default_rng(2)
    variables = flatten_dict(jax.tree.map(np.asarray, dict(fresh.variables)))
    noise = {"bias": (0.3, 0.3), "mean": (0.2, 0.1), "var": (0.05, 0.01), "scale": (1.0, 0.2)}
    for path, x in variables.items():
        if path[-1] in noise:
            variables[path] = jnp.float32(rng.normal(*noise[path[-1]], x.shape))
    manifest = Manifest({"license": "CC0-1.0", "metrics": {"auc": [0.9]}})
    return CIC(unflatten_dict(jax.tree.map(jnp.asarray, variables)), 4.0, WIDTH, manifest)


def photo(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, shape).astype(np.float32)


def test_relu_is_a_maximum_with_its_derivatives() -> None:
    x = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.inf, -jnp.inf, jnp.nan])
    np.testing.assert_array_equal(relu(x), np.maximum(x, 0))  # also where a number is none
    slope = jax.vmap(jax.grad(relu))
    np.testing.assert_array_equal(slope(x[:7]), [0, 0, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(jax.vmap(jax.grad(lambda x: relu(x) ** 2))(x[:5]), 2 * np.maximum(x[:5], 0))
    np.testing.assert_array_equal(jax.vmap(jax.grad(jax.grad(lambda x: relu(x) ** 3)))(x[:5]), 6 * np.maximum(x[:5], 0))


def test_full_width_has_the_released_number_of_parameters() -> None:
    luminance = jax.ShapeDtypeStruct((2, 64, 104, 1), jnp.float32)
    variables = jax.eval_shape(CICNetwork().init, jax.random.key(0), luminance)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 32_236_011
    assert jax.eval_shape(CICNetwork().apply, variables, luminance).shape == (2, 16, 26, 313)


def test_rebalancing_multiplies_by_a_power_of_the_class_weights(net: CIC) -> None:
    prior = np.random.default_rng(0).dirichlet(np.ones(313))
    told = replace(net, manifest=Manifest({"prior": prior.tolist(), "training": {"uniform_share": 0.5}}))
    distribution = told.predict(photo(20, 30), RESOLUTION)
    for power in (0, 0.5, 1):
        want = np.asarray(distribution.probabilities, np.float64) * reference.rebalancing_weights(prior, 0.5) ** power
        want /= want.sum(-1, keepdims=True)
        np.testing.assert_allclose(told.rebalanced(distribution, power).probabilities, want, rtol=1e-4, atol=1e-9)
    assert net.rebalanced(distribution) is distribution
    with pytest.raises(InputError, match="rebalancing must be 0"):
        net.rebalanced(distribution, 1.0)


def test_the_scale_that_calibrates_is_told_and_used_on_request(net: CIC, tmp_path: Path) -> None:
    net.with_calibration(1.25, photos=7).save(tmp_path / "told.safetensors")
    told = CIC.load(tmp_path / "told.safetensors")
    assert told.manifest["calibration"] == {"logit_scale": 1.25, "photos": 7}
    p, calibrated = (np.float64(x.predict(photo(20, 30), RESOLUTION).probabilities) for x in (told, told.calibrated()))
    # The network's own scale is 4.
    want = p ** (1.25 / 4)
    np.testing.assert_allclose(calibrated, want / want.sum(-1, keepdims=True), rtol=1e-4, atol=1e-9)
    for wrong in (None, 1.25, {"photos": 7}, {"logit_scale": "high"}, {"logit_scale": -1.0}, {"logit_scale": np.inf}):
        with pytest.raises(InputError, match="jaxcolor evaluate FOLDER --calibrate"):
            replace(net, manifest=Manifest({"calibration": wrong})).calibrated()


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=5, deadline=None)
def test_merged_variables_compute_the_same_in_the_plain_network(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = random_variables(jax.random.key(seed), WIDTH, normalised=True)
    variables = flatten_dict(jax.tree.map(np.asarray, start))
    for path, x in variables.items():
        # Positive, as variances are; around 1 to keep the activations of 22 layers in range.
        variables[path] = np.float32(x if path[-1] == "kernel" else rng.uniform(0.5, 1.5, x.shape))
    variables = unflatten_dict(variables)
    luminance = rng.uniform(0, 100, (1, 24, 16, 1)).astype(np.float32)
    want = jax.jit(CICNetwork(WIDTH, normalised=True).apply)(variables, luminance)
    got = jax.jit(CICNetwork(WIDTH).apply)(merged(variables), luminance)
    assert float(jnp.abs(want).max()) > 0.1
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(jnp.abs(want).max()))


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=3, deadline=None)
def test_plain_weights_compute_the_same_in_the_form_to_train(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = flatten_dict(jax.tree.map(np.asarray, random_variables(jax.random.key(seed), WIDTH)))
    plain = unflatten_dict(
        {path: np.float32(x if x.ndim > 1 else rng.uniform(0.5, 1.5, x.shape)) for path, x in start.items()}
    )
    photos, luminance = (rng.uniform(0, 100, (n, 24, 16, 1)).astype(np.float32) for n in (3, 1))
    variables = unmerged(plain, WIDTH, photos)
    # As long as random ones, so that a step of training turns them as far.
    for name, layer in variables["params"].items():
        if name + NORM_SUFFIX in variables["params"]:
            np.testing.assert_allclose(
                np.linalg.norm(layer["kernel"]), np.sqrt(2 * layer["kernel"].shape[3]), rtol=1e-4
            )
    trained = CICNetwork(WIDTH, normalised=True, momentum=0.0)
    got, want = jax.jit(trained.apply)(variables, luminance), jax.jit(CICNetwork(WIDTH).apply)(plain, luminance)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(jnp.abs(want).max()))
    # The normalisations know what they will meet: that is checked before the first of the plain network's own.
    _, updated = jax.jit(partial(trained.apply, train=True, mutable=["batch_stats"]))(variables, photos)
    for name in ("model1_0_norm", "model1_2_norm"):
        for key, value in variables["batch_stats"][name].items():
            np.testing.assert_allclose(updated["batch_stats"][name][key], value, rtol=1e-3, atol=1e-3)


def test_plain_variables_are_merged_already(fresh: CIC) -> None:
    assert jax.tree.structure(merged(fresh.variables)) == jax.tree.structure(dict(fresh.variables))


@pytest.mark.parametrize("width", [1.0, 1 / 4, 1 / 500])
def test_random_variables_fit_the_network(width: float) -> None:
    luminance = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    want = jax.eval_shape(CICNetwork(width).init, jax.random.key(0), luminance)
    got = jax.eval_shape(partial(random_variables, width=width), jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), got) == jax.tree.map(lambda x: (x.shape, x.dtype), want)
    assert variable_shapes(width) == {path: x.shape for path, x in flatten_dict(want, sep="/").items()}


def test_random_kernels_are_he_normal_and_the_rest_starts_neutral(fresh: CIC) -> None:
    params, stats = fresh.variables["params"], fresh.variables["batch_stats"]
    kernels = [layer["kernel"] for name, layer in params.items() if name != "model_out" and "kernel" in layer]
    scaled = np.concatenate([np.ravel(k) * (np.prod(k.shape[:-1]) / 2) ** 0.5 for k in kernels])
    np.testing.assert_allclose([scaled.mean(), scaled.std()], [0, 1], atol=0.02)
    assert len({float(k.ravel()[0]) for k in kernels}) == len(kernels)
    assert not np.any(params["model1_0"]["bias"])
    for layer in stats.values():
        np.testing.assert_array_equal(layer["mean"], 0)
        np.testing.assert_array_equal(layer["var"], 1)
    np.testing.assert_allclose(params["model_out"] * 110, ab_bins(), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (17, 300), (16, 16), (40, 3)])
def test_any_aspect_gives_the_distribution_of_the_squeezed_photo(net: CIC, shape: tuple[int, int]) -> None:
    luminance = photo(*shape)
    dist = net.predict(luminance, RESOLUTION)
    assert dist.probabilities.shape == (4, 4, 313)
    assert dist.probabilities.dtype == jnp.float32
    np.testing.assert_allclose(dist.probabilities.sum(-1), 1, atol=1e-5)
    assert np.all(dist.probabilities >= 0)
    np.testing.assert_allclose(dist.palette, ab_bins(), atol=1e-4)
    small = np.asarray(Image.fromarray(luminance).resize((RESOLUTION, RESOLUTION), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(dist.probabilities, net.predict(small, RESOLUTION).probabilities, atol=1e-5)
    assert dist.probabilities.max() > 0.02


def test_photos_of_any_size_and_any_weights_share_one_program(net: CIC) -> None:
    predict._predict.clear_cache()
    other = jax.tree.map(lambda x: 0.9 * x, net)
    found = [n.predict(photo(9, size), RESOLUTION).probabilities for n in (net, other) for size in (9, 30)]
    assert predict._predict._cache_size() == 1
    assert np.abs(found[0] - found[2]).max() > 1e-3

    @jax.jit
    def peak(net: CIC, luminance: jax.Array) -> jax.Array:
        return net.predict(luminance, RESOLUTION).probabilities.max()

    np.testing.assert_allclose(
        [peak(n, photo(9, 9)) for n in (net, other)], [found[0].max(), found[2].max()], rtol=1e-5
    )
    assert peak._cache_size() == 1


def test_padded_photos_give_the_same_distribution(net: CIC) -> None:
    luminance = photo(20, 30)
    rows, columns = (resampling_matrix(n, RESOLUTION, padded=32) for n in luminance.shape)
    padded = np.pad(np.float64(luminance), ((0, 12), (0, 2)), constant_values=50)
    with float64():
        got = net.predict_resampled(padded, rows, columns).probabilities
        want = net.predict(np.float64(luminance), RESOLUTION).probabilities
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_logit_scale_is_one_over_the_temperature(net: CIC) -> None:
    luminance = photo(12, 12)
    plain = CIC(net.variables, 1.0, WIDTH).predict(luminance, RESOLUTION)
    for scale in (0.5, 4.0):
        sharpened = np.float64(plain.probabilities) ** scale
        got = CIC(net.variables, scale, WIDTH).predict(luminance, RESOLUTION)
        np.testing.assert_allclose(got.probabilities, sharpened / sharpened.sum(-1, keepdims=True), atol=2e-6)
        np.testing.assert_allclose(got.probabilities, plain.annealed(1 / scale).probabilities, atol=2e-6)


def test_integers_and_other_float_types(net: CIC) -> None:
    want = net.predict(np.full((9, 9), 60, np.float32), RESOLUTION).probabilities
    for dtype in (np.int32, np.uint8, np.float16):
        got = net.predict(np.full((9, 9), 60, dtype), RESOLUTION).probabilities
        assert got.dtype == jnp.float32
        # In half precision the luminance itself is resampled to three digits only.
        np.testing.assert_allclose(got, want, atol=2e-3 if dtype == np.float16 else 1e-6)
    with float64():
        precise = jax.eval_shape(lambda x: net.predict(x, RESOLUTION), jax.ShapeDtypeStruct((9, 9), jnp.float64))
        assert precise.probabilities.dtype == jnp.float64


def test_vmap_over_photos_equals_a_loop(net: CIC) -> None:
    photos = jnp.stack([photo(10, 14, seed=i) for i in range(3)])
    mapped = jax.vmap(lambda x: net.predict(x, RESOLUTION))(photos)
    for i in range(3):
        alone = net.predict(photos[i], RESOLUTION).probabilities
        np.testing.assert_allclose(mapped.probabilities[i], alone, atol=1e-6)


@pytest.mark.slow
def test_gradients_with_respect_to_photo_and_weights_match_differences(net: CIC) -> None:
    with float64():
        net = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), net)
        luminance = jnp.float64(photo(9, 9))

        @jax.jit
        def value_and_grad(net: CIC, luminance: jax.Array) -> tuple:
            return jax.value_and_grad(lambda n, x: n.predict(x, 8).entropy().sum(), (0, 1))(net, luminance)

        _, gradients = value_and_grad(net, luminance)
        assert isinstance(gradients[0], CIC)
        along = jax.tree.map(lambda x: 1e-6 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), (net, luminance))
        ahead, back = (jax.tree.map(lambda x, d, s=s: x + s * d, (net, luminance), along) for s in (1, -1))
        want = (value_and_grad(*ahead)[0] - value_and_grad(*back)[0]) / 2
        got = sum(map(jnp.vdot, jax.tree.leaves(gradients), jax.tree.leaves(along)))
        np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 1), (0, 5), (5, 0)])
def test_other_shapes_are_refused(net: CIC, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"one luminance image \[H, W\]"):
        net.predict(np.zeros(shape, np.float32))


@pytest.mark.parametrize("resolution", [0, -8, 4, 100])
def test_other_resolutions_are_refused(net: CIC, resolution: int) -> None:
    with pytest.raises(InputError, match=f"multiple of 8, got {resolution}"):
        net.predict(photo(5, 5), resolution)


def test_pytree_round_trip_keeps_everything(net: CIC) -> None:
    leaves, structure = jax.tree.flatten(net)
    back = jax.tree.unflatten(structure, leaves)
    assert (back.width, back.manifest, back.logit_scale) == (net.width, net.manifest, net.logit_scale)
    assert jax.tree.structure(back) == structure
    assert hash(structure) == hash(jax.tree.structure(back))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_saved_and_loaded_weights_are_equal(net: CIC, tmp_path: Path, dtype: jnp.dtype) -> None:
    net.save(tmp_path / "net.safetensors", dtype)
    loaded = CIC.load(tmp_path / "net.safetensors")
    assert (loaded.width, loaded.logit_scale, loaded.manifest["license"]) == (WIDTH, 4.0, "CC0-1.0")
    assert CIC.load(tmp_path / "net.safetensors", logit_scale=2.0).logit_scale == 2
    saved = flatten_dict(net.variables)
    for path, got in flatten_dict(loaded.variables).items():
        assert got.dtype == jnp.float32
        # Statistics stay in single precision: variances may exceed the range of float16.
        np.testing.assert_array_equal(got, saved[path].astype(dtype if path[0] == "params" else jnp.float32))
    with pytest.raises(InputError, match="logit_scale must be positive, got -1"):
        CIC.load(tmp_path / "net.safetensors", logit_scale=-1)
    size = (tmp_path / "net.safetensors").stat().st_size
    assert size < 1.4 * dtype.dtype.itemsize * sum(x.size for x in jax.tree.leaves(dict(net.variables)))
