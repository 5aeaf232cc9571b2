"""Batches of random crops as training wants them: ours, one thread alone, and grain's."""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from jaxcolor.cic.training.crops import MOST_WORKERS, batches, make_batch, random_crop

from .timing import Table, Timing

MISSING = "grain is not installed: its row is left out"
WORKERS = min(os.cpu_count() or 2, MOST_WORKERS)
SEED, REPETITIONS = 0, 7

# Opens endless batches, an iterator that can be closed.
Source = Callable[[], Any]


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """One table for each size of crops: seconds a batch, from synthetic photos of 288 x 192 pixels in memory."""
    photos = _photos(8 if quick else 500)
    for size, count in [(32, 4)] if quick else [(128, 32), (256, 8)]:
        yield loading(photos, size, count, 4 if quick else 50, peers)


def loading(photos: Sequence[np.ndarray], size: int, count: int, taken: int, peers: bool) -> Table:
    """Batches of ``count`` crops; ``taken`` of them in every repetition, after those that were made ahead."""
    ways: dict[str, Source] = {
        "jaxcolor": lambda: batches(photos, size, count, SEED, 0),
        "one thread": lambda: (make_batch(photos, size, count, SEED, step) for step in itertools.count()),
    }
    notes = []
    if peers:
        try:
            ways["grain, threads"] = _grain(photos, size, count)
        except ImportError:
            notes.append(MISSING)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPETITIONS):
        for name, source in ways.items():
            times[name].append(_seconds_a_batch(source, taken))
    rows = {name: Timing.of(seconds) for name, seconds in times.items()}
    speeds = {name: {"photos/s": count / timing.median} for name, timing in rows.items()}
    return Table(f"loading, {count} crops of {size}²", rows, "jaxcolor", notes=notes, values=speeds)


def _seconds_a_batch(source: Source, taken: int) -> float:
    """In the long run: every source makes some batches ahead, and goes on making one for each that is taken."""
    # What was made ahead is taken first. The source ends before the next begins.
    with closing(source()) as opened:
        for _ in range(2 * WORKERS):
            next(opened)
        began = time.perf_counter()
        for _ in range(taken):
            next(opened)
        return (time.perf_counter() - began) / taken


def _grain(photos: Sequence[np.ndarray], size: int, count: int) -> Source:
    """The same crops, in threads; each photo once an epoch instead of drawn at random."""
    import grain

    def crop(photo: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return random_crop(photo, size, random)

    options = grain.ReadOptions(num_threads=WORKERS, prefetch_buffer_size=2 * WORKERS)
    dataset: Any = grain.MapDataset.source(photos).seed(SEED).shuffle().repeat().random_map(crop).batch(count)
    return partial(iter, dataset.to_iter_dataset(options))


def _photos(count: int) -> list[np.ndarray]:
    """Smooth colors and some grain."""
    random = np.random.default_rng(SEED)
    coarse = [Image.fromarray(random.integers(0, 255, (8, 12, 3), np.uint8)) for _ in range(count)]
    smooth = [np.asarray(image.resize((288, 192), Image.Resampling.BICUBIC), np.int16) for image in coarse]
    return [np.uint8(np.clip(image + random.integers(-9, 9, image.shape), 0, 255)) for image in smooth]
