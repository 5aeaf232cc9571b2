"""Automatic image colorization as numerics.

A gray photo goes in; a color photo without color halos comes out, at the photo's own resolution:

>>> import jaxcolor as jc
>>> jc.colorize("old.jpg", "color.png")                                   # doctest: +SKIP

Public names are imported on first use, so that ``import jaxcolor`` is instant and starts no JAX backend.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxcolor import metrics as metrics
    from jaxcolor.cic.predict import CIC as CIC
    from jaxcolor.color.distribution import ColorDistribution as ColorDistribution
    from jaxcolor.coupled_tv.inertial import InertialForwardBackward as InertialForwardBackward
    from jaxcolor.coupled_tv.primal_dual import PrimalDual as PrimalDual
    from jaxcolor.coupled_tv.problem import CoupledTVProblem as CoupledTVProblem
    from jaxcolor.coupled_tv.simplex import project_simplex as project_simplex
    from jaxcolor.coupled_tv.solution import Solution as Solution
    from jaxcolor.coupled_tv.solution import Status as Status
    from jaxcolor.coupled_tv.solution import StopRule as StopRule
    from jaxcolor.coupled_tv.solve import solve as solve
    from jaxcolor.coupled_tv.solve import solve_in_chunks as solve_in_chunks
    from jaxcolor.deep_prior.fit import DeepPriorFit as DeepPriorFit
    from jaxcolor.deep_prior.fit import fit_deep_prior as fit_deep_prior
    from jaxcolor.errors import InputError as InputError
    from jaxcolor.hints import Hint as Hint
    from jaxcolor.hints import Hints as Hints
    from jaxcolor.images import GrayImage as GrayImage
    from jaxcolor.images import read_gray as read_gray
    from jaxcolor.images import write_image as write_image
    from jaxcolor.pipeline import ColorizationResult as ColorizationResult
    from jaxcolor.pipeline import colorize as colorize
    from jaxcolor.pipeline import read_out as read_out
    from jaxcolor.refinement import Refinement as Refinement
    from jaxcolor.refinement import refine as refine
    from jaxcolor.refinement import refine_photo as refine_photo

_HOMES = {
    "CIC": "jaxcolor.cic.predict",
    "ColorDistribution": "jaxcolor.color.distribution",
    "ColorizationResult": "jaxcolor.pipeline",
    "CoupledTVProblem": "jaxcolor.coupled_tv.problem",
    "DeepPriorFit": "jaxcolor.deep_prior.fit",
    "GrayImage": "jaxcolor.images",
    "Hint": "jaxcolor.hints",
    "Hints": "jaxcolor.hints",
    "InertialForwardBackward": "jaxcolor.coupled_tv.inertial",
    "InputError": "jaxcolor.errors",
    "PrimalDual": "jaxcolor.coupled_tv.primal_dual",
    "Refinement": "jaxcolor.refinement",
    "Solution": "jaxcolor.coupled_tv.solution",
    "Status": "jaxcolor.coupled_tv.solution",
    "StopRule": "jaxcolor.coupled_tv.solution",
    "colorize": "jaxcolor.pipeline",
    "fit_deep_prior": "jaxcolor.deep_prior.fit",
    "metrics": "jaxcolor",
    "project_simplex": "jaxcolor.coupled_tv.simplex",
    "read_gray": "jaxcolor.images",
    "read_out": "jaxcolor.pipeline",
    "refine": "jaxcolor.refinement",
    "refine_photo": "jaxcolor.refinement",
    "solve": "jaxcolor.coupled_tv.solve",
    "solve_in_chunks": "jaxcolor.coupled_tv.solve",
    "write_image": "jaxcolor.images",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxcolor' has no attribute {name!r}; public names: {', '.join(__all__)}")
    if _HOMES[name] == "jaxcolor":
        return import_module(f"jaxcolor.{name}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
