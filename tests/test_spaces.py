"""Color spaces against scikit-image, closed forms, and differences in float64."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import color

from jaxcolor.color import spaces
from jaxcolor.color.spaces import (
    lab_planes_to_linear,
    lab_to_linear,
    lab_to_srgb,
    linear_to_lab,
    linear_to_srgb,
    srgb_to_lab,
    srgb_to_linear,
    srgb_to_yuv,
    yuv_to_srgb,
)
from tests.coupled_tv_data import float64

CONVERSIONS = [
    srgb_to_linear,
    linear_to_srgb,
    linear_to_lab,
    lab_to_linear,
    srgb_to_lab,
    lab_to_srgb,
    srgb_to_yuv,
    yuv_to_srgb,
]
TRANSFORMS = {"jit": jax.jit, "vmap": lambda f: jax.jit(jax.vmap(f))}
CHANNEL = st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1, width=32))
LAB = st.tuples(st.floats(-20, 120), st.floats(-150, 150), st.floats(-150, 150))

to_lab, to_srgb = jax.jit(srgb_to_lab), jax.jit(lab_to_srgb)


def cube(steps: int = 33) -> np.ndarray:
    """The RGB cube on a grid that contains all corners and the gray axis, float32."""
    axis = np.linspace(0, 1, steps, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, steps, 3)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_lab_agrees_with_scikit_image_over_the_whole_cube(transform: Callable) -> None:
    lab = transform(srgb_to_lab)(cube())
    assert lab.dtype == jnp.float32
    np.testing.assert_allclose(lab, color.rgb2lab(cube().astype(np.float64)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_srgb_agrees_with_scikit_image_over_the_whole_cube(transform: Callable) -> None:
    lab = color.rgb2lab(cube().astype(np.float64))
    srgb = transform(lab_to_srgb)(jnp.asarray(lab, jnp.float32))
    np.testing.assert_allclose(srgb, color.lab2rgb(lab), rtol=0, atol=2e-5)


@given(st.tuples(CHANNEL, CHANNEL, CHANNEL))
def test_any_displayable_color_agrees_with_scikit_image_and_comes_back(rgb: tuple[float, ...]) -> None:
    lab = to_lab(jnp.float32(rgb))
    np.testing.assert_allclose(lab, color.rgb2lab(np.float64(rgb)), rtol=0, atol=1e-3)
    np.testing.assert_allclose(to_srgb(lab), rgb, rtol=0, atol=2e-5)


@given(LAB)
def test_any_lab_color_comes_back_also_from_outside_the_gamut(lab: tuple[float, ...]) -> None:
    with float64():
        np.testing.assert_allclose(to_lab(to_srgb(jnp.float64(lab))), lab, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(lab_to_linear(jnp.float32(lab)), jnp.stack(lab_planes_to_linear(*jnp.float32(lab))))


def test_known_colors() -> None:
    # ASTM E308 white point D65, sRGB primaries: the values in every textbook.
    primaries = np.float32([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    known = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(to_lab(primaries), known, rtol=0, atol=0.02)


def test_grays_are_neutral_and_lightness_rises() -> None:
    lab = to_lab(np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[:, None], 3, axis=1))
    assert np.abs(lab[:, 1:]).max() < 0.005
    assert np.all(np.diff(lab[:, 0]) > 0)


def test_transfer_function_is_that_of_the_standard() -> None:
    srgb = np.linspace(-0.5, 1.5, 4001)
    want = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in srgb]
    np.testing.assert_allclose(srgb_to_linear(np.float32(srgb)), want, rtol=3e-6, atol=1e-9)
    np.testing.assert_allclose(linear_to_srgb(np.float32(want)), srgb, rtol=3e-6, atol=1e-6)


def test_yuv_agrees_with_the_closed_form_and_scikit_image() -> None:
    rgb = cube(9).astype(np.float64)
    yuv = np.float64(srgb_to_yuv(np.float32(rgb)))
    red, green, blue = np.moveaxis(rgb, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    closed = np.stack([luma, 0.436 * (blue - luma) / (1 - 0.114), 0.615 * (red - luma) / (1 - 0.299)], axis=-1)
    np.testing.assert_allclose(yuv, closed, rtol=0, atol=1e-5)
    np.testing.assert_allclose(yuv, color.rgb2yuv(rgb), rtol=0, atol=5e-5)
    np.testing.assert_allclose(yuv_to_srgb(np.float32(yuv)), color.yuv2rgb(yuv), rtol=0, atol=5e-5)


@given(st.tuples(*[st.floats(-1e4, 1e4)] * 3))
def test_yuv_comes_back(rgb: tuple[float, ...]) -> None:
    # To the five digits in which the coefficients are printed.
    back = yuv_to_srgb(srgb_to_yuv(jnp.float32(rgb)))
    np.testing.assert_allclose(back, rgb, rtol=0, atol=1e-4 + 1e-5 * np.abs(rgb).max())


@pytest.mark.parametrize("conversion", CONVERSIONS, ids=lambda f: f.__name__)
def test_values_and_derivatives_are_finite_everywhere(conversion: Callable) -> None:
    tiny = np.finfo(np.float32).smallest_subnormal
    special = [0, 1, -1, 100, -0.0, tiny, -tiny, 1e-30, 0.04045, 0.0031308, 0.008856, -1e-3, -200, 1e6, -1e6]
    colors = [np.full(3, value) for value in special] + [np.eye(3)[i] for i in range(3)] + list(cube(2).reshape(-1, 3))
    colors = jnp.asarray(np.array(colors), jnp.float32)
    assert np.all(np.isfinite(conversion(colors)))
    assert np.all(np.isfinite(jax.jit(jax.vmap(jax.jacrev(conversion)))(colors)))


@pytest.mark.parametrize("conversion", CONVERSIONS, ids=lambda f: f.__name__)
def test_derivatives_match_differences(conversion: Callable) -> None:
    rng = np.random.default_rng(0)
    colors = rng.uniform(0, 1, (100, 3))
    if conversion in (lab_to_linear, lab_to_srgb):
        colors = colors * [100, 120, 120] - [0, 60, 60]
    with float64():
        step, direction = 1e-6, jnp.asarray([0.5, -1.0, 0.7])
        got = jax.jit(jax.vmap(jax.jacrev(conversion)))(colors) @ direction
        compiled = jax.jit(conversion)
        want = (compiled(colors + step * direction) - compiled(colors - step * direction)) / (2 * step)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_derivative_of_lab_matches_differences_of_scikit_image() -> None:
    rgb = np.random.default_rng(1).uniform(0, 1, (200, 3))
    step, direction = 1e-6, np.array([0.3, -0.8, 0.5])
    want = (color.rgb2lab(rgb + step * direction) - color.rgb2lab(rgb - step * direction)) / (2 * step)
    got = jax.jvp(to_lab, (jnp.float32(rgb),), (jnp.broadcast_to(jnp.float32(direction), rgb.shape),))[1]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("conversion", CONVERSIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtype_and_shape_are_kept(conversion: Callable, dtype: str) -> None:
    with float64():
        out = jax.eval_shape(conversion, jax.ShapeDtypeStruct((2, 5, 3), jnp.dtype(dtype)))
    assert out.dtype == dtype
    assert out.shape == (2, 5, 3)


def test_integers_become_float32_and_other_shapes_are_refused() -> None:
    assert spaces.srgb_to_lab(jnp.array([0, 1, 1])).dtype == jnp.float32
    for shape in [(), (4,), (3, 1)]:
        with pytest.raises(ValueError, match=r"\[\.\.\., 3\]"):
            srgb_to_lab(jnp.zeros(shape))
