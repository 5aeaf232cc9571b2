"""Automatic image colorization as numerics.

A gray photo goes in; a color photo without color halos comes out, at the photo's own resolution:

>>> import jaxcolor as jc
>>> jc.colorize("old.jpg", "color.png")                                   # doctest: +SKIP

Public names are imported on first use, so that ``import jaxcolor`` is instant and starts no JAX backend.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxcolor.color.distribution import ColorDistribution as ColorDistribution
    from jaxcolor.images import GrayImage as GrayImage
    from jaxcolor.images import read_gray as read_gray
    from jaxcolor.images import write_image as write_image

_HOMES = {
    "ColorDistribution": "jaxcolor.color.distribution",
    "GrayImage": "jaxcolor.images",
    "read_gray": "jaxcolor.images",
    "write_image": "jaxcolor.images",
}

__all__ = ["ColorDistribution", "GrayImage", "__version__", "read_gray", "write_image"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxcolor' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
