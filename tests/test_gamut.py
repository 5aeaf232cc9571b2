"""Displayable chroma: projection of (U, V), scaling of Lab chroma."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from jaxcolor.color.gamut import project_yuv

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
    y[:40] = np.repeat([0.0, 255.0, 1e-3, 254.999], 10)
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
    for out in project_yuv(u, 3.0, jnp.float32(90)):
        assert out.shape == shape
        assert out.dtype == jnp.float32
    mapped = jax.vmap(project_yuv, (0, None, None))(jnp.arange(3.0), 1.0, 99.0)
    np.testing.assert_allclose(mapped[0], [0, 1, 2])
