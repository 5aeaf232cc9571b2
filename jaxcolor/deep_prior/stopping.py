"""When a fit is over before its last step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxcolor.coupled_tv.checks import check_count
from jaxcolor.errors import InputError


@dataclass(frozen=True)
class PlateauRule:
    """Stop when the loss is asymptotically constant.

    For every seed its mean over the last ``window`` steps differs by at most the share ``tolerance`` from that over the
    ``window`` before; seeds whose loss is not finite do not count. Looked at after every chunk of steps. The loss jumps
    at assignments, so the windows should cover equally many.
    Raises :class:`InputError` for numbers outside their range.

    >>> PlateauRule(tolerance=0.1, window=2).met(np.array([[9.0, 4.2, 4.0, 4.0, 4.0]]))
    True
    >>> PlateauRule(tolerance=0.1, window=2).met(np.array([[1.0, 1.0, 5.0, 5.0]]))
    False
    """

    tolerance: float = 0.01
    window: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise InputError(f"tolerance must be a share, at least 0 and less than 1; got {self.tolerance}")
        check_count("window", self.window, 1)

    def met(self, losses: NDArray[np.floating]) -> bool:
        """Whether losses ``[seeds, steps]`` have come to rest."""
        if losses.shape[1] < 2 * self.window:
            return False
        late, early = (losses[:, -n * self.window :][:, : self.window].mean(1) for n in (1, 2))
        return not bool((np.abs(early - late) > self.tolerance * early).any())
