"""Picture files in and out: every usual mode and bit depth, orientation, alpha, ICC profiles, atomic writing.

Reading starts no JAX backend: this folder uses NumPy, imageio (with Pillow), tifffile and imagecodecs only.
"""

from jaxcolor.images.gray import GrayImage
from jaxcolor.images.reading import MAX_PIXELS, read_color, read_gray
from jaxcolor.images.writing import OUTPUT_SUFFIXES, check_output, write_image

__all__ = ["MAX_PIXELS", "OUTPUT_SUFFIXES", "GrayImage", "check_output", "read_color", "read_gray", "write_image"]
