"""Memory that stays with the process from one step to the next, for loops over one program on CPU.

XLA:CPU takes the temporaries of a program from the C library when it begins and gives them back when it ends. glibc
hands blocks of their size on to the system, which clears every page of them anew in the next step: a third of the time
of a step of the deep prior ``fast`` in pages of 4 KB, an eighth in huge ones (two cores; leads, by a script that was
not kept; ``python -m benchmarks speed --only prior networks`` times the steps). While :func:`memory_kept` lasts, glibc
keeps what it was given back. It does so for blocks below 64 MB only, so a program must take its temporaries in several:
:func:`in_blocks`.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from jaxcolor.cores import usable_cores

# Threads other than the main one get their memory from regions of 64 MB.
_LARGEST_BLOCK = 60_000_000
# Every thread that happens to run a program keeps its memory, so that of many cores it could be much.
_MOST_CORES = 4

# Numbers of mallopt(3): no block by mmap, nothing given back from the end of a region, and none of these as a whole.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26}
# glibc's own, but for thresholds, which adapt until mallopt sets them: the ones to which large arrays soon bring them.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26, _TOP_PAD: 2**17}
_OF_THE_USER = ("mmap_max", "mmap_threshold", "trim_threshold", "top_pad")

_lock, _depth = threading.Lock(), 0


@contextmanager
def memory_kept() -> Iterator[None]:
    """While the context lasts, memory that was given back stays with the process; at its end it goes to the system.

    For the whole process, and only where JAX computes on a CPU of few cores with glibc, whose own settings, if the user
    chose any (``GLIBC_TUNABLES``, ``MALLOC_…_``), stay. Contexts may lie inside each other and beside each other.

    >>> with memory_kept():
    ...     jax.block_until_ready(jax.numpy.ones(3)).shape
    (3,)
    """
    global _depth
    library = _library()
    if library is None:
        yield
        return
    with _lock:
        _depth += 1
        if _depth == 1:
            _set(library, _KEEP)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _set(library, _USUAL)
                library.malloc_trim(ctypes.c_size_t(0))


def in_blocks(largest_array: float) -> dict[str, int] | None:
    """``compiler_options`` of :func:`jax.jit` by which temporaries come in blocks that :func:`memory_kept` keeps.

    ``largest_array`` is the size in bytes of the program's largest one, which cannot be divided; None if it is too
    large, or where memory is not kept.

    >>> in_blocks(1e9) is None
    True
    """
    if largest_array > _LARGEST_BLOCK or _library() is None:
        return None
    return {"xla_multiheap_size_constraint_per_heap": _LARGEST_BLOCK}


def _library() -> Any:
    """The C library if it is glibc and its settings are ours to choose."""
    chosen = os.environ.get("GLIBC_TUNABLES", "")
    if (
        sys.platform != "linux"
        or jax.default_backend() != "cpu"
        or usable_cores() > _MOST_CORES
        or any(f"glibc.malloc.{name}" in chosen or f"MALLOC_{name.upper()}_" in os.environ for name in _OF_THE_USER)
    ):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def _set(library: Any, values: dict[int, int]) -> None:
    for number, value in values.items():
        library.mallopt(number, value)
