"""scico's primal-dual solver on the problem with fixed weights, as fast as its public interface allows."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcolor.coupled_tv as ctv
from jaxcolor.coupled_tv.operators import edge_strength


def pdhg(problem: ctv.CoupledTVProblem, solver: ctv.PrimalDual) -> Any:
    """scico's ``PDHG`` at its start, on the problem of one candidate, with the steps of ``solver``.

    The luminance is an offset inside the norm. As in ours one plane stands for it, along its gradient; the operator
    maps to 0 there. Both proximal operators are compiled, and the dual one is written directly instead of by Moreau's
    identity. Nothing is recorded and no objective computed on the way. Raises ImportError without scico.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import
        from scico import functional, linop
        from scico.optimize import PDHG

    offset = edge_strength(problem.luminance, problem.coupling, 0.0)[None]
    target, fidelity = jnp.stack(problem.project(tuple(jnp.moveaxis(problem.mean(), -1, 0)))), problem.fidelity  # type: ignore[arg-type]

    def gradient(u: jax.Array) -> jax.Array:
        right = jnp.pad(jnp.diff(u, axis=2), ((0, 0), (0, 0), (0, 1)))
        below = jnp.pad(jnp.diff(u, axis=1), ((0, 0), (0, 1), (0, 0)))
        return jnp.concatenate([jnp.zeros_like(offset), right, below])

    class Norm(functional.Functional):  # type: ignore[misc]
        """Σ |offset + z|."""

        has_eval, has_prox = False, True

        def conj_prox(self, v: Any, lam: float = 1.0, **_: Any) -> Any:
            return _into_ball(v, lam, offset)

    class Near(functional.Functional):  # type: ignore[misc]
        """λ/2 |u - target|²."""

        has_eval, has_prox = False, True

        def prox(self, v: Any, lam: float = 1.0, **_: Any) -> Any:
            return _toward(v, lam * fidelity, target)

    height, width = problem.shape
    operator = linop.LinearOperator(
        input_shape=(2, height, width),
        output_shape=(5, height, width),
        eval_fn=gradient,
        input_dtype=np.float32,
        jit=True,
    )
    # With these numbers as arrays no step moves them to the device again.
    tau, sigma = (jnp.float32(x) for x in (solver.primal_step, solver.dual_step))
    silent = {"fields": {}, "itstat_func": lambda _: ()}
    return PDHG(Near(), Norm(), operator, tau=tau, sigma=sigma, x0=target, itstat_options=silent)


@jax.jit
def _into_ball(v: jax.Array, sigma: jax.Array, offset: jax.Array) -> jax.Array:
    moved = v.at[:1].add(sigma * offset)
    return moved * jax.lax.rsqrt(jnp.maximum((moved * moved).sum(0), 1))


@jax.jit
def _toward(v: jax.Array, amount: jax.Array, target: jax.Array) -> jax.Array:
    return (v + amount * target) / (1 + amount)


def steps_of(solver: Any) -> Callable[[int], None]:
    """Takes so many more steps by scico's own loop, and waits for them."""

    def run(steps: int) -> None:
        solver.maxiter = steps
        solver.solve().block_until_ready()

    return run


def compiled_steps_of(solver: Any) -> Callable[[int], None]:
    """The same with a whole step of scico's as one program of JAX's, which its users can have and it does not make."""

    @jax.jit
    def step(x: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        kept = solver.x, solver.z
        solver.x, solver.z = x, z
        solver.step()
        made = solver.x, solver.z
        # What is left in it must not be of the trace.
        solver.x, solver.z = solver.x_old, solver.z_old = kept
        return made

    def run(steps: int) -> None:
        x, z = solver.x, solver.z
        for _ in range(steps):
            x, z = step(x, z)
        solver.x, solver.z = jax.block_until_ready((x, z))

    return run


def chroma_and_dual(solver: Any) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """u ``[H, W, 2]``, and the dual planes in the order of ours: along the luminance, ∇U, ∇V."""
    # scico's gradient has both channels along columns, then both along rows.
    p0, ux, vx, uy, vy = np.asarray(solver.z)
    return np.moveaxis(np.asarray(solver.x), 0, -1), (p0, ux, uy, vx, vy)
