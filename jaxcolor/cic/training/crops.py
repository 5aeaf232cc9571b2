"""Reproducible batches of random crops."""

import math
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL import Image

# Windows have the photo's aspect, changed by up to this factor, because prediction squeezes whole photos of any aspect
# to a square.
SQUEEZE = 1.2
# A crop covers at least this share of the sides of its photo.
LEAST_SHARE = 0.45
# Threads that make crops: a GPU takes a batch in milliseconds.
MOST_WORKERS = 16


def useful_side(size: int, least_share: float = LEAST_SHARE) -> int:
    """Short side in pixels of a photo whose smallest crop has ``size`` pixels a side; more of them make none better.

    >>> useful_side(128)
    342
    """
    return math.ceil(size * SQUEEZE / least_share)


def batches(
    images: Sequence[np.ndarray], size: int, count: int, seed: int, first_step: int, least_share: float = LEAST_SHARE
) -> Generator[np.ndarray, None, None]:
    """Endless batches uint8 ``[count, size, size, 3]`` of random crops, from step ``first_step`` on.

    The batch of a step depends on ``seed`` and the step alone, so a resumed run sees what an uninterrupted one sees.
    Crops are made by a few threads ahead of time.
    """
    make = partial(make_batch, images, size, count, seed, least_share=least_share)
    workers = min(os.cpu_count() or 2, MOST_WORKERS)
    with ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(make, first_step + i) for i in range(2 * workers)]
        step = first_step + len(ahead)
        while True:
            yield ahead.pop(0).result()
            ahead.append(pool.submit(make, step))
            step += 1


def make_batch(
    images: Sequence[np.ndarray], size: int, count: int, seed: int, step: int, least_share: float = LEAST_SHARE
) -> np.ndarray:
    """The batch of one step; see :func:`batches`."""
    random = np.random.default_rng((seed, step))
    chosen = random.integers(len(images), size=count)
    return np.stack([random_crop(images[i], size, random, least_share) for i in chosen])


def random_crop(
    image: np.ndarray, size: int, random: np.random.Generator, least_share: float = LEAST_SHARE
) -> np.ndarray:
    """A random window of the photo, squeezed to ``size`` x ``size`` with anti-aliasing, mirrored half of the time.

    Its sides are those of the photo times a share between ``least_share`` and 1, and a little more or less.
    """
    height, width = image.shape[:2]
    share, squeeze = random.uniform(least_share, 1), SQUEEZE ** random.uniform(-1, 1)
    box_width, box_height = width * min(1, share * squeeze), height * min(1, share / squeeze)
    left, top = random.uniform(0, width - box_width), random.uniform(0, height - box_height)
    box = (left, top, left + box_width, top + box_height)
    return squeezed(image, size, box)[:, :: random.choice((-1, 1))]


def squeezed(image: np.ndarray, size: int, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """The whole photo, or the window (left, top, right, bottom) of it, as a square."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box))
