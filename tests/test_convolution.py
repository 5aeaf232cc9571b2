"""Convolution: value and derivatives of first and second order equal those of XLA's own."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxcolor import convolution
from jaxcolor.convolution import Padding, convolve, convolve_transposed
from jaxcolor.winograd import winograd, winograd_in_image, winograd_in_kernel
from tests.coupled_tv_data import float64

ONE, TWO, NONE = ((1, 1), (1, 1)), ((2, 2), (2, 2)), ((0, 0), (0, 0))
# Image, kernel, channels in and out, stride, dilation, padding; 8 channels and more take matrix products, one if there
# are fewer than 20 on both sides, 3x3 kernels of 128 and more Winograd's way; 24 times 32 are enough for a row more.
CASES = {
    "few channels": ((7, 9), (3, 3), 3, 5, 1, 1, ONE),
    "one product": ((5, 6), (3, 3), 8, 9, 1, 1, ONE),
    "one product, dilated": ((6, 5), (3, 3), 9, 8, 1, 2, TWO),
    "one product, lopsided": ((4, 6), (2, 3), 8, 10, 1, 1, ((0, 1), (1, 0))),
    "one product, pixels last": ((4, 3), (1, 1), 40, 8, 1, 1, NONE),
    "one product, changes last": ((4, 3), (1, 1), 8, 40, 1, 1, NONE),
    "products": ((5, 6), (3, 3), 20, 21, 1, 1, ONE),
    "products, dilated": ((6, 5), (3, 3), 21, 20, 1, 2, TWO),
    "products, lopsided": ((4, 6), (2, 2), 20, 20, 1, 1, ((0, 1), (1, 0))),
    "products, blocks of rows, the last one smaller": ((11, 130), (3, 3), 20, 20, 1, 1, ONE),
    "a row more": ((5, 6), (3, 3), 24, 32, 1, 1, ONE),
    "a row more, dilated": ((6, 5), (3, 3), 32, 24, 1, 2, TWO),
    "a row more, lopsided": ((4, 6), (2, 3), 24, 32, 1, 1, ((0, 1), (2, 0))),
    "few outputs of one pixel": ((4, 3), (1, 1), 10, 3, 1, 1, NONE),
    "Winograd": ((5, 6), (3, 3), 130, 128, 1, 1, ONE),
    "Winograd, dilated, lopsided": ((6, 5), (3, 3), 128, 130, 1, 2, ((0, 3), (2, 5))),
    "strided, odd": ((7, 9), (3, 3), 4, 6, 2, 1, ONE),
    "strided, even": ((8, 6), (3, 3), 8, 8, 2, 1, ONE),
    "strided by 3, lopsided": ((10, 7), (3, 2), 2, 3, 3, 1, ((0, 2), (1, 0))),
    "strided, one pixel": ((1, 1), (3, 3), 2, 2, 2, 1, ONE),
    "strided, unseen border": ((8, 9), (2, 2), 2, 3, 3, 1, NONE),
    "strided and dilated": ((9, 8), (3, 3), 2, 3, 2, 2, TWO),
}
# These take both rules and all kinds of sizes; the derivatives of the rest are compiled for -m slow only.
OFTEN = ("one product, dilated", "products, dilated", "strided, odd")


def xla(x: jax.Array, kernel: jax.Array, *, stride: int, dilation: int, padding: Padding) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, None, (dilation, dilation), ("NHWC", "HWIO", "NHWC")
    )


def xla_transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def derivatives(function: Callable, x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
    """Value; both gradients of a nonlinear scalar of it; their change along a direction, so second derivatives."""

    def scalar(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = function(x, kernel)
        return jnp.sin(value).sum(), value

    gradient = jax.value_and_grad(scalar, (0, 1), has_aux=True)
    directions = jnp.cos(x * 3), jnp.sin(kernel * 7)
    return jax.tree.leaves(jax.jit(lambda *at: jax.jvp(gradient, at, directions))(x, kernel))


def arrays(image: tuple[int, ...], kernel: tuple[int, ...], channels: int, outputs: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    scale = (channels * np.prod(kernel)) ** -0.5
    return rng.normal(size=(2, *image, channels)), scale * rng.normal(size=(*kernel, channels, outputs))


@pytest.fixture(autouse=True)
def winograd_for_small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "_MULTIPLICATIONS_FOR_WINOGRAD", 0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_value_and_tangent_equal_those_of_xla(case: tuple) -> None:
    # Convolution is linear in each argument: where the tangents agree, so do the gradients that JAX derives from them.
    *sizes, stride, dilation, padding = case
    settings = {"stride": stride, "dilation": dilation, "padding": padding}
    with float64():
        at = tuple(map(jnp.asarray, arrays(*sizes)))
        along = tuple(map(jnp.sin, at))
        got = jax.jit(partial(jax.jvp, partial(convolve, **settings)))(at, along)
        want = jax.jit(partial(jax.jvp, partial(xla, **settings)))(at, along)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-10)


@settings(max_examples=5)  # every size is a program of its own
@given(data=st.data())
def test_winograds_way_is_the_convolution_at_every_size(data: st.DataObject) -> None:
    whole = st.integers
    dilation = data.draw(whole(1, 3))
    sides = data.draw(st.tuples(whole(1, 11), whole(1, 11)))
    edges = st.tuples(whole(0, 6), whole(0, 6)).filter
    padding = tuple(data.draw(edges(lambda e, n=n: n + sum(e) > 2 * dilation)) for n in sides)
    rng = np.random.default_rng(data.draw(whole(0, 99)))
    with float64():
        x, kernel = (jnp.asarray(rng.normal(size=s)) for s in ((2, *sides, 2), (3, 3, 2, 3)))
        want = xla(x, kernel, stride=1, dilation=dilation, padding=padding)
        for form in (winograd, winograd_in_image, winograd_in_kernel):
            got = jax.jit(form, static_argnums=(2, 3))(x, kernel, dilation, padding)
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)


def test_winograds_way_loses_few_digits() -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.exponential(size=(1, 16, 16, 128)), rng.normal(size=(3, 3, 128, 128))
    with float64():
        want = np.asarray(xla(jnp.asarray(x), jnp.asarray(kernel), stride=1, dilation=1, padding=ONE))
    errors = np.asarray(winograd(jnp.float32(x), jnp.float32(kernel), 1, ONE)) - want
    assert np.sqrt(np.mean(np.square(errors))) < 3e-6 * np.std(want)


@pytest.mark.parametrize("name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_gradients_and_second_derivatives_equal_those_of_xla(name: str) -> None:
    *sizes, stride, dilation, padding = CASES[name]
    settings = {"stride": stride, "dilation": dilation, "padding": padding}
    with float64():
        x, kernel = map(jnp.asarray, arrays(*sizes))
        got = derivatives(partial(convolve, **settings), x, kernel)
        want = derivatives(partial(xla, **settings), x, kernel)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "sizes", [((3, 5), (4, 4), 2, 3), pytest.param(((2, 3), (4, 4), 64, 64), marks=pytest.mark.slow)]
)
def test_transposed_derivatives_equal_those_of_xla(sizes: tuple) -> None:
    with float64():
        x, kernel = map(jnp.asarray, arrays(*sizes))
        for g, w in zip(
            derivatives(convolve_transposed, x, kernel), derivatives(xla_transposed, x, kernel), strict=True
        ):
            np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-10)


def test_transposed_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch's transposed convolution")
    x, kernel = (np.float32(a) for a in arrays((3, 4), (4, 4), 5, 6))
    # PyTorch's kernel is [C, O, 4, 4] and flipped in space.
    theirs = torch.from_numpy(np.ascontiguousarray(kernel[::-1, ::-1].transpose(2, 3, 0, 1)))
    image = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    want = torch.nn.functional.conv_transpose2d(image, theirs, stride=2, padding=1).numpy()
    np.testing.assert_allclose(convolve_transposed(x, kernel), want.transpose(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize(("stride", "channels"), [(1, 128), (2, 3)])
def test_gradients_under_vmap_equal_a_loop(stride: int, channels: int) -> None:
    x, kernel = (np.float32(a) for a in arrays((5, 6), (3, 3), channels, channels))
    xs, kernels = jnp.stack([x, x[::-1]]), jnp.stack([kernel, kernel[::-1]])

    @jax.jit
    def gradients(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
        return jax.grad(lambda *a: jnp.sin(convolve(*a, stride=stride, padding=ONE)).sum(), (0, 1))(x, kernel)

    mapped = jax.jit(jax.vmap(gradients))(xs, kernels)
    for i in range(2):
        for got, want in zip(jax.tree.map(lambda a, i=i: a[i], mapped), gradients(xs[i], kernels[i]), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtype_is_kept_also_by_gradients(dtype: jnp.dtype) -> None:
    x, kernel = (jax.ShapeDtypeStruct(a.shape, dtype) for a in arrays((4, 4), (3, 3), 128, 128))
    for stride in (1, 2):
        run = partial(convolve, stride=stride, padding=ONE)
        out, pulled = jax.eval_shape(
            lambda x, k, run=run: (run(x, k), jax.grad(lambda k: run(x, k).sum())(k)), x, kernel
        )
        assert out.dtype == pulled.dtype == dtype
