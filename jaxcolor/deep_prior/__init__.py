"""The deep image prior regularised by coupled total variation (Agazzotti, Pierre, Sur 2023)."""

from jaxcolor.deep_prior.fit import DeepPriorFit, fit_deep_prior
from jaxcolor.deep_prior.network import SkipNetwork
from jaxcolor.deep_prior.objective import Objective
from jaxcolor.deep_prior.presets import PRESETS, Preset
from jaxcolor.deep_prior.stopping import PlateauRule

__all__ = ["PRESETS", "DeepPriorFit", "Objective", "PlateauRule", "Preset", "SkipNetwork", "fit_deep_prior"]
