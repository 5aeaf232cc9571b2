"""How many cores there are for us. Without JAX, so that the command line may ask before it sets up JAX."""

import os


def usable_cores() -> int:
    """How many cores this process may use, as far as the system tells.

    >>> usable_cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
