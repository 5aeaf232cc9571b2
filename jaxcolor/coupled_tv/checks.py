"""Checks of what comes in from outside, once, with errors that say what to do. Tracers pass: inside jit only shapes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxcolor.errors import InputError
from jaxcolor.trees import is_number

_RANGES = {"lab": ("L*", 100.0), "yuv": ("Y", 255.0)}
# Rounding of half-precision files and of color conversions; a wrong unit is off by much more.
_RANGE_MARGIN = 1.0
_SUM_TOLERANCE = 1e-3


def check_arrays(
    luminance: ArrayLike, candidates: ArrayLike, weights: ArrayLike, space: str
) -> tuple[Array, Array, Array]:
    """The three arrays in one floating dtype, or :class:`InputError`."""
    check_space(space)
    shape = jnp.shape(luminance)
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"luminance must have shape [H, W] with at least one pixel, got {list(shape)}")
    colors, shares = jnp.shape(candidates), jnp.shape(weights)
    if len(colors) != 4 or colors[:2] != shape or colors[2] < 1 or colors[3] != 2:
        raise InputError(f"candidates must have shape [{shape[0]}, {shape[1]}, k, 2] with k ≥ 1, got {list(colors)}")
    if shares != colors[:3]:
        raise InputError(f"weights must have shape {list(colors[:3])}, got {list(shares)}")
    # Half precision is raised to float32: squared distances of colors would overflow it.
    dtype = jnp.result_type(*(jnp.asarray(x).dtype for x in (luminance, candidates, weights)), jnp.float32)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise InputError("luminance, candidates and weights must be real, got complex numbers")
    y, c, w = (jnp.asarray(x, dtype) for x in (luminance, candidates, weights))
    if not any(isinstance(x, jax.core.Tracer) for x in (y, c, w)):
        _check_values(y, c, w, space)
    return y, c, w


def check_space(space: str) -> None:
    """Raise :class:`InputError` unless the color space is known."""
    if space not in _RANGES:
        raise InputError(f"space must be one of {', '.join(_RANGES)}; got {space!r}")


def check_number(name: str, value: ArrayLike, dtype: jnp.dtype) -> Array:
    """λ ("fidelity", positive) or γ ("coupling", not negative) as an array of the problem's dtype."""
    if jnp.ndim(value) != 0:
        raise InputError(f"{name} must be a single number, got an array of shape {list(jnp.shape(value))}")
    if is_number(value):
        number, least = float(value), "positive" if name == "fidelity" else "zero or positive"  # type: ignore[arg-type]
        if not math.isfinite(number) or number < 0 or (name == "fidelity" and number == 0):
            raise InputError(f"{name} must be finite and {least}, got {number:g}")
    return jnp.asarray(value, dtype)


def check_step(name: str, value: ArrayLike, above: float | None = None, below: float | None = None) -> None:
    """A solver's number: finite, at least 0, or more than ``above``; and less than ``below``."""
    if not is_number(value):
        return
    number = float(value)  # type: ignore[arg-type]
    least = "zero or more" if above is None else f"more than {above:g}"
    most = "" if below is None else f" and less than {below:g}"
    fits = number >= 0 if above is None else number > above
    if not (math.isfinite(number) and fits and (below is None or number < below)):
        raise InputError(f"{name} must be a finite number, {least}{most}; got {number:g}")


def check_count(name: str, value: object, least: int) -> None:
    """A whole number, at least ``least``, or :class:`InputError`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be a whole number, at least {least}; got {value!r}")


def check_finite(name: str, array: Array) -> None:
    """Raise :class:`InputError` for infinity or NaN."""
    if not isinstance(array, jax.core.Tracer) and not all(math.isfinite(float(x)) for x in _extremes(array)):
        raise InputError(f"{name} contains NaN or infinity; replace those values first")


def _check_values(luminance: Array, candidates: Array, weights: Array, space: str) -> None:
    # Also inside jit, where arrays that were closed over are known.
    with jax.ensure_compile_time_eval():
        low, high, colors, least, off = (float(x) for x in _facts(luminance, candidates, weights))
    _check_range(low, high, space)
    if not math.isfinite(colors):
        raise InputError("candidates contain NaN or infinity")
    if not (math.isfinite(least) and math.isfinite(off)):
        raise InputError("weights contain NaN or infinity")
    if least < 0:
        raise InputError(f"weights must not be negative, got {least:g}")
    if off > _SUM_TOLERANCE:
        raise InputError(
            f"weights must sum to 1 over the last axis, off by up to {off:g}; divide by weights.sum(-1, keepdims=True)"
        )


def check_luminance(luminance: ArrayLike) -> Array:
    """L* ``[H, W]`` in a floating dtype, or :class:`InputError`."""
    shape = jnp.shape(luminance)
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"luminance must have shape [H, W] with at least one pixel, got {list(shape)}")
    y = jnp.asarray(luminance)
    y = y.astype(jnp.result_type(y.dtype, jnp.float32))
    if not isinstance(y, jax.core.Tracer):
        with jax.ensure_compile_time_eval():
            low, high = (float(x) for x in _extremes(y))
        _check_range(low, high, "lab")
    return y


def _check_range(low: float, high: float, space: str) -> None:
    symbol, top = _RANGES[space]
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("luminance contains NaN or infinity; replace those pixels first")
    if low < -_RANGE_MARGIN or high > top + _RANGE_MARGIN:
        raise InputError(f"luminance must be {symbol} in [0, {top:g}], got values from {low:g} to {high:g}")


@jax.jit
def _extremes(values: Array) -> tuple[Array, Array]:
    """Minimum and maximum, which propagate NaN."""
    return values.min(), values.max()


@jax.jit
def _facts(luminance: Array, candidates: Array, weights: Array) -> tuple[Array, ...]:
    """Extremes that show every fault."""
    return (
        *_extremes(luminance),
        jnp.abs(candidates).max(),
        weights.min(),
        jnp.abs(weights.sum(-1) - 1).max(),
    )
