"""GrayImage: the luminance of a picture and what its output has to carry."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcolor.errors import InputError
from jaxcolor.images.luminance import luminance_of, unit_scale

# Rounding and resampling overshoot a little; more than this is another range, not an overshoot.
RANGE_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class GrayImage:
    """A gray picture, ready to be colorized.

    Attributes:
        luminance: [H, W] float32, CIE L* (D65) in [0, 100], upright (orientation tags are already applied).
        alpha: [H, W] float32 in [0, 1], 1 is opaque; None for a picture without transparency.
        icc: The RGB color profile that the output has to carry, or None for plain sRGB.
        bit_depth: 8 or 16, bits per channel that the output should have where its format can.
        source: The file it was read from, or None.
        notes: What the reader decided about this file, one sentence each, for reports (often empty).

    Raises:
        InputError: Wrong shapes, values outside the ranges above, NaN or infinity.

    Example:
        >>> GrayImage(np.full((2, 3), 50.0)).shape
        (2, 3)
    """

    luminance: NDArray[np.float32]
    alpha: NDArray[np.float32] | None = None
    icc: bytes | None = None
    bit_depth: int = 8
    source: Path | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        luminance = _plane("luminance", self.luminance, 100.0)
        object.__setattr__(self, "luminance", luminance)
        if self.alpha is not None:
            alpha = _plane("alpha", self.alpha, 1.0)
            if alpha.shape != luminance.shape:
                raise InputError(f"alpha has shape {alpha.shape}; expected {luminance.shape}, the luminance's")
            object.__setattr__(self, "alpha", alpha)
        if self.bit_depth not in (8, 16):
            raise InputError(f"bit_depth is {self.bit_depth!r}; expected 8 or 16")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.luminance.shape
        return height, width

    @classmethod
    def from_array(cls, array: ArrayLike, *, bit_depth: int | None = None) -> "GrayImage":
        """A GrayImage from pixel values (gray, or color that is reduced to its L*).

        Args:
            array: [H, W], or [H, W, C] with C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; sRGB-encoded.
                uint8 in 0..255, uint16 in 0..65535, bool, or float in [0, 1]. For L* itself use ``GrayImage(L)``.
            bit_depth: Depth of the output; by default 16 for uint16 and 8 otherwise.

        Raises:
            InputError: Another shape or type, values out of range, NaN or infinity.

        Example:
            >>> float(GrayImage.from_array(np.full((1, 1), 255, np.uint8)).luminance[0, 0])
            100.0
        """
        pixels = np.asarray(array)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.ndim != 3 or pixels.shape[-1] not in (1, 2, 3, 4) or pixels.size == 0:
            raise InputError(
                f"array has shape {np.shape(array)}; expected [H, W] or [H, W, 1..4], not empty;"
                " pass one picture at a time with its channels last"
            )
        pixels = checked_pixels(pixels, "array")
        channels = pixels.shape[-1]
        alpha = unit_scale(pixels[..., -1]) if channels in (2, 4) else None
        colors = pixels[..., : channels - 1] if alpha is not None else pixels
        depth = bit_depth if bit_depth is not None else 16 if pixels.dtype == np.uint16 else 8
        return cls(luminance_of(colors), alpha, bit_depth=depth)


def checked_pixels(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Pixels of a type and range with one meaning; float is clipped to [0, 1] after the check.

    Raises:
        InputError: Signed or complex types, NaN or infinity, float outside [0, 1].
    """
    if pixels.dtype == np.bool_ or np.issubdtype(pixels.dtype, np.unsignedinteger):
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating) and pixels.dtype.name != "bfloat16":
        raise InputError(
            f"{name}: pixels are {pixels.dtype}; expected uint8, uint16 or float in [0, 1]; convert with .astype"
        )
    pixels = pixels if pixels.dtype in (np.float32, np.float64) else pixels.astype(np.float32)
    _refuse_nonfinite(name, pixels)
    low, high = float(pixels.min()), float(pixels.max())
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise InputError(
            f"{name}: float pixels range from {low:.6g} to {high:.6g}; expected [0, 1];"
            " rescale them first (for example divide by the white level)"
        )
    return np.clip(pixels, 0, 1)


def _refuse_nonfinite(name: str, values: NDArray[Any]) -> None:
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise InputError(
            f"{name}: {bad} of {values.size} values are NaN or infinite; expected finite numbers; replace them first"
        )


def _plane(name: str, values: ArrayLike, high: float) -> NDArray[np.float32]:
    plane = np.asarray(values, dtype=np.float32)
    if plane.ndim != 2 or plane.size == 0:
        raise InputError(f"{name} has shape {plane.shape}; expected [H, W], not empty")
    _refuse_nonfinite(name, plane)
    lowest, highest = float(plane.min()), float(plane.max())
    if lowest < -RANGE_TOLERANCE * high or highest > high * (1 + RANGE_TOLERANCE):
        raise InputError(
            f"{name} ranges from {lowest:.6g} to {highest:.6g}; expected [0, {high:g}];"
            " for pixel values use GrayImage.from_array"
        )
    return plane if lowest >= 0 and highest <= high else np.clip(plane, 0, high)
