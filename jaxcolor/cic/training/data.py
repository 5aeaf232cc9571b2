"""Folders of photos, in memory."""

import hashlib
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from jaxcolor.cic.training.crops import squeezed
from jaxcolor.errors import InputError
from jaxcolor.images import read_color
from jaxcolor.images.profiles import ProfileKind, profile_kind
from jaxcolor.memory import machine_bytes_available

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
# Gray photos teach nothing: Zhang et al. keep photos with some |a*| or |b*| above 5; on RGB, about this spread.
MINIMAL_COLOR_SPREAD = 12
GRAY = "gray"
# Of 64 bits, see fingerprints.
NEAR_DUPLICATE_BITS = 6


@dataclass(frozen=True)
class Photos:
    """Decoded color photos (uint8 ``[H, W, 3]``) and the files that could not be used, each with the reason.

    ``digest`` is that of the names and contents of all the files that were read together, in their order.
    """

    images: list[np.ndarray]
    names: list[str]
    rejected: dict[str, str]
    digest: str = ""

    def split(self, share: float) -> tuple["Photos", "Photos"]:
        """(training, validation): about ``share`` of the photos, chosen by name, so that a photo never changes sides.

        Those that nearly equal a training photo, mirrored or not, go to training: they would measure memory. Of two
        photos or more one is held out at least, if possible such a one as equals no other.
        """
        held_out = np.array([zlib.crc32(os.fsencode(name)) % 1000 < 1000 * share for name in self.names])
        prints = fingerprints(self.images)
        known = np.concatenate([prints[~held_out, 0], prints[~held_out, 1]])
        for i in np.flatnonzero(held_out):
            held_out[i] = np.bitwise_count(known ^ prints[i, 0]).min(initial=64) > NEAR_DUPLICATE_BITS
        if not held_out.any() and len(self.names) > 1:
            held_out[self._most_apart(prints)] = True
        return self._select(list(~held_out)), self._select(list(held_out))

    def _most_apart(self, prints: NDArray[np.uint64]) -> int:
        """The first photo, in an order by name as good as random, that nearly equals no other; else the first."""
        order = sorted(range(len(self.names)), key=lambda i: zlib.crc32(os.fsencode(self.names[i])))
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
        return replace(self, images=images, names=names)

    def _select(self, keep: Sequence[bool]) -> "Photos":
        images = [image for image, k in zip(self.images, keep, strict=True) if k]
        return replace(self, images=images, names=[name for name, k in zip(self.names, keep, strict=True) if k])


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
    folders: Sequence[Path],
    side: int | None = None,
    most: int | None = None,
    besides: Path | None = None,
    short: int | None = None,
) -> Photos:
    """Decode every photo below ``folders``; broken and gray ones are left out and named in ``rejected``.

    What lies below ``besides``, such as the sample pictures of a run, is not looked at, nor are hidden files.

    With ``side`` each photo is squeezed to a square of so many pixels. With ``short`` one whose short side has more
    pixels is reduced to that, with anti-aliasing; the others stay as they are. With ``most`` at most so many files are
    read, evenly spaced among all.

    Memory: 3 bytes a pixel that is kept, and those of a few photos at their full size. Raises :class:`InputError` for a
    folder that is missing, when no usable photo is left and, before anything is decoded, when there is too little
    memory.
    """
    paths = [path for folder in folders for path in _photo_paths(folder, besides)]
    if most is not None and len(paths) > most:
        paths = [paths[i * len(paths) // most] for i in range(most)]
    with ThreadPoolExecutor() as pool:
        sizes: dict[str, Any] = {"side": side, "short": short or math.inf}
        _require_memory(list(pool.map(partial(_bytes_kept, **sizes), paths)), side)
        decoded = list(pool.map(partial(_decode, **sizes), paths))
    photos, digest = Photos([], [], {}), hashlib.sha256()
    for path, result in zip(paths, decoded, strict=True):
        if isinstance(result, str):
            photos.rejected[str(path)] = result
            continue
        rgb, content = result
        photos.images.append(rgb)
        photos.names.append(path.name)
        digest.update(os.fsencode(path.name) + content)
    if not photos.images:
        places = ", ".join(str(folder) for folder in folders)
        raise InputError(
            f"no color photo in {places}: of {len(paths)} image files none is readable and in color; "
            f"give a folder with photos in color"
        )
    return replace(photos, digest=digest.hexdigest())


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


def _require_memory(kept: Sequence[int], side: int | None) -> None:
    needed, free = sum(kept), machine_bytes_available()  # photos lie there, whatever computes
    if needed > free:
        advice = "a smaller --size or a larger --least-share" if side is None else "a smaller --side"
        raise InputError(
            f"{len(kept)} photos need {needed / 1e9:.3g} GB of memory as they are kept and {free / 1e9:.3g} GB are "
            f"free; give fewer photos, or {advice}"
        )


def _bytes_kept(path: Path, side: int | None, short: float) -> int:
    """What a photo will take, by its header; 0 for what is none."""
    try:
        with Image.open(path) as image:
            return 3 * math.prod(_reduced(image.size, short) if side is None else (side, side))
    except Exception:  # named when it is decoded
        return 0


def _decode(path: Path, side: int | None, short: float) -> tuple[np.ndarray, bytes] | str:
    """The photo and a digest of its file, or why it cannot be used."""
    try:
        rgb = _pixels(path, short)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except Exception as error:  # decoders of damaged files raise whatever they like
        reason = str(error) or type(error).__name__
        return f"not readable ({' '.join(reason.split())})"
    if side is not None:
        rgb = squeezed(rgb, side)
    spread = rgb.max(-1).astype(np.int16) - rgb.min(-1)
    return (rgb, digest) if spread.max() > MINIMAL_COLOR_SPREAD else GRAY


def _pixels(path: Path, short: float) -> np.ndarray:
    """As a photo is read to be colorized; by Pillow alone, several times as fast, where it has no color profile."""
    with Image.open(path) as image:
        profile = image.info.get("icc_profile")
        if not profile or profile_kind(profile) is ProfileKind.SRGB:
            # A JPEG comes at a half, a quarter or an eighth of its size if that is enough.
            image.draft(None, _reduced(image.size, short))
            upright = ImageOps.exif_transpose(image).convert("RGB")
        else:
            upright = Image.fromarray(np.rint(255 * read_color(path)).astype(np.uint8))
    return np.asarray(upright.resize(_reduced(upright.size, short), Image.Resampling.BICUBIC))


def _reduced(size: tuple[int, int], short: float) -> tuple[int, int]:
    """The size of the same aspect whose short side is at most ``short``."""
    scale = min(1.0, short / min(size))
    return round(scale * size[0]), round(scale * size[1])
