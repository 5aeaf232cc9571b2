"""The projection onto the simplex alone, of many short vectors, beside optax's and the one by sorting."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcolor.coupled_tv.simplex import project_simplex

from .timing import Table, compile_seconds, measure_in_turns


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """One table for every length of vectors."""
    vectors = 64**2 if quick else 256**2
    for length in (4,) if quick else (4, 10, 32):
        values = jnp.asarray(np.random.default_rng(0).normal(size=(vectors, length)), jnp.float32)
        ways = {"jaxcolor": project_simplex}
        if peers:
            ways |= {"optax": optax.projections.projection_simplex, "by sorting": _by_sorting}
        runs = {name: partial(_waited, jax.jit(jax.vmap(way)), values) for name, way in ways.items()}
        compiled = {name: compile_seconds(run) for name, run in runs.items()}
        title = f"simplex projection, {vectors} vectors of {length}"
        yield Table(title, measure_in_turns(runs), "jaxcolor", compile=compiled)


def _waited(function: Callable[[jax.Array], jax.Array], values: jax.Array) -> None:
    jax.block_until_ready(function(values))


def _by_sorting(v: jax.Array) -> jax.Array:
    """As one finds it in the papers (Duchi et al. 2008)."""
    partial = (jnp.cumsum(jnp.sort(v)[::-1]) - 1) / jnp.arange(1, len(v) + 1)
    return jnp.maximum(v - partial.max(), 0)
