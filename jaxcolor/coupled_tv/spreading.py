"""How far a hint reaches: to where the gray image has no edge."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

# In L*: steps well below count with their square, so that noise costs next to nothing, edges nearly as they are.
_SOFT_STEP = 2.0
_REACH = 5.0
_ROUNDS = 64
_FAR = 1e6

_Front = tuple[Array, Array, Array]


@jax.jit
def spread_hints(luminance: Array, colors: Array, held: Array) -> tuple[Array, Array]:
    """Every pixel's hint: the color of the nearest one, and how much it weighs there.

    Args:
        luminance: ``[H, W]`` L*.
        colors: ``[H, W, 2]``, read where ``held``.
        held: ``[H, W]`` bool.

    Returns:
        colors ``[H, W, 2]`` and share ``[H, W]`` in [0, 1], exp(-(d/5)²) with d the length of the shortest path to a
        hint on the 8-connected grid, where a step between two pixels of luminance Y costs ΔY² / (|ΔY| + 2). No hint: 0.

    Derived. Sweeps down, up, right and left until nothing changes, 64 rounds at most: a round costs about 50
    operations a pixel, and convex regions need one or two.

    >>> luminance, held = jnp.array([[50.0, 50, 90]]), jnp.array([[True, False, False]])
    >>> colors, share = spread_hints(luminance, jnp.full((1, 3, 2), 7.0), held)
    >>> share.round(2).tolist()
    [[1.0, 1.0, 0.0]]
    """
    front = (jnp.where(held, 0.0, _FAR).astype(luminance.dtype), colors[..., 0], colors[..., 1])

    def unfinished(carry: tuple[_Front, Array, Array]) -> Array:
        return carry[1] & (carry[2] < _ROUNDS)

    def advance(carry: tuple[_Front, Array, Array]) -> tuple[_Front, Array, Array]:
        before, _, count = carry
        after = _sweep(luminance, before, reverse=False)
        after = _sweep(luminance, after, reverse=True)
        turned: _Front = tuple(plane.T for plane in after)
        turned = _sweep(luminance.T, _sweep(luminance.T, turned, reverse=False), reverse=True)
        after = tuple(plane.T for plane in turned)
        return after, jnp.any(after[0] < before[0]), count + 1

    distance, a, b = lax.while_loop(unfinished, advance, (front, jnp.array(True), jnp.array(0)))[0]
    return jnp.stack([a, b], -1), jnp.exp(-((distance / _REACH) ** 2))


@partial(jax.jit, static_argnames="reverse")
def _sweep(luminance: Array, front: _Front, reverse: bool) -> _Front:
    """Shortest paths that go on from row to row, from each pixel to the three nearest of the next row."""

    def advance(last: tuple[Array, _Front], row: tuple[Array, _Front]) -> tuple[tuple[Array, _Front], _Front]:
        (old_light, old), (light, best) = last, row
        for offset in (0, -1, 1):
            step = jnp.abs(light - _beside(old_light, offset, -_FAR))
            distance = _beside(old[0], offset, _FAR) + step * step / (step + _SOFT_STEP)
            nearer = distance < best[0]
            found = (distance, _beside(old[1], offset, 0.0), _beside(old[2], offset, 0.0))
            best = tuple(jnp.where(nearer, new, kept) for new, kept in zip(found, best, strict=True))  # type: ignore[assignment]
        return (light, best), best

    nothing = jnp.full_like(luminance[0], _FAR)
    return lax.scan(advance, (luminance[0], (nothing, nothing, nothing)), (luminance, front), reverse=reverse)[1]


def _beside(row: Array, offset: int, outside: float) -> Array:
    if offset == 0:
        return row
    edge = jnp.full_like(row[:1], outside)
    return jnp.concatenate([row[1:], edge]) if offset > 0 else jnp.concatenate([edge, row[:-1]])
