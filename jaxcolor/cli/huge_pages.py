"""Memory in huge pages, for commands that run one program very often."""

import os
import sys
from contextlib import suppress
from pathlib import Path

_SETTING = "glibc.malloc.hugetlb"
_OF_THE_SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Start this process anew with an allocator that asks Linux for huge pages; return where nothing is to be won.

    A program of XLA:CPU gives its memory back at every end. What :mod:`jaxcolor.allocation` does not keep, since single
    arrays are too large or there are many cores, is touched for the first time in every step, and in pages of 4 KB that
    is a good part of its time (``python -m benchmarks speed --only networks prior``, with and without the setting).
    Linux hands out pages of 2 MB to who asks, and glibc (2.35) asks if ``GLIBC_TUNABLES`` says so, which it reads when
    a process starts and never again. A user's own choice stays.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if _SETTING in tunables or not _on_request():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, f"{_SETTING}=1")))
    with suppress(OSError):  # then this process goes on without
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _on_request() -> bool:
    try:
        return "[madvise]" in _OF_THE_SYSTEM.read_text()
    except OSError:  # not Linux, or without huge pages
        return False
