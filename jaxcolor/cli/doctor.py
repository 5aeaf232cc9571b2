"""``jaxcolor doctor``: is this installation sound?"""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from jaxcolor.cli.parsing import EXIT_FAILURE, one_line
from jaxcolor.errors import InputError

if TYPE_CHECKING:
    from jaxcolor.cic.weights import WeightsInfo

PACKAGES = ("jaxcolor", "jax", "jaxlib", "flax", "optax", "numpy", "imageio", "pillow", "torch")
# Energy of the small problem below after 50 steps, computed in float64 by the reference in tests/.
EXPECTED_ENERGY = 17389.2216
TOLERANCE = 1e-4


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
    try:
        devices = jax.devices()
    except RuntimeError as error:
        print(f"problem      {one_line(error)}")
        return EXIT_FAILURE
    for device in devices:
        print(f"device       {device.device_kind} ({device.platform})")
    print(f"memory       {bytes_available() / 1e9:.1f} GB free")
    print(f"cache        {cache_directory()}")
    problems = []
    for info in list_weights():
        state, problem = _weights_state(info)
        print(f"weights      {info.name}: {state}")
        if problem is not None:
            problems.append(problem)
    energy = small_solve()
    print(f"small solve  energy {energy:.4f}, expected {EXPECTED_ENERGY:.4f}")
    if not abs(energy - EXPECTED_ENERGY) <= TOLERANCE * EXPECTED_ENERGY:
        problems.append(
            f"the small solve gave {energy:.6g} instead of {EXPECTED_ENERGY:.6g}; this device computes wrongly"
        )
    for problem in problems:
        print(f"problem      {problem}")
    print(f"{len(problems)} problem(s)" if problems else "all is well")
    return EXIT_FAILURE if problems else 0


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


def _weights_state(info: "WeightsInfo") -> tuple[str, str | None]:
    """(state, problem) of weights that are there, broken, or not there; all arrays are read and checked."""
    from jaxcolor.cic.weights import EMBEDDED, load_weights

    if info.path.exists():
        try:
            load_weights(info.path)
        except InputError as error:
            return "damaged", one_line(error)
        return "ready", None
    if info.name == EMBEDDED:
        return "missing", "the embedded weights are missing; install jaxcolor again"
    return f"not on this machine; to have them: jaxcolor weights fetch {info.name}", None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
