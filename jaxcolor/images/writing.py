"""write_image: colors to a file, whole or not at all."""

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import imageio.v3 as iio
import numpy as np
import tifffile
from numpy.typing import ArrayLike, NDArray

from jaxcolor.errors import InputError
from jaxcolor.files import replacing
from jaxcolor.images.gray import GrayImage
from jaxcolor.images.luminance import strips
from jaxcolor.images.png import with_profile
from jaxcolor.images.profiles import ProfileKind, from_srgb, profile_kind
from jaxcolor.interrupt import deferred_interrupt

# Colors computed in float32 overshoot the cube a little; more than this is another range.
_RANGE_TOLERANCE = 0.01


@dataclass(frozen=True)
class _Format:
    name: str
    alpha: bool
    deep: bool
    profile: bool
    longest_side: int


_PNG = _Format("PNG", alpha=True, deep=True, profile=True, longest_side=2**31 - 1)
_TIFF = _Format("TIFF", alpha=True, deep=True, profile=True, longest_side=2**31 - 1)
_JPEG = _Format("JPEG", alpha=False, deep=False, profile=True, longest_side=65_500)
_WEBP = _Format("WebP", alpha=True, deep=False, profile=True, longest_side=16_383)
_BMP = _Format("BMP", alpha=False, deep=False, profile=False, longest_side=2**31 - 1)
_BY_SUFFIX = {
    ".png": _PNG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _WEBP,
    ".bmp": _BMP,
}
OUTPUT_SUFFIXES = tuple(_BY_SUFFIX)
"""The suffixes that :func:`write_image` knows."""


def write_image(
    path: str | os.PathLike[str], rgb: ArrayLike, *, like: GrayImage | None = None, overwrite: bool = False
) -> None:
    """Writes colors to a file in the format of its suffix, with the alpha, profile and depth of the input.

    ==========  =====  ======  ===========  =====================================================
    suffix      alpha  16 bit  ICC profile  compression
    ==========  =====  ======  ===========  =====================================================
    .png        yes    yes     yes          lossless
    .tif .tiff  yes    yes     yes          lossless (deflate with predictor)
    .webp       yes    no      yes          lossless (lossy WebP halves the chroma's resolution)
    .jpg .jpeg  no     no      yes          quality 95, chroma at full resolution (4:4:4): no new halos
    .bmp        no     no      no           none
    ==========  =====  ======  ===========  =====================================================

    What a format cannot hold is left out. With an RGB profile other than sRGB the colors are converted to it, so
    that they look the same; an output without profile is plain sRGB. The file has no orientation tag: the pixels
    are upright. It appears under its name only when it is complete; after a failure or Ctrl-C nothing is left.

    Args:
        path: Where to write. Its folder has to exist.
        rgb: [H, W, 3] float in [0, 1], sRGB-encoded.
        like: The input; gives alpha, profile and bit depth. None: 8-bit sRGB without alpha.
        overwrite: Replace an existing file. The file that ``like`` was read from is never replaced.

    Raises:
        InputError: Unknown suffix, missing or unwritable folder, existing file, a shape other than the input's,
            values that are not finite or not in [0, 1], a side that is too long for the format.

    Cost: about 20 bytes of memory per pixel at 16 bit.

    Example:
        >>> write_image("gray.png", np.full((4, 4, 3), 0.5))                      # doctest: +SKIP
    """
    file = check_output(path, overwrite=overwrite, source=like.source if like else None)
    colors = _checked_colors(file, rgb, like)
    form = _BY_SUFFIX[file.suffix.lower()]
    height, width = colors.shape[:2]
    if max(height, width) > form.longest_side:
        raise InputError(
            f"{file}: {width}×{height} is too long for {form.name}; expected at most {form.longest_side} pixels a"
            " side; write a .png or .tif instead"
        )
    alpha = like.alpha if like is not None and form.alpha else None
    icc = _profile_to_carry(like) if form.profile else None
    deep = like is not None and like.bit_depth == 16 and form.deep
    pixels = _quantized(colors, alpha, icc, np.uint16 if deep else np.uint8)
    _write(file, _encoded(pixels, form, icc), overwrite)


def check_output(
    path: str | os.PathLike[str], *, overwrite: bool = False, source: str | os.PathLike[str] | None = None
) -> Path:
    """Checks that a picture could be written to a path, before the long computation that makes it.

    Args:
        path: Where to write.
        overwrite: Whether an existing file may be replaced.
        source: The input file, which is never replaced, or None.

    Returns:
        The path.

    Raises:
        InputError: One line that says what is wrong with it.

    Example:
        >>> check_output("color.png").name
        'color.png'
    """
    file = Path(path)
    try:
        _check_output(file, overwrite, source)
    except OSError as error:
        raise _unwritable(file, error) from error
    return file


