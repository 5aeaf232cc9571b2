"""How a run goes, for people: losses, speed, whether the device waits for photos, time left."""

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Literal

import jax
import numpy as np
from tqdm.auto import tqdm

Kind = Literal["bar", "lines", "none"]
# Steps between two looks at the losses.
SHOWN_EVERY = 20
TITLES = {"loss": "loss", "photos_per_second": "photos/s", "data_wait": "data wait"}


class Meter:
    """Losses, speed, and how long the device may have waited for photos, from now on.

    ``batch`` is the number of photos of a step, of which ``losses`` holds ``[loss, cross-entropy]``.
    """

    def __init__(self, batch: int) -> None:
        self.losses: list[jax.Array] = []
        self._batch, self._waited, self._start = batch, 0.0, time.perf_counter()

    def fetched(self, source: Iterator[np.ndarray]) -> np.ndarray:
        """The next batch. The time that it takes counts as waiting if the device has finished the step before it."""
        start = time.perf_counter()
        rgb = next(source)
        if all(_is_ready(losses) for losses in self.losses[-1:]):
            self._waited += time.perf_counter() - start
        return rgb

    def glance(self) -> dict[str, float]:
        """Mean loss of the last steps, speed and share of waiting so far; of finished steps alone, without waiting."""
        seconds = time.perf_counter() - self._start
        # They finish in their order.
        done = next((n for n in range(len(self.losses), 0, -1) if _is_ready(self.losses[n - 1])), 0)
        if done == 0:
            return {}
        recent = np.mean(self.losses[max(0, done - SHOWN_EVERY) : done], 0)
        return {"loss": float(recent[0]), **self._speed(done, seconds)}

    def row(self) -> dict[str, float]:
        """What the log says of the training itself; waits for the last step."""
        loss, plain = np.mean(self.losses, 0)
        seconds = time.perf_counter() - self._start
        return {"loss": loss, "training_cross_entropy": plain, **self._speed(len(self.losses), seconds)}

    def _speed(self, steps: int, seconds: float) -> dict[str, float]:
        return {"photos_per_second": steps * self._batch / seconds, "data_wait": self._waited / seconds}


def _is_ready(array: jax.Array) -> bool:
    return array.is_ready()  # type: ignore[attr-defined]


class Progress:
    """Shows steps ``first`` to ``total``: as a bar on a terminal, or as one line of stderr for every validation."""

    def __init__(self, kind: Kind, first: int, total: int) -> None:
        self._lines, self._total = kind == "lines", total
        self._bar = tqdm(initial=first, total=total, unit="step", smoothing=0.05, disable=kind != "bar")
        self._shown: dict[str, str] = {}
        self._since: tuple[int, float] | None = None

    def advanced(self, step: int, meter: Meter) -> None:
        """So many steps have begun."""
        if self._since is None:  # the first one was compiled
            self._since = step, time.perf_counter()
        if step % SHOWN_EVERY == 0 and not self._bar.disable:
            self._show({TITLES[name]: f"{value:.3g}" for name, value in meter.glance().items()})
        self._bar.update()

    def validated(self, step: int, row: Mapping[str, float]) -> None:
        """What the log says of this step."""
        self._show({"held out": f"{row['cross_entropy']:.3f}"})
        if self._lines:
            print(self._line(step, row), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _show(self, values: Mapping[str, str]) -> None:
        self._shown |= values
        self._bar.set_postfix(self._shown, refresh=False)

    def _line(self, step: int, row: Mapping[str, float]) -> str:
        began, start = self._since or (step, 0.0)
        each = (time.perf_counter() - start) / (step - began) if step > began else None
        left = "?" if each is None else tqdm.format_interval((self._total - step) * each)
        return (
            f"step {step} of {self._total}: loss {row['loss']:.3f}, held-out cross-entropy {row['cross_entropy']:.3f} "
            f"(prior {row['cross_entropy_prior']:.3f}), {row['photos_per_second']:.1f} photos/s, "
            f"data wait {100 * row['data_wait']:.1f} %, {left} left"
        )
