"""What a run leaves for people: numbers in ``log.csv``, sample pictures, and both in TensorBoard if wanted."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxcolor.errors import InputError
from jaxcolor.files import replacing


class TrainingLog:
    """Writes to a run's folder: ``log.csv``, ``samples/STEP.png`` and, with ``tensorboard``, ``tensorboard/``.

    Raises :class:`InputError` when TensorBoard's writer is wanted and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        self._folder = folder
        self._writer = _tensorboard_writer(folder / "tensorboard") if tensorboard else None

    def write(self, step: int, row: Mapping[str, float], pictures: np.ndarray) -> None:
        """Append the numbers of a step; ``pictures`` is a sheet, uint8 ``[H, W, 3]``."""
        append_row(self._folder / "log.csv", {"step": step, **row})
        samples = self._folder / "samples"
        samples.mkdir(exist_ok=True)
        with replacing(samples / f"{step:07d}.png") as temporary:
            Image.fromarray(pictures).save(temporary, format="PNG")
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, float(value), step)
            self._writer.add_image("samples", pictures, step, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Append the row of a step to a CSV file.

    Rows of this and later steps, of a run that was killed and went on from a checkpoint before them, are dropped. Where
    the columns are others, as after an update, the file gets the new ones too.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp(), "log.csv")
    >>> for step in (500, 1000, 1500, 1000):
    ...     append_row(path, {"step": step, "loss": 1 / 4})
    >>> path.read_text().split()
    ['step,loss', '500,0.25', '1000,0.25']
    """
    text = {name: f"{value:.6g}" for name, value in row.items()}
    rows: list[dict[str, str]] = []
    columns: list[str] = []
    if path.exists():
        # Whatever another program has made of it: what can be read stays.
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            rows, columns = [old for old in reader if _step(old) < row["step"]], list(reader.fieldnames or [])
    columns += [name for name in row if name not in columns]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*rows, text])


def _step(row: Mapping[str, str | None]) -> float:
    try:
        return float(row.get("step") or "")
    except ValueError:  # of another program
        return -math.inf


def _tensorboard_writer(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise InputError(
            "--tensorboard needs tensorboardX; install it with: pip install 'jaxcolor[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder))
