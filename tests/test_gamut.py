"""Displayable chroma: projection of (U, V), scaling of Lab chroma."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from jaxcolor.color.gamut import is_displayable, project_yuv, scale_chroma
from jaxcolor.color.spaces import lab_to_srgb, srgb_to_lab

project_compiled = jax.jit(project_yuv)

# Rows a of the slabs -Y ≤ a·(U, V) ≤ 255 - Y, to the five digits in which BT.601 is usually printed.
SLABS = np.array([[0.0, 1.13984], [-0.39465, -0.58060], [2.03211, 0.0]])
LUMA = st.one_of(st.sampled_from([0.0, 255.0, 1e-6, 254.99, 105.3]), st.floats(0, 255))
CHROMA = st.floats(-1000, 1000)


def project_by_enumeration(q: np.ndarray, y: float) -> np.ndarray:
    """Nearest feasible point among q, its feet on the six lines and the twelve corners, in float64."""
    q, y = np.float64(q), np.float64(y)
    lines = [(a, bound) for a in SLABS for bound in (-y, 255 - y)]
    candidates = [q] + [q - (a @ q - bound) / (a @ a) * a for a, bound in lines]
    for (a, bound_a), (b, bound_b) in combinations(lines, 2):
        if a is not b and abs(np.linalg.det([a, b])) > 1e-9:
            candidates.append(np.linalg.solve([a, b], [bound_a, bound_b]))
    feasible = [c for c in candidates if np.all(np.abs(SLABS @ c + y - 127.5) <= 127.5 + 1e-7)]
    return min(feasible, key=lambda c: np.sum((c - q) ** 2))


def random_points(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.uniform(0, 255, count)
    y[:4] = [0.0, 255.0, 1e-3, 254.999]
    u, v = rng.normal(0, 150, (2, count))
    return u.astype(np.float32), v.astype(np.float32), y.astype(np.float32)


def test_projection_agrees_with_enumeration() -> None:
    u, v, y = random_points(800)
    got = np.stack(project_compiled(u, v, y), axis=-1)
    want = [project_by_enumeration(np.array(q), luma) for *q, luma in zip(u, v, y, strict=True)]
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_projection_agrees_with_a_quadratic_program() -> None:
    for u, v, y in zip(*random_points(30), strict=True):
        constraints = [
            {"type": "ineq", "fun": lambda z, y=y: SLABS @ z + y},
            {"type": "ineq", "fun": lambda z, y=y: 255 - y - SLABS @ z},
        ]
        want = minimize(lambda z, q=(u, v): np.sum((z - q) ** 2), [0, 0], constraints=constraints).x
        np.testing.assert_allclose(project_compiled(u, v, y), want, atol=5e-3)


@given(CHROMA, CHROMA, LUMA)
def test_projection_is_feasible_idempotent_and_nearest(u: float, v: float, y: float) -> None:
    p = np.array(project_compiled(u, v, y))
    slack = SLABS @ p
    assert np.all(slack >= -y - 4e-3)
    assert np.all(slack <= 255 - y + 4e-3)
    np.testing.assert_allclose(project_compiled(*p, y), p, atol=1e-4)
    np.testing.assert_allclose(p, project_by_enumeration(np.array([u, v]), y), atol=4e-3)


@given(CHROMA, CHROMA, CHROMA, CHROMA, LUMA)
def test_projection_never_moves_points_apart(u0: float, v0: float, u1: float, v1: float, y: float) -> None:
    p, q = np.array(project_compiled(u0, v0, y)), np.array(project_compiled(u1, v1, y))
    assert np.linalg.norm(p - q) <= np.hypot(u0 - u1, v0 - v1) + 1e-3


def test_projection_keeps_displayable_colors_and_makes_black_and_white_gray() -> None:
    rgb = np.random.default_rng(1).uniform(0, 255, (500, 3))
    y = rgb @ [0.299, 0.587, 0.114]
    u, v = 0.436 / 0.886 * (rgb[:, 2] - y), 0.615 / 0.701 * (rgb[:, 0] - y)
    np.testing.assert_allclose(project_compiled(u, v, y), (u, v), atol=1e-3)
    for luma in (0.0, 255.0, -3.0, 300.0):
        np.testing.assert_array_equal(project_yuv(40.0, -70.0, luma), (0.0, 0.0))


def test_projection_gradients_are_finite_and_match_differences() -> None:
    u, v, y = random_points(400)

    def total(u: jax.Array, v: jax.Array, y: jax.Array) -> jax.Array:
        p, q = project_yuv(u, v, y)
        return jnp.sum(2 * p - 3 * q)

    gradients = jax.grad(total, argnums=(0, 1, 2))(u, v, y)
    assert all(np.all(np.isfinite(g)) for g in gradients)
    at_corners = jax.grad(total, argnums=(0, 1, 2))(*np.float32([[0, 0], [0, 0], [0, 255]]))
    assert all(np.all(np.isfinite(g)) for g in at_corners)
    step = np.array([1e-4, 2e-4])
    for i in range(100, 160):
        q = np.float64([u[i], v[i]])
        moved = project_by_enumeration(q + step, y[i]) - project_by_enumeration(q - step, y[i])
        want = (moved @ [2, -3]) / 2
        np.testing.assert_allclose(step @ [gradients[0][i], gradients[1][i]], want, atol=2e-7)


@pytest.mark.parametrize("shape", [(), (1,), (5, 7), (2, 3, 4)])
def test_projection_keeps_shape_and_dtype_and_broadcasts(shape: tuple[int, ...]) -> None:
    u = jnp.full(shape, 200.0, jnp.float32)
    for out in project_compiled(u, 3.0, jnp.float32(90)):
        assert out.shape == shape
        assert out.dtype == jnp.float32
    mapped = jax.vmap(project_compiled, (0, None, None))(jnp.arange(3.0), 1.0, 99.0)
    np.testing.assert_allclose(mapped[0], [0, 1, 2])


def colors_out_of_gamut(count: int = 2000) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.uniform([0, -130, -130], [100, 130, 130], (count, 3)).astype(np.float32)


def test_scaling_keeps_lightness_and_hue_and_ends_on_the_cube() -> None:
    lab = colors_out_of_gamut()
    scaled, scale = scale_chroma(lab)
    srgb = np.array(lab_to_srgb(scaled))
    assert srgb.min() >= -1.2e-4
    assert srgb.max() <= 1 + 1.2e-4
    back = np.array(srgb_to_lab(np.clip(srgb, 0, 1)))
    np.testing.assert_allclose(back[:, 0], lab[:, 0], atol=0.05)
    np.testing.assert_array_equal(scaled[:, 0], lab[:, 0])
    np.testing.assert_allclose(scaled[:, 1] * lab[:, 2], scaled[:, 2] * lab[:, 1], atol=1e-2)
    outside = scale < 1
    assert 0.5 < outside.mean() < 1
    assert not is_displayable(jnp.where(outside[:, None], scaled + (lab - scaled) * 1e-3, 1e3)).any()


def test_scaling_agrees_with_a_scan_along_the_ray() -> None:
    lab = colors_out_of_gamut(200)
    steps = np.linspace(0, 1, 2001)
    rays = np.stack([np.broadcast_to(lab[:, :1], (200, 2001)), *(lab[:, i, None] * steps for i in (1, 2))], -1)
    srgb = lab_to_srgb(jnp.asarray(rays, jnp.float32))
    inside = np.array(jnp.all((srgb >= -1e-4) & (srgb <= 1 + 1e-4), axis=-1))
    want = steps[np.maximum(np.argmin(np.c_[inside, np.zeros(200)], axis=1) - 1, 0)]
    np.testing.assert_allclose(scale_chroma(lab)[1], want, atol=6e-4)


def test_scaling_leaves_displayable_colors_alone() -> None:
    rgb = np.random.default_rng(4).uniform(0, 1, (3000, 3)).astype(np.float32)
    corners = np.array(np.meshgrid(*[[0, 1]] * 3), np.float32).reshape(3, -1).T
    lab = srgb_to_lab(np.concatenate([rgb, corners]))
    grays = jnp.stack([jnp.linspace(0, 100, 101), jnp.zeros(101), jnp.zeros(101)], axis=-1)
    for colors in (lab, grays):
        scaled, scale = scale_chroma(colors)
        np.testing.assert_array_equal(scale, 1)
        np.testing.assert_array_equal(scaled, colors)


def test_scaling_clamps_lightness_and_makes_black_and_white_gray() -> None:
    scaled, scale = scale_chroma(np.float32([[-5, 30, 30], [0, -60, 90], [100, 50, -50], [140, -9, 0]]))
    np.testing.assert_array_equal(scaled[:, 0], [0, 0, 100, 100])
    assert np.abs(scaled[:, 1:]).max() < 0.05
    assert scale.max() < 0.05


def test_scaling_gradients_are_finite_and_match_differences() -> None:
    def total(lab: jax.Array) -> jax.Array:
        return scale_chroma(lab)[0] @ jnp.array([0.3, 1.0, -2.0])

    lab = np.concatenate([colors_out_of_gamut(120), [[0, 0, 0], [100, 0, 0], [0, 50, 50], [-1, 3, 3]]])
    gradients = jax.jit(jax.vmap(jax.grad(total)))(jnp.asarray(lab, jnp.float32))
    assert np.all(np.isfinite(gradients))
    direction = np.float32([0.02, -0.05, 0.04])
    want = (total(lab + direction) - total(lab - direction)) / 2
    inner = (lab[:, 0] > 5) & (lab[:, 0] < 95)
    # A kink lies within the step for a few of the colors, where the first channel to leave the cube changes.
    assert np.mean(np.abs(gradients @ direction - want)[inner] > 2e-3) < 0.04


def test_scaling_under_vmap_equals_one_call() -> None:
    lab = colors_out_of_gamut(12).reshape(3, 4, 3)
    for got, want in zip(jax.vmap(scale_chroma)(lab), scale_chroma(lab), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_scaling_a_large_image_needs_few_temporaries() -> None:
    shape = jax.ShapeDtypeStruct((4000, 6000, 3), jnp.float32)
    temporaries = scale_chroma.lower(shape).compile().memory_analysis().temp_size_in_bytes
    assert temporaries <= 4000 * 6000 * 4
