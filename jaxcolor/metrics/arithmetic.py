"""What the measures share: lengths whose derivatives are finite, and means that keep their accuracy."""

import jax
import jax.numpy as jnp


def as_float(values: jax.Array) -> jax.Array:
    """Integers as float32, in which differences and squares do not wrap around."""
    values = jnp.asarray(values)
    return values if jnp.issubdtype(values.dtype, jnp.inexact) else values.astype(jnp.float32)


def gradient_length(values: jax.Array) -> jax.Array:
    """[H, W] √(Σ over channels |∇|²), forward differences, 0 across the last row and column."""
    planes = values[..., None] if values.ndim == 2 else values
    squares = jnp.zeros(planes.shape[:2], planes.dtype)
    squares = squares.at[:-1].add(jnp.sum(jnp.diff(planes, axis=0) ** 2, axis=-1))
    return safe_sqrt(squares.at[:, :-1].add(jnp.sum(jnp.diff(planes, axis=1) ** 2, axis=-1)))


def channels(color: jax.Array) -> tuple[jax.Array, ...]:
    """The planes along the last axis."""
    return tuple(color[..., index] for index in range(color.shape[-1]))


def safe_sqrt(square: jax.Array) -> jax.Array:
    """√ with derivative 0 at 0; below 0, which only rounding reaches, it is 0; NaN stays NaN."""
    nothing = square <= 0
    return jnp.where(nothing, 0, jnp.sqrt(jnp.where(nothing, 1, square)))


def length(first: jax.Array, second: jax.Array) -> jax.Array:
    """√(x² + y²) with derivative 0 at 0."""
    return safe_sqrt(first**2 + second**2)


def ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole; 0, with derivative 0, where the whole is 0."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)


def mean(values: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Mean over everything, one axis after the other: float32 keeps its accuracy on large pictures.

    With ``where`` only over its true pixels; NaN if there is none.
    """
    if where is not None:
        share = mean(where.astype(values.dtype))
        inside = mean(jnp.where(where, values, 0)) / jnp.where(share > 0, share, 1)
        return jnp.where(share > 0, inside, jnp.nan)
    while values.ndim:
        values = jnp.mean(values, axis=-1)
    return values