def _check_output(file: Path, overwrite: bool, source: str | os.PathLike[str] | None) -> None:
    if file.is_dir():
        raise InputError(f"{file}: is a folder; expected a file name; add one, such as {file / 'color.png'}")
    if file.suffix.lower() not in _BY_SUFFIX:
        raise InputError(
            f"{file}: cannot write {file.suffix or 'a file without suffix'}; expected one of"
            f" {' '.join(OUTPUT_SUFFIXES)}; change the suffix"
        )
    if not file.parent.is_dir():
        raise InputError(f"{file}: its folder {file.parent} does not exist; create it first or write elsewhere")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise InputError(f"{file}: its folder {file.parent} is not writable; change its permissions or write elsewhere")
    if not file.exists():
        return
    if source is not None and Path(source).exists() and file.samefile(source):
        raise InputError(f"{file}: is the input itself; expected another name, so that the original is not lost")
    if not overwrite:
        raise InputError(f"{file}: exists already; choose another name or allow overwriting (overwrite=True, --force)")


def _checked_colors(file: Path, rgb: ArrayLike, like: GrayImage | None) -> NDArray[np.floating[Any]]:
    colors = np.asarray(rgb)
    if colors.dtype.name == "bfloat16":  # JAX's half precision, which NumPy does not count as floating
        colors = colors.astype(np.float32)
    if colors.ndim != 3 or colors.shape[-1] != 3 or colors.size == 0:
        raise InputError(f"{file}: colors have shape {colors.shape}; expected [H, W, 3], not empty")
    if like is not None and colors.shape[:2] != like.shape:
        raise InputError(f"{file}: colors are {colors.shape[:2]} pixels; expected {like.shape}, the input's size")
    if not np.issubdtype(colors.dtype, np.floating):
        raise InputError(f"{file}: colors are {colors.dtype}; expected float in [0, 1]; divide by the largest value")
    low, high = float(colors.min()), float(colors.max())
    if not low >= -_RANGE_TOLERANCE or not high <= 1 + _RANGE_TOLERANCE:
        raise InputError(f"{file}: colors range from {low:.6g} to {high:.6g}; expected finite values in [0, 1]")
    return colors


def _profile_to_carry(like: GrayImage | None) -> bytes | None:
    if like is None or not like.icc:
        return None
    fitting = (ProfileKind.SRGB, ProfileKind.RGB, ProfileKind.UNREADABLE)
    return like.icc if profile_kind(like.icc) in fitting else None


def _quantized(
    colors: NDArray[Any], alpha: NDArray[np.float32] | None, icc: bytes | None, dtype: type[np.unsignedinteger[Any]]
) -> NDArray[Any]:
    """[H, W, 3 | 4] integers, rounded to nearest, in the color space of the profile."""
    height, width = colors.shape[:2]
    top = np.iinfo(dtype).max
    convert = icc is not None and profile_kind(icc) is ProfileKind.RGB
    pixels = np.empty((height, width, 3 if alpha is None else 4), dtype)
    for rows in strips(height, width):
        block = np.clip(colors[rows].astype(np.float32), 0, 1)
        if convert and icc is not None:
            block = np.clip(from_srgb(block, icc, np.float32), 0, 1)
        pixels[rows, :, :3] = block * top + 0.5
        if alpha is not None:
            pixels[rows, :, 3] = alpha[rows] * top + 0.5
    return pixels


def _encoded(pixels: NDArray[Any], form: _Format, icc: bytes | None) -> bytes:
    if form is _TIFF:
        return _encoded_tiff(pixels, icc)
    if form is _PNG and pixels.dtype == np.uint16:  # Pillow has no 16-bit colors
        return with_profile(bytes(imagecodecs.png_encode(pixels)), icc)
    options: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if form is _JPEG:
        options |= {"quality": 95, "subsampling": 0}
    if form is _WEBP:
        # "exact" keeps the colors under fully transparent pixels.
        options |= {"lossless": True, "exact": True, "method": 2}
    suffix = "." + form.name.lower()
    # Interrupted while it is built, imageio's writer complains when it is collected.
    with deferred_interrupt() as interrupted:
        data = iio.imwrite("<bytes>", pixels, plugin="pillow", extension=suffix, is_batch=False, **options)
        if interrupted():
            raise KeyboardInterrupt
    return data


def _encoded_tiff(pixels: NDArray[Any], icc: bytes | None) -> bytes:
    options: dict[str, Any] = {"iccprofile": icc} if icc else {}
    if pixels.shape[-1] == 4:
        options["extrasamples"] = ["unassalpha"]
    buffer = BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb", compression="zlib", predictor=True, metadata=None, **options)
    return buffer.getvalue()


def _write(file: Path, data: bytes, overwrite: bool) -> None:
    try:
        with replacing(file) as temporary:
            temporary.write_bytes(data)
            check_output(file, overwrite=overwrite)  # somebody else may have written meanwhile
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> InputError:
    return InputError(
        f"{file}: cannot be written ({error.strerror or error}); expected a writable folder with enough free space;"
        " write elsewhere"
    )
