"""The released PyTorch checkpoint of CIC, or one trained with the same layers, as weights of this package.

Pickles can run code when they are read, so they are read only in PyTorch's weights-only mode, once, and kept as
safetensors from then on. PyTorch is an optional extra for this one step.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from jaxcolor.cic.weights import Manifest, Variables, expected_shapes, mismatches, save_weights
from jaxcolor.errors import InputError

# The only transposed convolution; PyTorch stores it as (in, out, h, w) and applies it flipped.
_TRANSPOSED = "model8_0"
_PALETTE = "params/model_out"
_FIELDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def require_torch() -> Any:
    """The torch module; raises :class:`InputError` with the command that installs it."""
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "reading a PyTorch checkpoint needs torch; install it with: pip install 'jaxcolor[torch]' "
            "(a CPU build is enough: add --extra-index-url https://download.pytorch.org/whl/cpu)"
        ) from error
    return torch


def convert_checkpoint(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    width: float = 1.0,
    manifest: Manifest | None = None,
) -> Manifest:
    """Convert a PyTorch state dict (``.pth``) to a weights file; returns its manifest.

    Args:
        source: the checkpoint, a mapping of names such as ``model1.0.weight`` to tensors.
        destination: the ``.safetensors`` file to write, atomically; float32.
        width: the network width of the checkpoint, 1 for the released one.
        manifest: more entries, for example ``license`` and ``logit_scale``.

    Raises:
        InputError: torch is missing, the file cannot be read safely, or its keys and shapes are not exactly
            those of the network (every mismatch is listed).

    About 2 s and 0.5 GB for the released checkpoint.
    """
    variables = variables_from_state_dict(read_state_dict(source), width=width, origin=str(source))
    origin = {"source": Path(source).name, "source_sha256": file_sha256(source), "width": width}
    return save_weights(destination, variables, {**origin, **(manifest or {})})


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch checkpoint as NumPy arrays, read without running any code of the pickle."""
    torch = require_torch()
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist or is not a file")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises nearly anything for a damaged or unsafe file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"cannot read {path} as a PyTorch state dict: {reason}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"{path} is not a state dict: expected names with tensors, got {type(state).__name__}")
    # NumPy has no bfloat16, and everything ends as float32.
    return {
        str(name): (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        for name, tensor in state.items()
    }


def variables_from_state_dict(
    state: Mapping[str, np.ndarray], *, width: float = 1.0, origin: str = "the state dict"
) -> Variables:
    """Rearrange a state dict for :class:`CICNetwork`, checked strictly; float32.

    Convolutions (out, in, h, w) become (h, w, in, out); the transposed one (in, out, h, w) is flipped in space
    and becomes (h, w, in, out). ``num_batches_tracked`` is ignored. ``model_out.weight`` holds the colors of
    the bins, which :func:`save_weights` compares with the palette of this package.
    """
    state = {name: array for name, array in state.items() if not name.endswith(".num_batches_tracked")}
    targets = expected_shapes(width)
    expected = {_key(path): _torch_shape(path, shape) for path, shape in targets.items()}
    if wrong := mismatches({name: array.shape for name, array in state.items()}, expected):
        raise InputError(f"{origin} is not the CIC network of width {width:g}: {wrong}")
    if bad := [n for n, a in state.items() if a.dtype.kind != "f" or not np.isfinite(a).all()]:
        raise InputError(f"{origin} has values that are not finite real numbers: {', '.join(bad)}")
    arrays = {path: _rearranged(path, state[_key(path)]).astype(np.float32) for path in targets}
    return unflatten_dict(arrays, sep="/")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _key(path: str) -> str:
    if path == _PALETTE:
        return "model_out.weight"
    _, layer, field = path.split("/")
    return f"{layer.replace('_', '.')}.{_FIELDS[field]}"


def _torch_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if path == _PALETTE:
        return (*reversed(shape), 1, 1)
    if not path.endswith("/kernel"):
        return shape
    height, width, inputs, outputs = shape
    return (inputs, outputs, height, width) if _TRANSPOSED in path else (outputs, inputs, height, width)


def _rearranged(path: str, array: np.ndarray) -> np.ndarray:
    if path == _PALETTE:
        return array[:, :, 0, 0].T
    if not path.endswith("/kernel"):
        return array
    return array[:, :, ::-1, ::-1].transpose(2, 3, 0, 1) if _TRANSPOSED in path else array.transpose(2, 3, 1, 0)
