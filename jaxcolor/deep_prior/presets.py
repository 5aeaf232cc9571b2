"""Named settings of a fit: the published one, its later re-implementation, and one for computers without a GPU."""

import math
from dataclasses import dataclass, field
from typing import Literal

from jaxcolor.coupled_tv.checks import check_count
from jaxcolor.deep_prior.network import SkipNetwork
from jaxcolor.deep_prior.objective import Objective
from jaxcolor.errors import InputError

Start = Literal["mean", "mode", "guide"]


@dataclass(frozen=True)
class Preset:
    """Everything a fit depends on besides the photo, its distribution and the random key.

    Args:
        objective: the numbers of the loss.
        network: the network that is fitted.
        learning_rate: of Adam (moments 0.9 and 0.999), > 0.
        decay: over so many of the last steps the learning rate falls linearly toward 0.
        steps: of Adam, at least 0.
        start: the first target colors: the "mean" of the distribution in every cell, its "mode", or the "guide"
            brought to the cells; where it is not guided, that is the mean again.
        assign_from, assign_every: the target becomes the palette's color nearest to the network's own after
            ``assign_from`` steps and then after every ``assign_every``. ``assign_from`` = None: never.
        guided: the first three channels of the noise are replaced by the photo's luminance and by chroma that is known
            beforehand, for example from the coupled-TV solver. A residual network needs it. Not in the paper.

    Raises :class:`InputError` for numbers outside their range.
    """

    objective: Objective = field(default_factory=Objective)
    network: SkipNetwork = field(default_factory=SkipNetwork)
    learning_rate: float = 2e-2
    decay: int = 0
    steps: int = 2000
    start: Start = "mean"
    assign_from: int | None = 200
    assign_every: int = 200
    guided: bool = False

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("decay", 0), ("assign_every", 1)):
            check_count(name, getattr(self, name), least)
        if self.assign_from is not None:
            check_count("assign_from", self.assign_from, 1)
        checks = {
            f"objective must be an Objective; got {self.objective!r}": isinstance(self.objective, Objective),
            f"network must be a SkipNetwork; got {self.network!r}": isinstance(self.network, SkipNetwork),
            f"learning_rate must be a positive number; got {self.learning_rate!r}": (
                isinstance(self.learning_rate, int | float) and 0 < self.learning_rate < math.inf
            ),
            f"start must be 'mean', 'mode' or 'guide'; got {self.start!r}": self.start in ("mean", "mode", "guide"),
            "a residual network needs a preset that is guided": self.guided
            or not getattr(self.network, "residual", False),
        }
        for message, holds in checks.items():
            if not holds:
                raise InputError(message)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, in a fit of ``steps``.

        >>> [Preset(decay=2, learning_rate=1.0).rate(step, 4) for step in range(4)]
        [1.0, 1.0, 1.0, 0.5]
        """
        return self.learning_rate * min(1.0, (steps - step) / max(self.decay, 1))

    def assigns_after(self, step: int) -> bool:
        """Whether the target is assigned anew after so many steps."""
        first = self.assign_from
        return first is not None and step >= first and (step - first) % self.assign_every == 0


PAPER = Preset()
"""As printed by Agazzotti, Pierre and Sur 2023: α = 1, β = 5e-7, γ = 80, learning rate 2e-2, 2,000 steps, the mean
color as the first target, a new assignment every 200 steps, 128 channels.

What the paper leaves open: that norms are means and TV_γ is a sum (:class:`Objective`); ε² = 1e-5, here as in the
re-implementation; the noise, here N(0, 1) as there (normalisation after the first convolution takes its scale away);
which colors a cell may be assigned, here the whole palette as there; the scale of a* and b*, here 110; how D brings a
picture to the grid, here by the Lanczos kernel of there; and which distribution is regularised:
:func:`jaxcolor.colorize` gives the network's with its class weights on."""

