"""What to record about the machine that a benchmark ran on."""

import os
import platform
import shutil
import subprocess
from datetime import date
from importlib import metadata
from pathlib import Path

from jaxcolor.cic.training.provenance import code_commit
from jaxcolor.cores import usable_cores

PACKAGES = ("jax", "jaxlib", "numpy", "torch", "scico", "optax")
# What changes how libraries use cores and memory; ``jaxcolor train`` and the deep prior's command set the first.
SETTINGS = ("GLIBC_TUNABLES", "OMP_NUM_THREADS", "XLA_FLAGS")


def machine() -> dict[str, str]:
    """Date, processor, cores, device, versions of what is installed, compiler, commit, and settings if any."""
    import jax

    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "cores": str(usable_cores()),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        **{package: version for package in PACKAGES if (version := _version(package))},
        **({"compiler": told} if (told := compiler_version()) else {}),
        "commit": code_commit() or "unknown",
        **{name: os.environ[name] for name in SETTINGS if os.environ.get(name)},
    }


def torch_threads() -> dict[str, str]:
    """How many cores PyTorch uses, if it is installed; imports it."""
    try:
        import torch
    except ImportError:
        return {}
    return {"torch threads": str(torch.get_num_threads())}


def compiler() -> str | None:
    """The system's C compiler."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def compiler_version() -> str | None:
    """The first line of what the C compiler says of itself."""
    if (program := compiler()) is None:
        return None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace").stdout
    return next(iter(said.splitlines()), None)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
