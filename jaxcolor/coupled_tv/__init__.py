"""Coupled total variation: the variational model of Mouzon, Pierre and Berger (2019) and its solvers."""

from jaxcolor.coupled_tv.inertial import InertialForwardBackward
from jaxcolor.coupled_tv.primal_dual import PrimalDual
from jaxcolor.coupled_tv.problem import CoupledTVProblem
from jaxcolor.coupled_tv.simplex import project_simplex
from jaxcolor.coupled_tv.solution import Solution, Status, StopRule
from jaxcolor.coupled_tv.solve import solve, solve_in_chunks

__all__ = [
    "CoupledTVProblem",
    "InertialForwardBackward",
    "PrimalDual",
    "Solution",
    "Status",
    "StopRule",
    "project_simplex",
    "solve",
    "solve_in_chunks",
]
