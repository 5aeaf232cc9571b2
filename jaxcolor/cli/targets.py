"""Files that commands write: checked before the work begins, written in one piece after it."""

import json
import math
import os
from pathlib import Path
from typing import Any

from jaxcolor.errors import InputError
from jaxcolor.files import replacing


def check_target(path: Path, what: str, option: str, force: bool) -> None:
    """Raise :class:`InputError` if ``path``, given with ``option``, cannot be written or must not be replaced."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {what} to {path}: expected a file in an existing, writable folder")
    if path.exists() and not force:
        raise InputError(f"{path} exists; give --force to replace it, or another {option}")


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a JSON report: readers see the old file or the whole new one. What is no number, JSON has as null."""
    text = json.dumps(_finite(report), indent=2, allow_nan=False)
    try:
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write the report to {path}: {error.strerror}; choose a writable place") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
