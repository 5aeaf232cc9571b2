"""The settings of a colorization; light to import, so that the command line can check them before loading JAX."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any

from jaxcolor.constants import ANNEALING_TEMPERATURE, INPUT_MULTIPLE, PALETTE_SIZE, RESOLUTION
from jaxcolor.errors import InputError

if TYPE_CHECKING:
    from jaxcolor.deep_prior.presets import Preset

METHODS = ("coupled-tv", "cic", "deep-prior")
PRESETS = ("fast", "paper", "author")
VARIANTS = ("guided", "mouzon2019")
WHOLE_NUMBERS = (
    "resolution",
    "candidates",
    "steps",
    "refinement_steps",
    "prior_steps",
    "seed",
    "seeds",
    "working_side",
)
NUMBERS = ("rebalancing", "temperature", "fidelity", "coupling", "learning_rate", "plateau")
OF_SOLVER = ("candidates", "fidelity", "coupling", "variant", "steps", "refinement_steps")
"""What the coupled-TV solver depends on."""

# ``python -m benchmarks parameters FOLDER --number 16 --axes reduction spread fidelity``, training photos of 192²,
# 8 pixels a cell as in photos of 512², before improbable colors were carried to the nearest candidates; ΔE2000 within
# 4 pixels of color edges / everywhere, of the photos chosen on:
#                                  clean             degraded
#     bicubic                      3.989 / 2.374     7.327 / 5.068
#     selected at full size        4.011 / 2.542     6.861 / 4.515
#     at a half of it              4.033 / 2.589     6.787 / 4.475
#     at a quarter of it           4.390 / 2.821     6.815 / 4.504
# With ``--cell 16``, as in photos of 1024²:
#     bicubic                      5.985 / 3.765     8.761 / 6.611
#     selected at full size        5.805 / 3.811     8.646 / 6.110
#     at a half of it              5.696 / 3.768     8.593 / 6.081
#     at a quarter of it           5.811 / 3.852     8.566 / 6.068
# Half the size is a quarter of the time. The two-region image (no folder, ``--size 512``) tells the same.
WORKING_SIDE = RESOLUTION
"""Where colors are selected, if no other size is given: about four pixels for a cell of the network's grid."""


