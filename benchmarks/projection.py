"""The projection onto the simplex alone, of many short vectors, beside optax's and the one by sorting."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcolor.coupled_tv.simplex import project_simplex

from .timing import Table, measure_in_turns


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """One table for every length of vectors."""
    vectors = 64**2 if quick else 256**2
    for length in (4,) if quick else (4, 10, 32):
        values = jnp.asarray(np.random.default_rng(0).normal(size=(vectors, length)), jnp.float32)
        ways = {"jaxcolor": project_simplex}
        if peers:
            ways |= {"optax": optax.projections.projection_simplex, "by sorting": _by_sorting}
        runs = {name: jax.jit(jax.vmap(way)) for name, way in ways.items()}
        rows = measure_in_turns(
            {
                name: lambda run=run, values=values: jax.block_until_ready(run(values))  # type: ignore[misc]
                for name, run in runs.items()
            }
        )
        yield Table(f"simplex projection, {vectors} vectors of {length}", rows, "jaxcolor")


def _by_sorting(v: jax.Array) -> jax.Array:
    """As one finds it in the papers (Duchi et al. 2008)."""
    partial = (jnp.cumsum(jnp.sort(v)[::-1]) - 1) / jnp.arange(1, len(v) + 1)
    return jnp.maximum(v - partial.max(), 0)
