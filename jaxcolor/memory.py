"""Whether a photo fits into memory, answered before anything long starts."""

import math
from collections.abc import Callable
from pathlib import Path

import jax
import psutil

from jaxcolor.errors import InputError

# Resident memory of whole colorizations on CPU, jax 0.10.2: 82 bytes a pixel for "cic", for "coupled-tv" at full size
# with 2, 10 and 32 candidates 148, 391 and 1080, so at most 90 + 31 k, above 430 MB for the program itself. The rest is
# a margin, which also covers the padding of photos to shared sizes (the three: leads, from 1500² to 2500² pixels).
# tests/test_memory.py measures it again.
_BYTES_WITHOUT_SOLVER = 120
_BYTES_PER_CANDIDATE = 40
_BYTES_FIXED = 700_000_000

# Of a fit of the deep prior on CPU, compilation included: at most 1.3 GB and 100 bytes for every pixel and channel,
# with 16 to 128 channels and 64² to 512² pixels (2.1 GB for the published network at 256²; leads, by a script that was
# not kept). Above that a margin of a quarter.
_BYTES_OF_FIT = 1_600_000_000
_BYTES_PER_CHANNEL = 125

_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def bytes_needed(pixels: float, candidates: int, working_pixels: float = math.inf) -> float:
    """Estimated peak memory of a colorization; ``candidates`` = 0 for the method without a solver.

    A photo of more than ``working_pixels`` has its candidates at that size only, and one of them at its own.

    >>> bytes_needed(24_000_000, 10) < 16e9
    True
    """
    lasting, more = min(candidates, 1), max(candidates - 1, 0)
    each = _BYTES_WITHOUT_SOLVER + _BYTES_PER_CANDIDATE * lasting
    return _BYTES_FIXED + pixels * each + min(pixels, working_pixels) * _BYTES_PER_CANDIDATE * more


def fitting_pixels(channels: int) -> int:
    """Pixels to which a network of so many channels can be fitted in the memory at hand; 0: none.

    >>> fitting_pixels(128) > 0
    True
    """
    return max(0, bytes_available() - _BYTES_OF_FIT) // (_BYTES_PER_CHANNEL * channels)


def require_memory_to_fit(shape: tuple[int, int], channels: int) -> None:
    """Raise :class:`InputError`, naming what there is, if a network of so many channels cannot be fitted to ``shape``.

    >>> require_memory_to_fit((64, 64), 16)
    """
    most = fitting_pixels(channels)
    if math.prod(shape) > most:
        needed = _BYTES_OF_FIT + math.prod(shape) * _BYTES_PER_CHANNEL * channels
        raise InputError(
            f"a fit of {channels} channels to {shape[1]}×{shape[0]} pixels needs about {needed / 1e9:.1f} GB of memory "
            f"and {bytes_available() / 1e9:.1f} GB are free; fit {math.isqrt(most)}² pixels at most, or fewer channels"
        )


def bytes_available() -> int:
    """Memory that this process may still take on the device that computes: a GPU's own, else the machine's.

    Honors a container's limit.
    """
    statistics = jax.devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    return machine_bytes_available()


def machine_bytes_available() -> int:
    """The same of the machine itself, whatever computes."""
    return min([psutil.virtual_memory().available, *_container_limits()])


def require_memory(
    shape: tuple[int, int],
    candidates: int,
    padded: tuple[int, int] | None = None,
    working_pixels: float = math.inf,
) -> None:
    """Raise :class:`InputError`, naming the size that would fit, if a photo of ``shape`` needs more than there is.

    ``padded`` is the shape that is computed on; None: the photo's own. The rest as for :func:`bytes_needed`.

    >>> require_memory((100, 100), 10)
    """
    height, width = shape
    pixels, available = math.prod(padded or shape), bytes_available()

    def needed(scale: float) -> float:
        resampling = _bytes_of_resampling(scale * height, scale * width, working_pixels) if candidates else 0.0
        return bytes_needed(scale**2 * pixels, candidates, working_pixels) + resampling

    if needed(1) <= available:
        return
    scale = _largest(lambda scale: needed(scale) <= available)
    advice = (
        f"resize it to {max(1, int(width * scale))}×{max(1, int(height * scale))}"
        if scale > 0
        else "close other programs"
    )
    raise InputError(
        f"{width}×{height} pixels need about {needed(1) / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are free; "
        f"{advice}" + (", or use fewer candidates" if candidates > 1 else "")
    )


def _bytes_of_resampling(height: float, width: float, working_pixels: float) -> float:
    """Of the matrices that bring a photo to the working size, on host and device: much if it is very long."""
    scale = min(1.0, math.sqrt(working_pixels / max(1.0, height * width)))
    return 0.0 if scale == 1 else 2 * 4 * scale * (height**2 + width**2)


def _largest(fits: Callable[[float], bool]) -> float:
    """The largest number in [0, 1] that fits, if all below it do too, by bisection; 0 if there is none."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _container_limits() -> list[int]:
    """What the control groups of this process and those around them have left (Linux, version 1 or 2)."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return []
    left = []
    for controllers, path in (line.split(":", 2)[1:] for line in lines):
        if controllers == "":
            root, names = _GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif controllers == "memory":
            root, names = _GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.lstrip("/")
        left += [_left(place, *names) for place in (group, *group.parents) if place.is_relative_to(root)]
    return [number for number in left if number is not None]


def _left(group: Path, limit: str, used: str, reclaimable: str) -> int | None:
    """Bytes up to a group's limit; None if it has none. File contents that are kept just in case count as free."""
    try:
        most, now = int((group / limit).read_text()), int((group / used).read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    return max(0, most - now + int(statistics.get(reclaimable, 0)))
