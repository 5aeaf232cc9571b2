"""ICC profiles: what the pixels of a file mean, and pixels for a profile that the output carries.

Little CMS does the arithmetic (through imagecodecs: in floating point, which Pillow's ImageCms does not offer).
Intent: relative colorimetric with black point compensation, both ways, so that reading back gives the same colors.
"""

from enum import Enum
from functools import cache, lru_cache
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import DTypeLike, NDArray

# Below half a step of 8 bits, so that the many differently made sRGB profiles all count as sRGB.
_SRGB_TOLERANCE = 0.5 / 255


class ProfileKind(Enum):
    """What an embedded profile is good for."""

    SRGB = "sRGB, however it was made: pixels need no conversion"
    RGB = "an RGB profile that converts both ways"
    RGB_INPUT = "an RGB profile of a scanner or camera: reads pixels, cannot describe an output"
    GRAY = "a gray profile"
    CMYK = "an ink profile"
    OTHER = "a profile for other data (Lab, XYZ, more inks)"
    UNREADABLE = "damaged, or no profile at all"


_SPACES = {b"RGB ": "rgb", b"GRAY": "gray", b"CMYK": "cmyk"}


@lru_cache(maxsize=16)
def profile_kind(profile: bytes) -> ProfileKind:
    """The kind of a profile, found by trying it on a few colors and not by its name.

    Args:
        profile: The ICC profile as stored in a file.

    Example:
        >>> profile_kind(b"no profile")
        <ProfileKind.UNREADABLE: 'damaged, or no profile at all'>
    """
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return ProfileKind.UNREADABLE
    space = _SPACES.get(profile[16:20])
    if space is None:
        return ProfileKind.OTHER
    channels = {"gray": 1, "rgb": 3, "cmyk": 4}[space]
    try:
        to_linear(np.zeros((1, 1, channels), np.uint8), profile)
    except imagecodecs.CmsError:
        return ProfileKind.UNREADABLE
    if space != "rgb":
        return ProfileKind.GRAY if space == "gray" else ProfileKind.CMYK
    steps = np.linspace(0.0, 1.0, 9, dtype=np.float32)
    colors = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    try:
        encoded = from_srgb(colors, profile, np.float32)
    except imagecodecs.CmsError:
        return ProfileKind.RGB_INPUT
    return ProfileKind.SRGB if np.abs(encoded - colors).max() < _SRGB_TOLERANCE else ProfileKind.RGB


def to_linear(pixels: NDArray[Any], profile: bytes) -> NDArray[np.float32]:
    """Light intensities in sRGB's primaries (D65), not clipped, of pixels that a profile describes.

    Args:
        pixels: [H, W, 1 | 3 | 4] uint8, uint16 or (not for inks) float in [0, 1]; channels as in the profile.
        profile: A gray, RGB or CMYK profile.

    Returns:
        [H, W, 3]; colors outside sRGB have values outside [0, 1].

    Raises:
        imagecodecs.CmsError: The profile cannot be used.

    Cost: about half a second per megapixel.
    """
    return _read_out(pixels, profile, _linear_profile())


def to_srgb(pixels: NDArray[Any], profile: bytes) -> NDArray[np.float32]:
    """sRGB-encoded colors, not clipped, of the same pixels and with the same errors and cost as :func:`to_linear`."""
    return _read_out(pixels, profile, _srgb_profile())


def _read_out(pixels: NDArray[Any], profile: bytes, target: bytes) -> NDArray[np.float32]:
    space = _SPACES[profile[16:20]]
    data = pixels[..., 0] if space == "gray" else pixels
    return _transform(data, profile, target, space, np.float32).reshape(*pixels.shape[:2], 3)


def from_srgb(rgb: NDArray[np.float32], profile: bytes, dtype: DTypeLike) -> NDArray[Any]:
    """Pixels for an RGB profile that show the given sRGB colors.

    Args:
        rgb: [H, W, 3] in [0, 1], sRGB.
        profile: An RGB profile that converts both ways.
        dtype: uint8, uint16 or float32, the type of the result.

    Raises:
        imagecodecs.CmsError: The profile cannot describe an output.
    """
    return _transform(np.ascontiguousarray(rgb), _srgb_profile(), profile, "rgb", dtype)


def _transform(data: NDArray[Any], profile: bytes, target: bytes, space: str, dtype: DTypeLike) -> NDArray[Any]:
    return imagecodecs.cms_transform(
        np.ascontiguousarray(data),
        profile,
        target,
        colorspace=space,
        outcolorspace="rgb",
        outdtype=np.dtype(dtype).name,
        intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
        flags=imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION,
    )


@cache
def _srgb_profile() -> bytes:
    return imagecodecs.cms_profile("srgb")


@cache
def _linear_profile() -> bytes:
    """The sRGB primaries and white of IEC 61966-2-1 with a straight transfer function."""
    white = (0.3127, 0.3290, 1.0)
    primaries = (0.64, 0.33, 1.0, 0.30, 0.60, 1.0, 0.15, 0.06, 1.0)
    return imagecodecs.cms_profile("rgb", whitepoint=white, primaries=primaries, gamma=1.0)
