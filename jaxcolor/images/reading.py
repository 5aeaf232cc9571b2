"""read_gray and read_color: any usual picture file to a GrayImage, or to its colors."""

import logging
import os
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import imageio.v3 as iio
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from jaxcolor.errors import InputError
from jaxcolor.images.gray import GrayImage, checked_pixels
from jaxcolor.images.luminance import luminance_of, srgb_of, unit_scale
from jaxcolor.images.profiles import ProfileKind, profile_kind

MAX_PIXELS = 500_000_000
"""Largest picture that is read; a header that promises more is taken for a decompression bomb."""

_FORMATS = "PNG, JPEG, TIFF, WebP, BMP or GIF"
_SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
}
# Pillow mode to the mode that is asked for, without and with transparency.
_MODES = {
    "1": ("L", "LA"),
    "L": ("L", "LA"),
    "LA": ("LA", "LA"),
    "La": ("LA", "LA"),
    "P": ("RGB", "RGBA"),
    "PA": ("RGBA", "RGBA"),
    "RGB": ("RGB", "RGBA"),
    "RGBX": ("RGB", "RGB"),
    "RGBA": ("RGBA", "RGBA"),
    "RGBa": ("RGBA", "RGBA"),
    "YCbCr": ("RGB", "RGB"),
    "CMYK": ("CMYK", "CMYK"),
}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_DNG_VERSION = 50706

# Without a handler of its own, Python prints tifffile's remarks on damaged files beside the one-line error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass
class _Raster:
    """Pixels as stored: colors [H, W, 1 | 3 | 4 inks], alpha [H, W] or None."""

    colors: NDArray[Any]
    alpha: NDArray[Any] | None = None
    icc: bytes | None = None
    orientation: int = 1
    bit_depth: int = 8
    notes: list[str] = field(default_factory=list)


def read_gray(path: str | os.PathLike[str]) -> GrayImage:
    """The luminance of a picture file, with everything that the colorized output has to carry.

    Reads PNG, JPEG, TIFF, WebP, BMP and GIF: gray, RGB, palette, 1-bit, CMYK, with or without alpha, 8 or 16 bit,
    and TIFF in float (sRGB-encoded values in [0, 1]). A color picture is reduced to its L*; an embedded profile is
    honored. Orientation tags are applied. Of a file with several pages or frames the first is read. The format is
    recognized by content, not by suffix. Luminance agrees with the file to float32 accuracy.

    Args:
        path: The file.

    Returns:
        A GrayImage. ``icc`` is the embedded profile where an RGB output can carry it: gray and CMYK profiles are
        used for L* and then dropped (the output is plain sRGB), which ``notes`` says.

    Raises:
        InputError: Missing, empty, damaged or truncated file, a format or mode that is not read, NaN or infinity,
            float values outside [0, 1], more than 500 million pixels. One line that says how to fix it.

    Cost: about 20 bytes of memory per pixel, freed down to 4 (8 with alpha).

    Example:
        >>> read_gray("old.jpg").luminance.shape                                  # doctest: +SKIP
        (600, 800)
    """
    file = Path(path)
    return _finish(_raster(file), file)


