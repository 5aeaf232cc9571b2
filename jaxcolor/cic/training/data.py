"""Photos in memory and reproducible batches of random crops."""

import os
import zlib
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from jaxcolor.errors import InputError
from jaxcolor.images import read_color
from jaxcolor.images.profiles import ProfileKind, profile_kind

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
# Windows have the photo's aspect, changed by up to this factor, because prediction squeezes whole photos of any aspect
# to a square.
SQUEEZE = 1.2
# A crop covers at least this share of the sides of its photo.
LEAST_SHARE = 0.45
# Gray photos teach nothing: Zhang et al. keep photos with some |a*| or |b*| above 5; on RGB, about this spread.
MINIMAL_COLOR_SPREAD = 12
GRAY = "gray"
# Threads that make crops: a GPU takes a batch in milliseconds.
MOST_WORKERS = 16
# Of 64 bits, see fingerprints.
NEAR_DUPLICATE_BITS = 6


@dataclass(frozen=True)
class Photos:
    """Decoded color photos (uint8 ``[H, W, 3]``) and the files that could not be used, each with the reason."""

    images: list[np.ndarray]
    names: list[str]
    rejected: dict[str, str]

    def split(self, share: float) -> tuple["Photos", "Photos"]:
        """(training, validation): about ``share`` of the photos, chosen by name, so that a photo never changes sides.

        Those that nearly equal a training photo, mirrored or not, go to training: they would measure memory. Of two
        photos or more one is held out at least, if possible such a one as equals no other.
        """
        held_out = np.array([zlib.crc32(name.encode()) % 1000 < 1000 * share for name in self.names])
        prints = fingerprints(self.images)
        known = np.concatenate([prints[~held_out, 0], prints[~held_out, 1]])
        for i in np.flatnonzero(held_out):
            held_out[i] = np.bitwise_count(known ^ prints[i, 0]).min(initial=64) > NEAR_DUPLICATE_BITS
        if not held_out.any() and len(self.names) > 1:
            held_out[self._most_apart(prints)] = True
        return self._select(list(~held_out)), self._select(list(held_out))

    def _most_apart(self, prints: NDArray[np.uint64]) -> int:
        """The first photo, in an order by name as good as random, that nearly equals no other; else the first."""
        order = sorted(range(len(self.names)), key=lambda i: zlib.crc32(self.names[i].encode()))
        for i in order:
            others = np.delete(prints, i, 0).ravel()
            if np.bitwise_count(others ^ prints[i, 0]).min() > NEAR_DUPLICATE_BITS:
                return i
        return order[0]

    def repeated(self, times: Mapping[str, int]) -> "Photos":
        """The photos whose file names match a pattern of ``times`` count so many times (0: not at all), others once.

        Of several patterns that match, the first counts. A repeated photo takes no more memory.

        >>> photos = Photos(["x", "y"], ["dog_1.jpg", "cat_1.jpg"], {})
        >>> photos.repeated({"dog_*": 3}).names
        ['dog_1.jpg', 'dog_1.jpg', 'dog_1.jpg', 'cat_1.jpg']
        """
        images, names = [], []
        for image, name in zip(self.images, self.names, strict=True):
            count = next((n for pattern, n in times.items() if fnmatchcase(name, pattern)), 1)
            images += [image] * count
            names += [name] * count
        return Photos(images, names, self.rejected)

    def _select(self, keep: Sequence[bool]) -> "Photos":
        images = [image for image, k in zip(self.images, keep, strict=True) if k]
        return Photos(images, [name for name, k in zip(self.names, keep, strict=True) if k], self.rejected)


def fingerprints(images: Sequence[np.ndarray]) -> NDArray[np.uint64]:
    """64 bits of each photo and of its mirror image, ``[N, 2]``: which of neighboring patches is the brighter.

    Copies at another size, quality or contrast differ in a few bits, unrelated photos in about 32 ("difference hash").

    >>> photo = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    >>> prints = fingerprints([photo, photo[:, ::-1]])
    >>> bool(prints[0, 1] == prints[1, 0])
    True
    """
    patches = np.empty((len(images), 8, 9))
    for patch, image in zip(patches, images, strict=True):
        patch[:] = np.asarray(Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX))
    both = np.stack([patches, patches[:, :, ::-1]], 1)
    bits = (both[..., 1:] > both[..., :-1]).reshape(len(images), 2, 64)
    return np.packbits(bits, -1).view(np.uint64)[..., 0]


def load_photos(
    folders: Sequence[Path], side: int | None = None, most: int | None = None, besides: Path | None = None
) -> Photos:
    """Decode every photo below ``folders``; broken and gray ones are left out and named in ``rejected``.

    What lies below ``besides``, such as the sample pictures of a run, is not looked at, nor are hidden files.

    With ``side`` each photo is squeezed to a square of so many pixels. With ``most`` at most so many files are read,
    evenly spaced among all. Raises :class:`InputError` for a folder that is missing and when no usable photo is left.
    Memory: 3 bytes a pixel.
    """
    paths = [path for folder in folders for path in _photo_paths(folder, besides)]
    if most is not None and len(paths) > most:
        paths = [paths[i * len(paths) // most] for i in range(most)]
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(partial(_decode, side=side), paths))
    photos = Photos([], [], {})
    for path, result in zip(paths, decoded, strict=True):
        if isinstance(result, str):
            photos.rejected[str(path)] = result
        else:
            photos.images.append(result)
            photos.names.append(path.name)
    if not photos.images:
        places = ", ".join(str(folder) for folder in folders)
        raise InputError(
            f"no color photo in {places}: of {len(paths)} image files none is readable and in color; "
            f"give a folder with photos in color"
        )
    return photos


def _photo_paths(folder: Path, besides: Path | None) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder of color photos")
    apart = None if besides is None else besides.resolve()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (apart is not None and path.resolve().is_relative_to(apart))
    )


def _decode(path: Path, side: int | None) -> np.ndarray | str:
    try:
        rgb = _pixels(path)
    except Exception as error:  # decoders of damaged files raise whatever they like
        return f"not readable ({error})"
    if side is not None:
        rgb = squeezed(rgb, side)
    spread = rgb.max(-1).astype(np.int16) - rgb.min(-1)
    return rgb if spread.max() > MINIMAL_COLOR_SPREAD else GRAY


def _pixels(path: Path) -> np.ndarray:
    """As a photo is read to be colorized; by Pillow alone, several times as fast, where it has no color profile."""
    with Image.open(path) as image:
        profile = image.info.get("icc_profile")
        if not profile or profile_kind(profile) is ProfileKind.SRGB:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    return np.rint(255 * read_color(path)).astype(np.uint8)


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
