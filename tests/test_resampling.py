"""Resampling matrices against Pillow and jax.image.resize."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxcolor.resampling import Kernel, resample, resampling_matrix, resize

PILLOW = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}
SIZES = [
    ((20, 30), (8, 8)),
    ((7, 5), (16, 24)),
    ((31, 4), (8, 16)),
    ((1, 1), (8, 8)),
    ((1, 50), (8, 8)),
    ((9, 9), (1, 1)),
]
KERNELS = st.sampled_from(["linear", "cubic"])


def pillow(image: np.ndarray, shape: tuple[int, int], kernel: Kernel) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(shape[::-1], PILLOW[kernel]))


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_agrees_with_pillow_and_jax(old: tuple[int, int], new: tuple[int, int], kernel: Kernel) -> None:
    image = np.random.default_rng(0).uniform(0, 100, old).astype(np.float32)
    got = resize(image, new, kernel)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, pillow(image, new, kernel), atol=2e-4)
    np.testing.assert_allclose(got, jax.image.resize(image, new, kernel), atol=5e-4)


@given(st.integers(1, 3000), st.integers(1, 300), KERNELS)
def test_any_line_agrees_with_pillow(size: int, new_size: int, kernel: Kernel) -> None:
    line = np.random.default_rng(size).uniform(0, 100, (1, size)).astype(np.float32)
    matrix = resampling_matrix(size, new_size, kernel)
    assert matrix.shape == (new_size, size)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.sum(1), 1, atol=2e-5)
    np.testing.assert_allclose(matrix @ line[0], pillow(line, (1, new_size), kernel)[0], atol=1e-3)


@pytest.mark.parametrize(("size", "new_size"), [(30_000, 8), (1, 256), (256, 1), (256, 256), (5000, 256)])
def test_extreme_sizes(size: int, new_size: int) -> None:
    matrix = resampling_matrix(size, new_size)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)
    # A ramp stays a ramp away from the border.
    ramp, centers = np.arange(size) + 0.5, (np.arange(new_size) + 0.5) * size / new_size
    inner = slice(2, -2) if new_size > 4 and size > 1 else slice(None)
    np.testing.assert_allclose((matrix @ ramp)[inner], centers[inner] if size > 1 else 0.5, rtol=1e-4)
    if size == new_size:
        np.testing.assert_array_equal(matrix, np.eye(size))


def test_photos_padded_to_one_shape_share_one_program_and_equal_the_unpadded() -> None:
    resample.clear_cache()
    for height, width in [(20, 30), (32, 32), (5, 31)]:
        image = np.random.default_rng(height).uniform(0, 100, (height, width)).astype(np.float32)
        rows, columns = (resampling_matrix(n, 8, padded=32) for n in (height, width))
        assert not rows[:, height:].any()
        assert not columns[:, width:].any()
        padded = np.pad(image, ((0, 32 - height), (0, 32 - width)), constant_values=1e3)
        np.testing.assert_allclose(resample(padded, rows, columns), pillow(image, (8, 8), "cubic"), atol=2e-4)
    assert resample._cache_size() == 1


def test_channels_dtypes_and_transforms() -> None:
    image = np.random.default_rng(1).integers(0, 256, (9, 11, 2), np.uint8)
    got = resize(image, (4, 5))
    assert got.dtype == jnp.float32
    for i in range(2):
        np.testing.assert_allclose(got[..., i], pillow(np.float32(image[..., i]), (4, 5), "cubic"), atol=2e-3)
    assert resize(jnp.ones((9, 11, 2), jnp.bfloat16), (4, 5)).dtype == jnp.bfloat16
    images = jnp.float32(image).transpose(2, 0, 1)
    mapped = jax.vmap(lambda plane: resize(plane, (4, 5)))(images)
    np.testing.assert_allclose(mapped, got.transpose(2, 0, 1), atol=1e-4)
    # Linear in the image, so the gradient of a sum holds the sums of the matrices' columns.
    rows, columns = resampling_matrix(9, 4), resampling_matrix(11, 5)
    gradient = jax.grad(lambda x: resample(x, rows, columns).sum())(images[0])
    np.testing.assert_allclose(gradient, np.outer(rows.sum(0), columns.sum(0)), atol=1e-5)