@dataclass(frozen=True)
class Settings:
    """What the result depends on besides the photo and the weights; the defaults are explained in the README.

    method: ``"coupled-tv"`` (Mouzon, Pierre, Berger 2019), ``"cic"`` (Zhang, Isola, Efros 2016: annealed mean,
        bicubic up-sampling) or ``"deep-prior"`` (Agazzotti, Pierre, Sur 2023).
    resolution: side in pixels of the square that the network sees, a multiple of 8; 256 as in the papers.
    rebalancing: power >= 0 of the class weights with which the network's probabilities are multiplied: 0 the likeliest
        colors, 1 the vivid ones of Zhang et al. 2016. None: the measured default, and 0 for weights that do not tell
        their class weights, such as the released ones, which have them built in.
    temperature: T > 0 of the annealed mean, for ``"cic"``.
    candidates: k, from 1 to the size of the palette. fidelity: λ > 0. coupling: γ >= 0. None: measured defaults.
    variant: of ``"coupled-tv"``: with ``"guided"`` the network's distribution is put back where it lies beside the
        photo's edges as a whole (:func:`jaxcolor.registration.registered`), luminance edges lead its up-sampling
        (:mod:`jaxcolor.color.guidance`), cells paler than their annealed mean begin with a share of it
        (:meth:`~jaxcolor.color.distribution.ColorDistribution.enlivened`), and no probability is dropped with the
        colors that are (all derived);
        ``"mouzon2019"`` interpolates it as it is, and drops it, as in the paper.
    steps: of the primal-dual solver. refinement_steps: of the inertial solver after it. Both >= 0.
    working_side: of a photo with more than working_side² pixels the colors are selected (or the deep prior fitted) at
        that size and brought to full size by the coupled-TV solver, led by the photo's edges. >= 8. None:
        :data:`WORKING_SIDE`, but for "mouzon2019" the photo's own size, as in the paper.

    Of ``"deep-prior"`` only:

    preset: "fast", "paper" or "author" (:mod:`jaxcolor.deep_prior.presets`), or a
        :class:`~jaxcolor.deep_prior.Preset`; None: "fast" on CPU, else "paper".
    prior_steps: of Adam, >= 0; None: the preset's. learning_rate: of Adam, > 0; None: the preset's.
    plateau: the fit ends early when its loss changes by at most this share over 200 steps
        (:class:`~jaxcolor.deep_prior.PlateauRule`), >= 0 and < 1; None: never.
    seed: of its noise, >= 0. seeds: independent starts, of which the one with the smallest loss is taken, >= 1.

    Raises :class:`InputError` for a value out of range.
    """

    method: str = "coupled-tv"
    resolution: int = RESOLUTION
    rebalancing: float | None = None
    temperature: float = ANNEALING_TEMPERATURE
    candidates: int = 10
    fidelity: float | None = None
    coupling: float | None = None
    variant: str = "guided"
    steps: int = 500
    refinement_steps: int = 25
    preset: "str | Preset | None" = None
    prior_steps: int | None = None
    learning_rate: float | None = None
    plateau: float | None = None
    seed: int = 0
    seeds: int = 1
    working_side: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _check_kind(name, value)
        checks = {
            f"method must be one of {', '.join(METHODS)}; got {self.method!r}": self.method in METHODS,
            f"resolution must be a positive multiple of {INPUT_MULTIPLE}; got {self.resolution}": (
                self.resolution > 0 and self.resolution % INPUT_MULTIPLE == 0
            ),
            f"rebalancing must be a number, at least 0; got {self.rebalancing}": (
                self.rebalancing is None or 0 <= self.rebalancing < math.inf
            ),
            f"temperature must be a positive number; got {self.temperature}": 0 < self.temperature < math.inf,
            f"candidates must be between 1 and {PALETTE_SIZE}, the size of the palette; got {self.candidates}": (
                1 <= self.candidates <= PALETTE_SIZE
            ),
            f"fidelity must be a positive number; got {self.fidelity}": (
                self.fidelity is None or 0 < self.fidelity < math.inf
            ),
            f"coupling must be a number, at least 0; got {self.coupling}": (
                self.coupling is None or 0 <= self.coupling < math.inf
            ),
            f"variant must be one of {', '.join(VARIANTS)}; got {self.variant!r}": self.variant in VARIANTS,
            f"steps must be at least 0; got {self.steps}": self.steps >= 0,
            f"refinement_steps must be at least 0; got {self.refinement_steps}": self.refinement_steps >= 0,
            f"preset must be one of {', '.join(PRESETS)}, or a Preset; got {self.preset!r}": (
                self.preset is None or self.preset in PRESETS or _is_preset(self.preset)
            ),
            f"prior_steps must be at least 0; got {self.prior_steps}": self.prior_steps is None
            or self.prior_steps >= 0,
            f"learning_rate must be a positive number; got {self.learning_rate}": (
                self.learning_rate is None or 0 < self.learning_rate < math.inf
            ),
            f"plateau must be at least 0 and less than 1; got {self.plateau}": (
                self.plateau is None or 0 <= self.plateau < 1
            ),
            f"seed must be at least 0 and less than 2**32; got {self.seed}": 0 <= self.seed < 2**32,
            f"seeds must be at least 1; got {self.seeds}": self.seeds >= 1,
            f"working_side must be at least 8 pixels; got {self.working_side}": (
                self.working_side is None or self.working_side >= 8
            ),
        }
        for message, holds in checks.items():
            if not holds:
                raise InputError(message)

    def working_pixels(self) -> float:
        """Pixels that the method works on at most."""
        if self.working_side is None and self.method == "coupled-tv" and self.variant == "mouzon2019":
            return math.inf
        return (self.working_side or WORKING_SIDE) ** 2

    def changed(self, names: Sequence[str]) -> list[str]:
        """Those of the fields ``names`` that do not have their defaults.

        >>> Settings(steps=5).changed(("steps", "seed"))
        ['steps']
        """
        return [name for name in names if getattr(self, name) != getattr(type(self), name)]


def _check_kind(name: str, value: Any) -> None:
    """Raise for what is no number where one is expected; NumPy's and JAX's scalars are numbers too."""
    if name not in WHOLE_NUMBERS + NUMBERS or (value is None and getattr(Settings, name) is None):
        return
    try:
        # Of anything else these say what it is not.
        if name in WHOLE_NUMBERS:
            index(value)
        else:
            math.isnan(value)
    except TypeError as error:
        what = "a whole number" if name in WHOLE_NUMBERS else "a number"
        raise InputError(f"{name} must be {what}; got {value!r}") from error


def _is_preset(value: object) -> bool:
    if isinstance(value, str):
        return False
    from jaxcolor.deep_prior.presets import Preset

    return isinstance(value, Preset)
