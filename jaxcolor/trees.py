"""Registering classes as pytrees without their checks, and the type of planes."""

from collections.abc import Iterable
from typing import Any

import jax
from jax import Array

Number = float | Array
"""A parameter: a Python number, or a scalar array, possibly traced."""
Plane = Array
"""One value per pixel, ``[H, W]``."""
Planes = Array
"""k values per pixel, ``[H, k, W]``: the k values of one row of pixels lie together. Measured on CPU: faster than k
planes ``[H, W]``, because a loop over a row finds what all k share in the nearest cache."""


def register(cls: type, leaves: tuple[str, ...], static: tuple[str, ...] = ()) -> None:
    """Make ``cls`` a pytree whose attributes ``leaves`` are children and ``static`` are compile-time constants.

    Unlike ``jax.tree_util.register_dataclass``, rebuilding skips ``__init__``: JAX rebuilds objects around tracers
    and placeholders, on which checks of user input make no sense.
    """

    def flatten(item: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(item, name) for name in leaves), tuple(getattr(item, name) for name in static)

    def flatten_with_keys(item: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        keyed = tuple((jax.tree_util.GetAttrKey(name), getattr(item, name)) for name in leaves)
        return keyed, tuple(getattr(item, name) for name in static)

    def rebuild(constants: tuple[Any, ...], children: Iterable[Any]) -> Any:
        return make(cls, **dict(zip(leaves, children, strict=True)), **dict(zip(static, constants, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, rebuild, flatten)


def make(cls: type, **attributes: Any) -> Any:
    """An instance of ``cls`` with these attributes, without running ``__init__`` (so also if it is frozen)."""
    item: Any = object.__new__(cls)
    for name, value in attributes.items():
        object.__setattr__(item, name, value)
    return item


def is_number(value: Any) -> bool:
    """Whether ``value`` can be checked now: not a tracer and not a placeholder of a tree transformation."""
    if isinstance(value, jax.core.Tracer | bool):
        return False
    return isinstance(value, int | float) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0)
