"""Every notebook runs from top to bottom, tiny, with this checkout; and is stored with small outputs."""

import base64
import io
import os

import numpy as np
import pytest
from PIL import Image

import jaxcolor

nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra notebooks")
nbclient = pytest.importorskip("nbclient", reason="notebooks need the extra notebooks")
pytest.importorskip("ipykernel", reason="notebooks need the extra notebooks")

from notebooks import store  # noqa: E402

NOTEBOOKS = store.notebooks()
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem[:2])
# What the kernel's own packages warn about is not ours to mend; what a notebook warns about is on its stderr.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def kernel():
    """One process for all notebooks, which import JAX once."""
    with store.kernel(quick=True) as manager:
        yield manager


@each_notebook
def test_notebook_runs(path, kernel):
    notebook = nbformat.read(path, as_version=4)
    forget = nbformat.v4.new_code_cell("%reset -f")
    where = nbformat.v4.new_code_cell("import os, jaxcolor; print(os.path.realpath(jaxcolor.__file__))")
    notebook.cells = [forget, *notebook.cells, where]
    assert store.run(notebook, kernel) == []
    assert store.outputs(notebook)[-1].text.strip() == os.path.realpath(jaxcolor.__file__)


def test_warnings_are_told_and_failures_raised(kernel):
    def notebook(code):
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])

    (told,) = store.run(notebook("import warnings; warnings.warn('mind the gap', stacklevel=1)"), kernel)
    assert "UserWarning: mind the gap" in told
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ZeroDivisionError"):
        store.run(notebook("1 / 0"), kernel)


def test_pictures_are_stored_with_few_colors(kernel):
    code = """
from IPython.display import Image, display
from PIL import Image as Picture
import io
buffer = io.BytesIO()
Picture.radial_gradient("L").convert("RGB").resize((90, 60)).save(buffer, "PNG")
display(Image(buffer.getvalue()))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    store.run(notebook, kernel)
    before = picture_of(notebook)
    store.compact(notebook)
    after = picture_of(notebook)
    assert after.size == before.size == (90, 60)
    assert len(after.convert("RGB").getcolors()) <= store.COLORS < len(before.getcolors())
    difference = np.asarray(after.convert("RGB"), int) - np.asarray(before, int)
    assert np.abs(difference).max() <= 16
    assert "execution" not in notebook.cells[0].metadata


def picture_of(notebook):
    (output,) = store.outputs(notebook)
    return Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))


@each_notebook
def test_notebook_is_stored_with_small_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run from top to bottom"
    kinds = {output.output_type for output in store.outputs(notebook)}
    assert kinds
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert path.stat().st_size <= store.LARGEST


def test_there_are_notebooks_and_they_are_small_together():
    numbers = [path.stem[:2] for path in NOTEBOOKS]
    assert len(numbers) >= 7
    assert len(set(numbers)) == len(numbers)
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 1_400_000
