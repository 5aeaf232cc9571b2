"""Weights of the CIC network on disk: one safetensors file with a manifest, strictly checked, and their names.

The file holds the arrays of ``{"params": …, "batch_stats": …}`` in float16 or float32 under paths such as
``params/model1_0/kernel``, and the manifest, a JSON object, in its metadata: what network this is, where the
weights come from, and a checksum over all arrays. Nothing in it is ever executed.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import jaxcolor
from jaxcolor.cache import cache_directory
from jaxcolor.cic.network import AB_UNIT, variable_shapes
from jaxcolor.color.palette import ab_bins
from jaxcolor.constants import PALETTE_SIZE
from jaxcolor.errors import InputError
from jaxcolor.files import replacing

ARCHITECTURE = "cic"
PALETTE = "313 ab bins of Zhang et al. 2016"
EMBEDDED = "embedded"
# Names that the user may fetch; their addresses are in download.py.
RELEASED = ("zhang2016",)
# In ab; twice what float16 loses on the largest color.
_PALETTE_TOLERANCE = 0.1
_LARGEST_WIDTH = 8

Variables = dict[str, Any]
Manifest = dict[str, Any]


def expected_shapes(width: float = 1.0) -> dict[str, tuple[int, ...]]:
    """Shape of every array that a file of this width holds, by path.

    >>> expected_shapes(0.25)["params/model1_0/kernel"]
    (3, 3, 1, 16)

    Raises:
        InputError: a width that no network has.
    """
    if not 0 < width <= _LARGEST_WIDTH:
        raise InputError(f"the width of a CIC network must be above 0 and at most {_LARGEST_WIDTH}, got {width}")
    return variable_shapes(width)


def mismatches(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """Every missing, unexpected and wrongly shaped array in one line; empty if there is none.

    >>> mismatches({"a": (1, 2), "c": (3,)}, {"a": (2, 1), "b": (4,)})
    'missing: b; unexpected: c; wrong shape: a (1, 2) instead of (2, 1)'
    """
    lists = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "wrong shape": [
            f"{name} {tuple(found[name])} instead of {tuple(shape)}"
            for name, shape in sorted(expected.items())
            if name in found and tuple(found[name]) != tuple(shape)
        ],
    }
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in lists.items() if names)


def save_weights(path: str | os.PathLike[str], variables: Mapping[str, Any], manifest: Manifest) -> Manifest:
    """Write the variables of a :class:`CICNetwork` and their manifest, atomically, and return the manifest.

    Args:
        path: the file to write or replace, usually ``*.safetensors``; its folder exists.
        variables: ``{"params": …, "batch_stats": …}``, finite, in float16 or float32 (kept as it is).
        manifest: JSON values. ``width`` is required; ``logit_scale`` is 1 if left out; say also ``source``,
            ``license``, ``training``, ``metrics``. The rest (architecture, palette, checksum, version) is
            filled in.

    Raises:
        InputError: arrays that do not fit the width, values that are not finite, a place that cannot be written.
    """
    path = Path(path)
    # In C order: safetensors writes the memory of a transposed array as it lies.
    arrays = {name: np.asarray(array, order="C") for name, array in flatten_dict(variables, sep="/").items()}
    manifest = {
        "logit_scale": 1.0,
        **manifest,
        "architecture": ARCHITECTURE,
        "palette": PALETTE,
        "parameters": sum(a.size for name, a in arrays.items() if name.startswith("params/")),
        "jaxcolor": jaxcolor.__version__,
        "checksum": _checksum(arrays),
    }
    _check(path, arrays, manifest)
    try:
        with replacing(path) as temporary:
            # Not save_file, which makes files that only their owner can read.
            temporary.write_bytes(save(arrays, metadata={"manifest": json.dumps(manifest)}))
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write weights to {path}: {error}; choose a writable place") from error
    return manifest


def load_weights(path: str | os.PathLike[str]) -> tuple[Variables, Manifest]:
    """Read a file of :func:`save_weights`: float32 variables as NumPy arrays, and the manifest.

    Raises:
        InputError: in one line, a file that is missing, damaged or not of this kind, arrays that are missing,
            unexpected or of the wrong shape (all listed), a wrong checksum, values that are not finite.

    Full width takes about half a second and 260 MB, mostly for the checksum.
    """
    path = Path(path)
    with _opened(path) as file:
        manifest = _manifest(path, file)
        odd = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        if odd := {name: dtype for name, dtype in odd.items() if dtype not in ("F16", "F32")}:
            raise InputError(f"weights in {path} must be F16 or F32, got {odd}")
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _check(path, arrays, manifest)
    return unflatten_dict({name: a.astype(np.float32) for name, a in arrays.items()}, sep="/"), manifest


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest alone, without reading the arrays; raises :class:`InputError` like :func:`load_weights`."""
    path = Path(path)
    with _opened(path) as file:
        return _manifest(path, file)


