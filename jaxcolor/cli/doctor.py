"""``jaxcolor doctor``: is this installation sound?"""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("jaxcolor", "jax", "jaxlib", "flax", "optax", "numpy", "imageio", "pillow", "torch")
# Energy of the small problem below after 50 steps, computed in float64.
EXPECTED_ENERGY = 0.0
TOLERANCE = 1e-3


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add ``doctor`` to the command line."""
    parser = subparsers.add_parser("doctor", help="versions, devices, and a small computation with a known result")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Print what there is; returns 1 when the computation or the embedded weights are not as they should be."""
    import jax

    from jaxcolor.cic.weights import cache_directory, list_weights
    from jaxcolor.memory import bytes_available

    print(f"python       {platform.python_version()} on {platform.platform()}")
    for package in PACKAGES:
        print(f"{package:<12} {_version(package)}")
    for device in jax.devices():
        print(f"device       {device.device_kind} ({device.platform})")
    print(f"memory       {bytes_available() / 1e9:.1f} GB free")
    print(f"cache        {cache_directory()}")
    problems = []
    for info in list_weights():
        state = "ready" if info.manifest else info.problem or "not fetched"
        print(f"weights      {info.name}: {state}")
        if info.problem:
            problems.append(f"weights {info.name}: {info.problem}")
    energy = small_solve()
    print(f"small solve  energy {energy:.4f}, expected {EXPECTED_ENERGY:.4f}")
    if not abs(energy - EXPECTED_ENERGY) <= TOLERANCE * EXPECTED_ENERGY:
        problems.append(
            f"the small solve gave {energy:.6g} instead of {EXPECTED_ENERGY:.6g}; this device computes wrongly"
        )
    for problem in problems:
        print(f"problem      {problem}")
    print("all is well" if not problems else f"{len(problems)} problem(s)")
    return 1 if problems else 0


def small_solve() -> float:
    """Energy after 50 primal-dual steps on a drawn 24 x 32 picture with three candidates."""
    import jax.numpy as jnp
    import numpy as np

    from jaxcolor.coupled_tv.primal_dual import PrimalDual
    from jaxcolor.coupled_tv.problem import CoupledTVProblem
    from jaxcolor.coupled_tv.solve import solve

    row, column = np.mgrid[0:24, 0:32].astype(np.float32)
    luminance = 50 + 30 * np.tanh((column - 16 + 3 * np.sin(row / 4)) / 2)
    red, green = np.array([50.0, 30.0]), np.array([-40.0, 40.0])
    candidates = np.broadcast_to(np.stack([red, green, np.zeros(2)]), (24, 32, 3, 2))
    share = 1 / (1 + np.exp((column - 14) / 3))
    weights = np.stack([0.8 * share, 0.8 * (1 - share), np.full_like(share, 0.2)], -1)
    arrays = [jnp.asarray(array, jnp.float32) for array in (luminance, candidates, weights)]
    problem = CoupledTVProblem(arrays[0], arrays[1], arrays[2], fidelity=0.01, coupling=100.0)
    solver = PrimalDual(dual_step=0.01, primal_step=12.5, weight_step=1e-3)
    return float(solve(problem, solver, steps=50).energies[-1])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
