"""From a gray photo to a color photo: the whole data flow.

file → luminance L* → network → distribution of colors → one of the methods → chroma → gamut → RGB → file
"""

import os
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxcolor.cic.predict import CIC
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.errors import InputError
from jaxcolor.hints import Hints, as_hints
from jaxcolor.images import GrayImage, check_output
from jaxcolor.memory import require_memory
from jaxcolor.methods import METHODS
from jaxcolor.palettes import as_palette
from jaxcolor.photo import (
    Clock,
    Photo,
    Picture,
    Progress,
    as_gray,
    bucket,
    merge,
    padded_photo,
    report_of,
    without_padding,
)
from jaxcolor.resampling import resampling_matrix
from jaxcolor.settings import Settings


@dataclass(frozen=True, eq=False)
class ColorizationResult(Picture):
    """A colorized photo: ``rgb``, ``chroma`` and ``report`` of a :class:`Picture`, and the network's ``distribution``,
    rebalanced. ``write`` writes it to a file."""

    distribution: ColorDistribution


def colorize(
    image: str | os.PathLike[str] | GrayImage | ArrayLike,
    output: str | os.PathLike[str] | None = None,
    *,
    weights: CIC | str | os.PathLike[str] | None = None,
    hints: Hints | str | os.PathLike[str] | None = None,
    palette: ArrayLike | str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> ColorizationResult:
    """Colorize a gray photo at its own resolution.

    Args:
        image: a file, a :class:`GrayImage`, or an array as :meth:`GrayImage.from_array` takes it. Of a color image
            only the L* is used.
        output: where to write the result, in the format of the suffix; alpha, color profile and bit depth of the
            input are carried over. None writes nothing.
        weights: a :class:`CIC`, a name, or a file; None is the compact network that comes with the package.
        hints: :class:`Hints`, or a file of them: colors that are kept exactly, and spread to where the photo has no
            edge. For the methods "coupled-tv" and "deep-prior", whose last step is a problem with constraints.
        palette: colors (a*, b*) ``[P, 2]``, or a file of them (:func:`read_palette`): the only candidates; the
            network's probabilities are carried over to the nearest of them.
        overwrite: replace an existing output.
        progress: called as ``progress(stage, done, total)``.
        **settings: the fields of :class:`Settings`: ``method``, ``candidates``, ``fidelity``, …

    Raises:
        InputError: in one line, whatever is wrong with the arguments, the files, or the memory at hand. Nothing is
            written then.
        KeyboardInterrupt: on Ctrl-C; nothing is written.

    Cost: linear in the pixels and in the number of steps; see the README for memory.

    >>> import jaxcolor as jc
    >>> result = jc.colorize(np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64), steps=5)
    >>> result.rgb.shape, result.report["method"]
    ((64, 64, 3), 'coupled-tv')
    """
    chosen = _settings(settings)
    known, own = as_hints(hints), as_palette(palette)
    if known is not None and chosen.method == "cic":
        raise InputError("hints need the method coupled-tv or deep-prior; cic solves no problem with constraints")
    clock = Clock()
    with clock("read"):
        gray = as_gray(image)
        if output is not None:
            check_output(output, overwrite=overwrite, source=gray.source)
        if known is not None:
            known.drawn(gray.luminance)  # One that does not fit is told before anything long.
        net = weights if isinstance(weights, CIC) else _loaded(weights)
        candidates = {"cic": 0, "coupled-tv": chosen.candidates, "deep-prior": 1}[chosen.method]
        padded = bucket(gray.shape[0]), bucket(gray.shape[1])
        require_memory(gray.shape, candidates, padded, chosen.working_pixels())
    with clock("network"):
        photo = padded_photo(gray.luminance)
        distribution = _predict(net, photo, chosen)
        if own is not None:
            distribution = distribution.carried_to(jnp.asarray(own))
    with clock("color"):
        method = METHODS[chosen.method] if known is None else partial(METHODS[chosen.method], hints=known)
        chroma, details = method(photo, distribution, chosen, progress)
        rgb, colors, measures = merge(photo, chroma)
    weights_used = {name: net.manifest.get(name) for name in ("name", "width", "checksum")}
    details = {"method": chosen.method} | measures | details
    details |= {"weights": weights_used, "logit_scale": float(net.logit_scale)}
    result = ColorizationResult(rgb, colors, report_of(gray, details, clock.seconds), distribution)
    if output is not None:
        result.write(output, like=gray, overwrite=overwrite)
    return result


def read_out(gray: GrayImage, distribution: ColorDistribution, **settings: Any) -> NDArray[np.float32]:
    """RGB ``[H, W, 3]`` of a photo whose distribution is known, by any method; ``settings`` as for :func:`colorize`."""
    chosen = _settings(settings)
    photo = padded_photo(gray.luminance)
    return merge(photo, METHODS[chosen.method](photo, distribution, chosen, None)[0])[0]


def chroma_of(gray: GrayImage, distribution: ColorDistribution, **settings: Any) -> NDArray[np.float32]:
    """Chroma ``[H, W, 2]`` of a photo whose distribution is known, as the method gives it, before the gamut."""
    chosen = _settings(settings)
    photo = padded_photo(gray.luminance)
    return without_padding(METHODS[chosen.method](photo, distribution, chosen, None)[0], photo)


def _predict(net: CIC, photo: Photo, settings: Settings) -> ColorDistribution:
    side = settings.resolution
    lengths = zip((photo.height, photo.width), photo.luminance.shape, strict=True)
    rows, columns = (resampling_matrix(size, side, padded=padded) for size, padded in lengths)
    distribution = net.predict_resampled(photo.luminance, rows, columns)
    return jax.block_until_ready(net.rebalanced(distribution, settings.rebalancing))


def _settings(given: dict[str, Any]) -> Settings:
    known = [field.name for field in fields(Settings)]
    if unknown := sorted(set(given) - set(known)):
        raise InputError(f"colorize does not know {', '.join(unknown)}; settings are {', '.join(known)}")
    return Settings(**given)


def _loaded(weights: str | os.PathLike[str] | None) -> CIC:
    """A folder of photos loads its weights once; a file that has changed is loaded anew."""
    from jaxcolor.cic.weights import resolve

    path = resolve(weights).absolute()
    state = path.stat()
    return _load(path, (state.st_mtime_ns, state.st_size, state.st_ino))


@lru_cache(maxsize=2)
def _load(path: Path, version: tuple[int, ...]) -> CIC:
    return CIC.load(path)