def weights_path(name: str) -> Path:
    """The file that a known name stands for, whether it is there or not."""
    if name == EMBEDDED:
        return Path(str(files("jaxcolor.cic"))) / "embedded.safetensors"
    return cache_directory() / "weights" / f"{name}.safetensors"


def resolve(name_or_path: str | os.PathLike[str] | None = None) -> Path:
    """The file for ``"embedded"`` (also ``"default"`` or None), a fetched name such as ``"zhang2016"``, or a path.

    >>> resolve("default").name
    'embedded.safetensors'

    Raises:
        InputError: a name that is unknown or not fetched yet, a file that does not exist or must be converted.
    """
    name = EMBEDDED if name_or_path in (None, "default") else str(name_or_path)
    path = Path(name)
    if name in RELEASED and not weights_path(name).is_file():
        raise InputError(f"weights {name!r} are not on this machine; run: jaxcolor weights fetch {name}")
    if name in (EMBEDDED, *RELEASED):
        return weights_path(name)
    if path.suffix in (".pth", ".pt"):
        raise InputError(f"{path} is a PyTorch checkpoint; convert it once: jaxcolor weights convert {path}")
    if not path.exists():
        known = ", ".join((EMBEDDED, *RELEASED))
        raise InputError(f"no weights {name!r}: expected one of {known}, or the path of a .safetensors file")
    return path


@dataclass(frozen=True)
class WeightsInfo:
    """One line of :func:`list_weights`: a name, its file, and its manifest if the file is there and sound."""

    name: str
    path: Path
    manifest: Manifest | None
    problem: str | None = None


def list_weights() -> list[WeightsInfo]:
    """All known names, embedded first; ``manifest`` is None where a name is not fetched yet or its file is bad."""
    infos = []
    for name in (EMBEDDED, *RELEASED):
        path = weights_path(name)
        try:
            infos.append(WeightsInfo(name, path, read_manifest(path) if path.is_file() else None))
        except InputError as error:
            infos.append(WeightsInfo(name, path, None, str(error)))
    return infos


def _opened(path: Path) -> safe_open:
    if not path.is_file():
        raise InputError(f"weights file {path} does not exist or is not a file")
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"weights file {path} is damaged or not a safetensors file ({error}); fetch or convert it again"
        ) from error


def _manifest(path: Path, file: safe_open) -> Manifest:
    try:
        manifest = json.loads((file.metadata() or {})["manifest"])
        architecture, width, scale = (manifest[key] for key in ("architecture", "width", "logit_scale"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"weights file {path} has no jaxcolor manifest; was it written by jaxcolor?") from error
    if architecture != ARCHITECTURE or manifest.get("palette") != PALETTE:
        raise InputError(
            f"weights file {path} is for architecture {architecture!r} with palette {manifest.get('palette')!r}, "
            f"expected {ARCHITECTURE!r} with {PALETTE!r}"
        )
    for key, value in (("width", width), ("logit_scale", scale)):
        if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise InputError(f"weights file {path}: {key} must be a positive number, got {value!r}")
    for key, value, count in _class_frequencies(manifest):
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) != count or not all(isinstance(x, int | float) and 0 < x <= 1 for x in numbers):
            raise InputError(f"weights file {path}: {key} must be {count} numbers above 0 and at most 1")
    return manifest


def _class_frequencies(manifest: Manifest) -> list[tuple[str, Any, int]]:
    """What a manifest may tell of the frequencies of colors: key, value, how many numbers that must be."""
    training = manifest.get("training")
    share = training.get("uniform_share") if isinstance(training, dict) else None
    told = [("prior", manifest.get("prior"), PALETTE_SIZE), ("training.uniform_share", share, 1)]
    return [(key, value, count) for key, value, count in told if value is not None]


def _check(path: Path, arrays: dict[str, np.ndarray], manifest: Manifest) -> None:
    width = manifest.get("width")
    if width is None:
        raise InputError("the manifest of weights needs their width, for example 0.25")
    wrong = mismatches({name: a.shape for name, a in arrays.items()}, expected_shapes(float(width)))
    if wrong:
        raise InputError(f"weights in {path} do not fit a CIC network of width {width}: {wrong}")
    if odd := sorted({str(a.dtype) for a in arrays.values()} - {"float16", "float32"}):
        raise InputError(f"weights must be float16 or float32, got {', '.join(odd)}")
    if manifest.get("checksum") != (actual := _checksum(arrays)):
        raise InputError(
            f"weights in {path} are damaged: checksum {actual}, expected {manifest.get('checksum')}; "
            "fetch or convert them again"
        )
    if bad := [name for name, a in arrays.items() if not np.isfinite(a).all()]:
        raise InputError(f"weights in {path} have values that are not finite: {', '.join(bad)}")
    off = np.abs(arrays["params/model_out"].astype(np.float32) * AB_UNIT - ab_bins()).max()
    if off > _PALETTE_TOLERANCE:
        raise InputError(f"weights in {path} have another palette: model_out · 110 is off by up to {off:.3g} in ab")


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