def read_color(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """The colors of a picture file, ``[H, W, 3]`` in [0, 1], sRGB-encoded, upright; transparency is dropped.

    Reads what :func:`read_gray` reads, with the same errors; a gray picture has three equal channels. An embedded
    profile is honored; colors outside sRGB are clipped. Costs about 30 bytes of memory per pixel.

    Example:
        >>> read_color("photo.jpg").shape                                         # doctest: +SKIP
        (600, 800, 3)
    """
    file = Path(path)
    raster = _raster(file)
    colors = srgb_of(raster.colors, _choose_profile(raster)[0])
    return np.stack([_upright(colors[..., channel], raster.orientation) for channel in range(3)], -1)


def _raster(file: Path) -> _Raster:
    with _opened(file) as handle:
        try:
            return _read(handle, file)
        except InputError:
            raise
        except MemoryError as error:
            raise InputError(f"{file}: does not fit into memory; crop or scale it down first") from error
        except Exception as error:  # decoders of damaged files raise whatever they like
            raise InputError(
                f"{file}: damaged or truncated picture ({_reason(error)}); expected a complete {_FORMATS};"
                " copy or export it again"
            ) from error


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        if not file.exists():
            raise InputError(f"{file}: no such file; expected a {_FORMATS} picture; check the path")
        if file.is_dir():
            raise InputError(f"{file}: is a folder; expected one picture file; name a file in it")
        if not file.is_file():
            raise InputError(f"{file}: is no regular file; expected a picture file; save it to disk first")
        handle = file.open("rb")
    except OSError as error:
        raise InputError(
            f"{file}: cannot be opened ({error.strerror or error}); expected a readable file; check its permissions"
        ) from error
    with handle:
        yield handle


def _reason(error: Exception) -> str:
    """One short printable line; some decoders quote the damaged bytes."""
    words = "".join(letter if letter.isprintable() else " " for letter in str(error)).split()
    return textwrap.shorten(" ".join(words), 120, placeholder=" …") or type(error).__name__


def _read(handle: BinaryIO, file: Path) -> _Raster:
    head = handle.read(32)
    handle.seek(0)
    if not head:
        raise InputError(f"{file}: is empty (0 bytes); expected a {_FORMATS} picture; copy or export it again")
    name = next((name for name, starts in _SIGNATURES.items() if head.startswith(starts)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        name = "WebP"
    if name is None:
        raise InputError(f"{file}: is not a picture of a known format; expected {_FORMATS}; convert it first")
    if name == "TIFF":
        return _read_tiff(handle, file)
    deep_png = name == "PNG" and head[12:16] == b"IHDR" and head[24:25] == b"\x10"
    return _read_pillow(handle, file, decode_png=deep_png)


def _read_pillow(handle: BinaryIO, file: Path, decode_png: bool = False) -> _Raster:
    """All 8-bit pictures; of 16-bit PNG, whose low byte Pillow drops for colors, only what is around the pixels."""
    opened: Any  # imageio's context manager forgets which plugin it opened
    with _no_pixel_limit(), iio.imopen(handle, "r", plugin="pillow") as opened:
        # Before the metadata, for which Pillow may decode a whole PNG.
        height, width = opened.properties(index=0).shape[:2]
        _check_size(file, height, width)
        meta = opened.metadata(index=0, exclude_applied=False)
        frames = opened.properties(index=...).n_images or 1
        if decode_png:
            handle.seek(0)
            pixels = imagecodecs.png_decode(handle.read())
        else:
            modes = _MODES.get(meta["mode"])
            if modes is None:
                raise InputError(
                    f"{file}: has Pillow mode {meta['mode']}, which is not read; expected gray, RGB, palette or CMYK;"
                    " convert it to RGB first"
                )
            mode = modes["transparency" in meta]
            pixels = opened.read(index=0, mode=mode, writeable_output=False)
            # Pillow turns TIFF pictures while it decodes them and then drops the tag, so look again.
            meta = opened.metadata(index=0, exclude_applied=False)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    is_ink = not decode_png and mode == "CMYK"
    colors, alpha = (pixels, None) if is_ink else _split_alpha(pixels)
    raster = _Raster(colors, alpha, meta.get("icc_profile"), bit_depth=16 if decode_png else 8)
    raster.orientation = meta.get("Orientation", 1)
    _note_pages(raster, frames)
    return raster


def _split_alpha(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    has_alpha = pixels.shape[-1] in (2, 4)
    return (pixels[..., :-1], pixels[..., -1]) if has_alpha else (pixels, None)


def _read_tiff(handle: BinaryIO, file: Path) -> _Raster:
    """TIFF with more than 8 bits, here; the others by Pillow, which knows their palettes and compressions."""
    with tifffile.TiffFile(handle) as tif:
        page = tif.pages[0].aspage()
        if _DNG_VERSION in page.tags or (page.is_reduced and (page.subifds or len(tif.pages) > 1)):
            raise InputError(
                f"{file}: its first picture is a small preview, as in a camera's raw file; expected a finished picture;"
                " export it as TIFF, PNG or JPEG first"
            )
        if np.max(page.bitspersample) > 8 or page.sampleformat == tifffile.SAMPLEFORMAT.IEEEFP:
            return _read_deep_tiff(tif, page, file)
    handle.seek(0)
    return _read_pillow(handle, file)


def _read_deep_tiff(tif: tifffile.TiffFile, page: tifffile.TiffPage, file: Path) -> _Raster:
    _check_size(file, page.imagelength, page.imagewidth)
    pixels, pages = _tiff_pixels(tif, page), len(tif.pages)
    known = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "SEPARATED": 4}
    photometric = getattr(page.photometric, "name", str(page.photometric))
    count = known.get(photometric)
    if count == 1 and page.samplesperpixel == 1 and pixels.shape[-1] in (3, 4):
        count, pages = 3, 1  # see _tiff_pixels
    if count is None or pixels.shape[-1] < count or pixels.dtype.kind not in "uf":
        raise InputError(
            f"{file}: TIFF with {pixels.shape[-1]} {pixels.dtype} channels, photometric {photometric}, is not read;"
            " expected gray, RGB or CMYK, unsigned or float; convert it to RGB first"
        )
    pixels, bits = checked_pixels(pixels, str(file)), int(np.max(page.bitspersample))
    if pixels.dtype.kind == "u" and bits < 8 * pixels.dtype.itemsize:
        # 12 bits, say, come in the lower ones of 16.
        pixels = pixels / np.float32(2**bits - 1)
    colors, alpha = pixels[..., :count], None
    if photometric == "MINISWHITE":
        colors = (1 if colors.dtype.kind == "f" else np.iinfo(colors.dtype).max) - colors
    extra = int(page.extrasamples[0]) if page.extrasamples else 0
    if pixels.shape[-1] > count and extra in (_ASSOCIATED, _UNASSOCIATED):
        alpha = pixels[..., count]
        if extra == _ASSOCIATED:
            colors, alpha = _unpremultiplied(unit_scale(colors), unit_scale(alpha))
    raster = _Raster(colors, alpha, page.iccprofile, page.tags.valueof(274, default=1), bit_depth=16)
    _note_pages(raster, pages)
    return raster


def _tiff_pixels(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> NDArray[Any]:
    """[H, W, C] of the first picture."""
    series = tif.series[0]
    if tif.is_shaped and page.axes == "YX" and series.ndim == 3 and series.shape[-1] in (3, 4):
        # tifffile stores [H, W, 3] float arrays as H pages of [W, 3] unless it is told that they are RGB.
        return series.asarray()
    pixels = page.asarray()
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels.reshape(*pixels.shape[:2], -1)


def _unpremultiplied(colors: NDArray[Any], alpha: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    scale = np.where(alpha > 0, alpha, 1)
    return np.clip(colors / scale[..., None], 0, 1), alpha


def _note_pages(raster: _Raster, count: int) -> None:
    if count > 1:
        raster.notes.append(f"the first of {count} pages or frames was read")


def _check_size(file: Path, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise InputError(
            f"{file}: {width}×{height} is {height * width / 1e6:,.0f} million pixels; expected at most"
            f" {MAX_PIXELS / 1e6:,.0f} million; crop or scale it down first"
        )


def _finish(raster: _Raster, file: Path) -> GrayImage:
    profile, carried = _choose_profile(raster)
    luminance = luminance_of(raster.colors, profile)
    alpha = None if raster.alpha is None else unit_scale(raster.alpha).astype(np.float32)
    return GrayImage(
        luminance=_upright(luminance, raster.orientation),
        alpha=None if alpha is None else _upright(alpha, raster.orientation),
        icc=carried,
        bit_depth=raster.bit_depth,
        source=file,
        notes=tuple(raster.notes),
    )


def _choose_profile(raster: _Raster) -> tuple[bytes | None, bytes | None]:
    """The profile that L* is computed with, and the one that the output carries."""
    icc, channels = raster.icc, raster.colors.shape[-1]
    if not icc:
        return None, None
    kind = profile_kind(icc)
    if kind is ProfileKind.UNREADABLE and channels != 4:
        raster.notes.append("the embedded color profile is unreadable: pixels read as sRGB, profile carried as it is")
        return None, icc
    if kind in (ProfileKind.SRGB, ProfileKind.RGB) and channels != 4:
        return (None if kind is ProfileKind.SRGB else icc), icc
    fits = {ProfileKind.GRAY: 1, ProfileKind.CMYK: 4, ProfileKind.RGB_INPUT: 3}.get(kind) == channels
    use = "used for the luminance only" if fits else "ignored, since it does not fit the pixels"
    raster.notes.append(f"the embedded {kind.name} profile was {use}: an RGB output cannot carry it and is sRGB")
    return (icc if fits else None), None


def _upright(plane: NDArray[np.float32], orientation: Any) -> NDArray[np.float32]:
    """Turns and mirrors a plane as its EXIF orientation tag (1..8; anything else counts as 1) asks."""
    if orientation not in range(2, 9):
        return plane
    if orientation >= 5:
        plane = plane.T
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)


_limit_lock = threading.Lock()
_limit_users = 0
_limit_saved: int | None = None


@contextmanager
def _no_pixel_limit() -> Iterator[None]:
    """Lifts Pillow's process-wide limit while we read (we have our own), and restores it after the last reader."""
    global _limit_users, _limit_saved
    with _limit_lock:
        if _limit_users == 0:
            _limit_saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _limit_users += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_users -= 1
            if _limit_users == 0:
                Image.MAX_IMAGE_PIXELS = _limit_saved
