"""Whether a photo fits into memory, answered before anything long starts."""

import math
from pathlib import Path

import jax
import psutil

from jaxcolor.errors import InputError

# Peak bytes a pixel measured on CPU; see tests/test_memory.py, which measures them again.
_BYTES_WITHOUT_SOLVER = 120
_BYTES_PER_CANDIDATE = 40
_BYTES_FIXED = 700_000_000


def bytes_needed(pixels: int, candidates: int) -> int:
    """Estimated peak memory of a colorization; ``candidates`` = 0 for the method without a solver.

    >>> bytes_needed(24_000_000, 10) < 16e9
    True
    """
    return _BYTES_FIXED + pixels * (_BYTES_WITHOUT_SOLVER + _BYTES_PER_CANDIDATE * candidates)


def bytes_available() -> int:
    """Memory that this process may still take on the device that computes: a GPU's own, else the machine's.

    Honors a container's limit.
    """
    statistics = jax.devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    return min([psutil.virtual_memory().available, *_container_limits()])


def require_memory(shape: tuple[int, int], candidates: int) -> None:
    """Raise :class:`InputError`, naming the size that would fit, if a photo of ``shape`` needs more than there is.

    >>> require_memory((100, 100), 10)
    """
    height, width = shape
    needed, available = bytes_needed(height * width, candidates), bytes_available()
    if needed <= available:
        return
    fitting = max(0, available - _BYTES_FIXED) / (needed - _BYTES_FIXED)
    scale = math.sqrt(fitting)
    advice = (
        f"resize it to {max(1, int(width * scale))}×{max(1, int(height * scale))}"
        if fitting > 0
        else "close other programs"
    )
    raise InputError(
        f"{width}×{height} pixels need about {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are free; "
        f"{advice}" + (", or use fewer candidates" if candidates > 1 else "")
    )


def _container_limits() -> list[int]:
    """What the control group of this process has left, where there is one (Linux, cgroup v2)."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text()
    except OSError:
        return []
    return [] if limit == "max" else [max(0, int(limit) - int(used))]
