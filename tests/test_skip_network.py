"""The skip network: size, parity with PyTorch, first parameters, pictures of every size."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcolor.deep_prior.network import SkipNetwork, enlarged, random_parameters, reflected
from tests.coupled_tv_data import float64


def shapes(network: SkipNetwork, side: int = 64):
    return jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 32), jnp.float32))


def test_the_published_network_has_as_many_parameters_as_published():
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(SkipNetwork()))) == 2_217_831


@pytest.mark.parametrize(
    ("channels", "scales", "size"),
    [(6, 2, (13, 18)), pytest.param(128, 5, (35, 33), marks=pytest.mark.slow)],
    ids=["small", "published"],
)
def test_value_and_gradients_equal_those_of_torch(channels: int, scales: int, size: tuple[int, int]):
    """In float64, where what differs is not rounding, which five scales of normalisation enlarge."""
    torch = pytest.importorskip("torch", reason="compares with the network in PyTorch")
    from tests.skip_twin import Twin

    network, twin = SkipNetwork(channels=channels, scales=scales), Twin(channels, scales).double()
    rng = np.random.default_rng(0)
    noise, weights = rng.normal(size=(1, *size, 32)), rng.normal(size=(1, *size, 3))
    parameters = twin.arrays()
    assert jax.tree.map(jnp.shape, parameters) == jax.tree.map(jnp.shape, shapes(network))

    def loss(parameters, noise):
        picture = network.apply(parameters, noise)
        return (picture * weights).sum() / size[0], picture

    with float64():
        given = jax.tree.map(jnp.asarray, (parameters, noise))
        (gradient, of_noise), got = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(*given)
    assert got.dtype == np.float64
    theirs = torch.from_numpy(noise.transpose(0, 3, 1, 2).copy()).requires_grad_()
    picture = twin(theirs).permute(0, 2, 3, 1)
    ((picture * torch.from_numpy(weights)).sum() / size[0]).backward()

    np.testing.assert_allclose(got, picture.detach().numpy(), atol=1e-10)
    np.testing.assert_allclose(of_noise, theirs.grad.permute(0, 2, 3, 1).numpy(), atol=1e-10)
    want, have = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (twin.arrays(gradients=True), gradient)
    )
    # Biases before a normalisation have no effect: their gradients are rounding on both sides.
    np.testing.assert_allclose(have, want, atol=1e-9 * np.abs(want).max())


def test_first_parameters_are_distributed_as_those_of_torch():
    network = SkipNetwork(channels=16, scales=2)
    parameters = random_parameters(jax.random.key(3), network)["params"]
    assert jax.tree.map(jnp.shape, {"params": parameters}) == jax.tree.map(jnp.shape, shapes(network))
    for name, layer in parameters.items():
        if "kernel" not in layer:
            assert (np.unique(layer["scale"]), np.unique(layer["bias"])) == ([1], [0])
            continue
        bound = 1 / math.sqrt(np.prod(layer["kernel"].shape[:-1]))
        values = np.asarray(layer["kernel"]).ravel()
        assert np.abs(values).max() <= bound
        assert np.abs(layer["bias"]).max() <= bound
        # Mean and spread of a uniform distribution, within five standard errors.
        assert abs(values.mean()) < 5 * bound / math.sqrt(3 * len(values)), name
        assert abs(values.std() * math.sqrt(3) / bound - 1) < 5 / math.sqrt(len(values)), name
    apart = random_parameters(jax.random.key(4), network)["params"]
    assert (np.asarray(apart["deep0"]["kernel"]) != np.asarray(parameters["deep0"]["kernel"])).mean() > 0.99


@pytest.mark.slow
def test_init_draws_from_the_same_ranges():
    network = SkipNetwork(channels=4, scales=1)
    drawn = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))
    for name, layer in drawn["params"].items():
        if "kernel" in layer:
            bound = 1 / math.sqrt(np.prod(layer["kernel"].shape[:-1]))
            assert 0.5 * bound < np.abs(layer["kernel"]).max() <= bound, name
            assert np.abs(layer["bias"]).max() <= bound, name


@settings(max_examples=5)
@given(st.integers(1, 3), st.integers(1, 30), st.integers(1, 30))
def test_any_size_comes_back_at_that_size(scales: int, height: int, width: int):
    network, least = SkipNetwork(channels=2, scales=scales), 2**scales
    size = (1, least + height, least + width)
    parameters = shapes(network, least + 1)
    out = jax.eval_shape(network.apply, parameters, jax.ShapeDtypeStruct((*size, 32), jnp.float32))
    assert out.shape == (*size, 3)


@settings(max_examples=10)  # every size is a program of its own
@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_the_border_is_reflected(height: int, width: int, seed: int):
    rng = np.random.default_rng(seed)
    x, change = (
        jnp.asarray(rng.normal(size=(2, *size, 3)), jnp.float32) for size in ((height, width), (height + 2, width + 2))
    )
    want = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    got, pulled = jax.jit(lambda x, change: (reflected(x), jax.vjp(reflected, x)[1](change)[0]))(x, change)
    np.testing.assert_array_equal(got, want)
    # Reflection is linear: where every image agrees, so does the one gradient that fits all of them.
    along = rng.normal(size=x.shape)
    padded = np.pad(along, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    np.testing.assert_allclose((pulled * along).sum(), (change * padded).sum(), rtol=1e-4, atol=1e-3)


def test_enlarged_is_bilinear():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    want = jax.image.resize(x, (2, 10, 6, 4), "linear")
    np.testing.assert_allclose(enlarged(jnp.asarray(x)), want, atol=1e-5)
