"""Which code, with which settings, photos, libraries and devices, made the weights."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxcolor
from jaxcolor.errors import InputError
from jaxcolor.files import replacing

if TYPE_CHECKING:
    import jax

PHASES = "phases.json"
LIBRARIES = ("jax", "jaxlib", "flax", "optax")


def record_phase(folder: Path, step: int, settings: Mapping[str, Any], init: Mapping[str, Any] | None = None) -> None:
    """Note in a run's folder that from ``step`` on it went on with ``settings``, unless it did so before.

    ``init``, what the run began with if not with random weights, is noted in its first phase.

    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> for step, size in ((0, 64), (500, 64), (900, 128)):
    ...     record_phase(folder, step, {"size": size})
    >>> [(phase["from_step"], phase["size"]) for phase in phases(folder)]
    [(0, 64), (900, 128)]
    """
    before = phases(folder)
    phase = {**settings, "commit": code_commit()}
    if before and {**before[-1], "from_step": None, "init": None} == {**phase, "from_step": None, "init": None}:
        return
    began = {"init": init} if init and not before else {}
    with replacing(folder / PHASES) as temporary:
        temporary.write_text(json.dumps([*before, {"from_step": step, **phase, **began}], indent=1))


def surroundings(devices: "Sequence[jax.Device]") -> dict[str, Any]:
    """What a phase's record says of the libraries and the devices that it runs on.

    >>> import jax
    >>> sorted(surroundings(jax.devices()[:1])["devices"])
    ['count', 'kind']
    """
    kinds = sorted({device.device_kind for device in devices})
    return {
        "versions": {name: metadata.version(name) for name in LIBRARIES},
        "devices": {"count": len(devices), "kind": ", ".join(kinds)},
    }


def other_photos(folder: Path, digest: str) -> bool:
    """Whether the run in a folder was last recorded with photos of another digest; False if there is no record."""
    told = [phase.get("data") for phase in phases(folder)[-1:]]
    return any(isinstance(data, Mapping) and data.get("digest") not in (None, digest) for data in told)


def phases(folder: Path) -> list[dict[str, Any]]:
    """What :func:`record_phase` noted, in order."""
    path = folder / PHASES
    try:
        return json.loads(path.read_text()) if path.is_file() else []
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); mend or delete it") from error


def code_commit() -> str | None:
    """The git commit of this package's files, marked if they have been changed since; None outside a checkout."""
    folder = Path(jaxcolor.__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    try:
        # An installed package may lie inside a checkout of something else.
        git("ls-files", "--error-unmatch", "__init__.py")
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} with local changes" if changed else commit
