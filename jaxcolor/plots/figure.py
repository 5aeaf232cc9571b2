"""What every plot begins with."""

from typing import Any

from jaxcolor.errors import InputError


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of so many inches that no window and no global state belong to.

    Raises :class:`InputError` when matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib; install it with: pip install 'jaxcolor[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")