AUTHOR = Preset(
    objective=Objective(variation=5e-6, coupling=100.0, photo_in_variation=True, coarse_luminance=True),
    start="mode",
    assign_from=800,
)
"""The public re-implementation by the paper's first author (GaetanoCodes/Colorisation on GitHub, commit 6d07687). It
differs from :data:`PAPER` in that

* β = 5e-6 is ten times as large, and γ = 100;
* TV_γ takes the photo's luminance, so the network's own cannot be flattened by it;
* the low-resolution term compares luminance too;
* the first target is the mode of the distribution, and it is kept for 800 steps.

Not followed, so that presets differ in what the model says and not in how a photo is read:

* it scales target colors by 110 but shows the result with 128, which makes them 16 % more saturated: here the scale is
  110 throughout;
* its differences are taken on a grid that is one row and one column smaller;
* an assignment takes the place of a gradient step there; here it comes between two;
* its luminance is the gray value times 100/255, here L*; on the grid it is resized by another filter, here by D;
* its main program takes 1,000 steps, its function 2,000 by default as here;
* its chroma is brought to the photo's size by repeating pixels, here by the coupled-TV solver.

Its first versions had γ = 80, the network's own luminance in TV_γ, and a learning rate of 0.05."""

FAST = Preset(
    objective=Objective(variation=5e-6, coupling=100.0, smoothing=3e-4, photo_in_variation=True),
    network=SkipNetwork(channels=16, scales=3, residual=True),
    learning_rate=1e-3,
    decay=100,
    steps=100,
    start="guide",
    assign_from=None,
    guided=True,
)
"""For a few CPU cores; derived, not published. It differs from :data:`PAPER` in that

* the network has 16 channels and 3 scales, and takes 100 steps, whose learning rate falls from 1e-3 to 0;
* β, γ and the photo's luminance in TV_γ are those of :data:`AUTHOR`; its ε is a tenth;
* it is warm-started from the coupled-TV solution: it sees it, and the luminance, among the channels of its noise, and
  draws how the picture differs from these; its target is that solution brought to the cells, never assigned anew.

So it smooths the coupled-TV solution where the photo has no edge, and leaves each cell its color: a small step, since
that solution is nearly smooth already. Chosen on 25 photos that nothing is reported on, of which 12 are of the same
folder as those of the table, at 256² against the coupled-TV solution (leads, by a script that was not kept; changes
with their standard errors): color away from edges -0.3 ± 0.1 %, errors near edges -0.05 ± 0.05 %, edge width +0.04 ±
0.08 %. Larger learning rates leave noise of their own: with 2e-2, and the paper's β, γ and ε, the loss ended above
where it had begun, and 0.5 % more color lay away from edges. With ε as published, differences of less than 0.7 in a* or
b* hardly count. Twice β, at this rate, takes away 0.8 % and widens edges by 1.4 %; four times, at twice the rate, 1.7 %
and 2.7 %. The coupled-TV solver once more after the fit left 0.4 % more color away from edges, which were 0.4 % wider,
on the 12 photos, and changed nothing on the others; so it only brings colors to full size.

Of earlier trials: the mean color as target and assignments every 20 steps were farther from the truth: a cell takes the
color nearest to a mean, often one that the network thought unlikely. A network that draws the picture whole keeps its
colors less well: after 100 steps the color term was a thousand times as large, and colors of which the truth was known
were much farther from it. The means of the pictures of many steps come to the same as the last, within 0.1 %; and
targets that move to where the distribution is likely near the network's own colors gain 1 % where it is perfect, lose
as much where it is as a network's, and are paler (leads, on six to sixteen training photos).

``python -m benchmarks parameters --method deep-prior`` varies its numbers (notebook 9); ``python -m benchmarks
deep-prior`` compares it with the others, and with itself with one choice changed (``--presets``)."""

PRESETS = {"paper": PAPER, "author": AUTHOR, "fast": FAST}
