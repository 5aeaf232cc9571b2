"""What a solver hands back, and when it stops."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcolor.coupled_tv.checks import check_step
from jaxcolor.coupled_tv.weights import join
from jaxcolor.errors import InputError
from jaxcolor.trees import Number, make, register


class Status(IntEnum):
    """How a solve ended; ``Status(int(solution.status)).message`` says it in words."""

    OUT_OF_STEPS = 0
    CONVERGED = 1
    NON_FINITE = 2
    TIME_LIMIT = 3
    INTERRUPTED = 4

    @property
    def message(self) -> str:
        """One sentence for people."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.OUT_OF_STEPS: "all steps were taken",
    Status.CONVERGED: "the stopping rule was met",
    Status.NON_FINITE: "a value became infinite or NaN; look for extreme input values or steps",
    Status.TIME_LIMIT: "the time limit was reached; the result so far is returned",
    Status.INTERRUPTED: "interrupted; the result so far is returned",
}


@dataclass(frozen=True)
class StopRule:
    """Stop when chroma has come to rest: ‖u^{n+1} - u^n‖ at most ``tolerance`` at every pixel.

    The rule is per pixel and per step, so it does not depend on the size of the image. Chroma rests long before
    the slow flow of the weights does; the weights are not looked at.

    Args:
        tolerance: in Lab units per step, > 0.
        share: share of pixels that may still move more, in [0, 1).
        every: the rule is looked at after every so many steps. Static: a new value compiles anew.

    Raises :class:`InputError` for numbers outside their range.
    """

    tolerance: Number = 1e-3
    share: Number = 0.0
    every: int = 10

    def __post_init__(self) -> None:
        check_step("tolerance", self.tolerance, above=0)
        check_step("share", self.share, below=1)
        if not isinstance(self.every, int | np.integer) or self.every < 1:
            raise InputError(f"every must be a whole number of steps, at least 1; got {self.every!r}")


register(StopRule, ("tolerance", "share"), static=("every",))


@dataclass(frozen=True)
class Solution:
    """The result of a solve; a pytree of arrays.

    ``state``: the solver's last state; passing the solution as ``init`` continues from it. ``status``: a
    :class:`Status` as int32, one per image under ``vmap``. ``steps``: steps taken, int32. ``energies``: the solver's
    objective, at the start, at the recorded steps and at the end; if a stopping rule ended the solve, the last
    value repeats.
    """

    state: Any
    status: Array
    steps: Array
    energies: Array

    @property
    def chroma(self) -> Array:
        """u ``[H, W, 2]``: (a*, b*) or (U, V); assembled on each access."""
        return _chroma(self.state)

    @property
    def weights(self) -> Array:
        """w ``[H, W, k]``; assembled on each access."""
        return _weights(self.state)

    def cropped(self, height: int, width: int) -> "Solution":
        """The top left corner, which undoes ``problem.padded_to``."""

        def crop(values: Array) -> Array:
            rows = -3 if values.ndim - self.status.ndim == 3 else -2
            return lax.slice_in_dim(lax.slice_in_dim(values, 0, height, axis=rows), 0, width, axis=-1)

        state = jax.tree.map(crop, self.state)
        return make(Solution, **(vars(self) | {"state": state}))

    def message(self) -> str | Sequence[str]:
        """The status in words; a list of them for a batch."""
        if self.status.ndim:
            return [Status(int(s)).message for s in self.status.ravel()]
        return Status(int(self.status)).message


@jax.jit
def _chroma(state: Any) -> Array:
    return jnp.stack(state.chroma, -1)


@jax.jit
def _weights(state: Any) -> Array:
    return join(state.weights)


register(Solution, ("state", "status", "steps", "energies"))
