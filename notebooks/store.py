"""Run notebooks from top to bottom and store them with small outputs.

    python -m notebooks.store [01 05 ...]        all of them without numbers

Pictures are reduced to a palette. A notebook that fails, writes to stderr (warnings do) or would become large is not
stored. Needs the extra ``notebooks``. Run it from the repository's root.
"""

import argparse
import base64
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from PIL import Image

FOLDER = Path(__file__).resolve().parent
LARGEST = 300_000
COLORS = 96


def notebooks(numbers: list[str] | None = None) -> list[Path]:
    """The notebooks of this folder in order; of those that begin with one of ``numbers`` if any is given."""
    return [path for path in sorted(FOLDER.glob("*.ipynb")) if not numbers or path.stem[:2] in numbers]


@contextmanager
def kernel(quick: bool = False) -> Iterator[AsyncKernelManager]:
    """A fresh Python in this folder that runs this checkout; ``quick``: as the test suite runs notebooks."""
    manager = AsyncKernelManager(kernel_name="python3")
    path = os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "JAXCOLOR_QUICK": "1" if quick else ""}
    if quick:  # compilation is most of the time
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    # Of a package that looks for widgets of Jupyter.
    environment["PYTHONWARNINGS"] = "ignore:IProgress not found"
    run_sync(manager.start_kernel)(env=environment, cwd=str(FOLDER), extra_arguments=["--log-level=ERROR"])
    try:
        yield manager
    finally:
        run_sync(manager.shutdown_kernel)(now=True)


def run(notebook: Any, manager: AsyncKernelManager) -> list[str]:
    """Execute the cells, whose outputs are replaced; what was written to stderr. Raises for a cell that fails."""
    client = NotebookClient(notebook, km=manager, timeout=600)
    try:
        client.execute()
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
    return [output.text for output in outputs(notebook) if output.get("name") == "stderr"]


def outputs(notebook: Any) -> list[Any]:
    """All outputs of all cells."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def compact(notebook: Any) -> None:
    """Leave out what changes from run to run, and reduce pictures to a palette: a fifth of the size."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    for output in outputs(notebook):
        data = output.get("data", {})
        if "image/png" in data:
            data["text/plain"] = "<Figure>"
            data["image/png"] = _reduced(data["image/png"])
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }


def _reduced(png: str) -> str:
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        reduced = image.convert("RGB").quantize(COLORS)
    buffer = io.BytesIO()
    reduced.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    """Run, check and store."""
    parser = argparse.ArgumentParser(prog="python -m notebooks.store", description=__doc__)
    parser.add_argument("numbers", metavar="NUMBER", nargs="*", help="the first two digits; default: all")
    chosen = notebooks(parser.parse_args().numbers)
    if not chosen:
        parser.error(f"no such notebook; there are {', '.join(path.stem for path in notebooks())}")
    for path in chosen:
        began = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        try:
            with kernel() as manager:
                errors = run(notebook, manager)
        except (CellExecutionError, DeadKernelError) as error:
            raise SystemExit(f"{path.name} is not stored: {error}") from None
        compact(notebook)
        text = nbformat.writes(notebook) + "\n"
        if errors or len(text) > LARGEST:
            reason = f"wrote to stderr: {errors[0]}" if errors else f"would have {len(text)} bytes, above {LARGEST}"
            raise SystemExit(f"{path.name} is not stored: it {reason}")
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {time.monotonic() - began:.0f} s, {len(text) // 1000} kB", flush=True)


if __name__ == "__main__":
    main()
