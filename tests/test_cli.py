"""The command line on real files: results, bad input of every kind, Ctrl-C, and what goes to which stream."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from flax.traverse_util import unflatten_dict
from PIL import Image
from skimage.color import rgb2lab

from jaxcolor.cic import weights as weights_module
from jaxcolor.cic.calibration import calibrate
from jaxcolor.cic.predict import CIC
from jaxcolor.cic.training.data import load_photos, squeezed
from jaxcolor.cic.training.loop import TrainingConfig, TrainingState, initial_state
from jaxcolor.cic.weights import expected_shapes, save_weights
from jaxcolor.cli import colorize as colorize_command
from jaxcolor.cli import doctor, huge_pages, jobs, parsing
from jaxcolor.cli.main import main
from jaxcolor.color.palette import ab_bins
from jaxcolor.constants import RESOLUTION
from jaxcolor.errors import InputError
from tests.conftest import Run
from tests.reference import coupled_tv as reference

pytestmark = pytest.mark.usefixtures("compiled_quickly")

ADOBE = imagecodecs.cms_profile("adobergb")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache, and an environment in which ``main`` may set what it likes."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXCOLOR_CACHE", str(folder))
        for name in ("JAX_COMPILATION_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL", "JAX_LOGGING_LEVEL"):
            patch.setenv(name, "")
            patch.delenv(name)
        yield folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a small network."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, random_variables(1 / 16), {"width": 1 / 16})
    return path


def random_variables(width: float) -> dict[str, Any]:
    """As a network starts, but drawn by NumPy, which compiles nothing."""
    generator = np.random.default_rng(0)
    arrays = {name: np.zeros(shape, np.float32) for name, shape in expected_shapes(width).items()}
    for name, array in arrays.items():
        if name.endswith("kernel"):
            array[:] = generator.normal(0, (2 / np.prod(array.shape[:-1])) ** 0.5, array.shape)
        elif name.endswith(("scale", "var")):
            array[:] = 1
    arrays["params/model_out"] = (ab_bins() / 110).astype(np.float32)
    return unflatten_dict(arrays, sep="/")


@pytest.fixture
def fast(tiny: Path) -> list[str]:
    """Options of a quick coupled-TV run."""
    numbers = {"--candidates": 3, "--resolution": 32, "--steps": 3, "--refinement-steps": 2}
    return ["--weights", str(tiny), *(str(word) for pair in numbers.items() for word in pair)]


@pytest.fixture
def cic(tiny: Path) -> list[str]:
    """Options of the quickest run."""
    return ["--weights", str(tiny), "--resolution", "32", "--method", "cic"]


def photo(height: int = 40, width: int = 60, dtype: str = "uint8") -> np.ndarray:
    row, column = np.mgrid[0:height, 0:width]
    values = 0.5 + 0.4 * np.sin(column / 9) * np.cos(row / 7)
    return (values * np.iinfo(dtype).max).astype(dtype)


def save(path: Path, *shape: int) -> Path:
    Image.fromarray(photo(*shape)).save(path)
    return path


def subprocess_of(*arguments: Any, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "jaxcolor", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, **pipes)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Photos that work


def test_a_folder_of_everything(tmp_path: Path, fast: list[str], run: Run) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    gray, deep = photo(), photo(dtype="uint16")
    alpha = np.tile(np.linspace(0, 65535, 60).astype(np.uint16), (40, 1))
    Image.fromarray(gray).save(folder / "a.png", icc_profile=ADOBE)
    (folder / "b.png").write_bytes(imagecodecs.png_encode(np.stack([deep, deep, deep, alpha], -1)))
    tifffile.imwrite(folder / "c.tif", deep, photometric="minisblack")
    Image.fromarray(gray).save(folder / "d.jpg", quality=95)
    Image.fromarray(gray).save(folder / "e.gif")
    (folder / "notes.txt").write_text("not a photo")
    (folder / ".hidden.png").write_text("another program's")
    report = tmp_path / "report.json"

    process = subprocess_of("colorize", folder, "--compare", "--report", report, *fast)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert len(out.splitlines()) == 5
    assert all("colorfulness" in line for line in out.splitlines())

    results = tmp_path / "in-color"
    pictures = ["a.png", "b.png", "c.tif", "d.jpg", "e.png"]
    assert names(results) == sorted(pictures + [f"{Path(name).stem}-compare.png" for name in pictures])
    with Image.open(results / "a.png") as image:
        assert (image.mode, image.size) == ("RGB", (60, 40))
        assert image.info["icc_profile"] == ADOBE
    b = imagecodecs.png_decode((results / "b.png").read_bytes())
    assert (b.dtype, b.shape) == (np.uint16, (40, 60, 4))
    np.testing.assert_array_equal(b[..., 3], alpha)
    c = tifffile.imread(results / "c.tif")
    assert (c.dtype, c.shape) == (np.uint16, (40, 60, 3))
    for rgb, before, tolerance in ((b[..., :3] / 65535, deep / 65535, 0.02), (c / 65535, deep / 65535, 0.02)):
        lightness = rgb2lab(np.stack([before] * 3, -1))[..., 0]
        assert np.abs(rgb2lab(rgb)[..., 0] - lightness).max() < tolerance
        assert np.ptp(rgb, axis=-1).max() > 0.05
    with Image.open(results / "e.png") as image, Image.open(folder / "e.gif") as before:
        gif = np.asarray(before.convert("RGB")) / 255
        assert np.abs(rgb2lab(np.asarray(image) / 255)[..., 0] - rgb2lab(gif)[..., 0]).max() < 0.5
    with Image.open(results / "d-compare.png") as image:
        width, height = image.size
        assert height == 40 + 22
        assert width >= 3 * 60

    content = json.loads(report.read_text())
    assert content["failed"] == {}
    assert content["interrupted"] is False
    assert [Path(entry["output"]).name for entry in content["photos"]] == pictures
    for entry in content["photos"]:
        assert entry["method"] == "coupled-tv"
        assert entry["status"] == "all steps were taken"
        assert {"read", "network", "color", "write"} <= entry["seconds"].keys()
        assert all(solver["energy"]["end"] < solver["energy"]["start"] for solver in entry["solvers"])
        assert 0 <= entry["out_of_gamut_share"] <= 1
        assert 0 < entry["saturation"] <= 1
        assert entry["colorfulness"] > 3

    before = {name: (results / name).read_bytes() for name in names(results)}
    code, out_lines, err_lines = run("colorize", folder, *fast)
    assert (code, out_lines) == (1, [])
    assert [line for line in err_lines if "exists already" in line] == err_lines[:5]
    assert err_lines[5:] == ["0 of 5 photos colorized, 5 failed"]
    assert before == {name: (results / name).read_bytes() for name in names(results)}


@pytest.mark.parametrize(("height", "width"), [(1, 1), pytest.param(5000, 1, marks=pytest.mark.slow), (10, 12_000)])
def test_extreme_shapes(tmp_path: Path, fast: list[str], run: Run, height: int, width: int) -> None:
    save(tmp_path / "a.png", height, width)
    compare = ["--compare"] if width > 1 else []  # once is enough: every new shape compiles for seconds
    code, out, err = run("colorize", tmp_path / "a.png", *compare, *fast)
    assert (code, len(out), err) == (0, 1, [])
    with Image.open(tmp_path / "a-color.png") as image:
        assert image.size == (width, height)
    if not compare:
        return
    with Image.open(tmp_path / "a-color-compare.png") as image:
        assert max(image.size) <= 3 * 1024 + 12


def test_patterns_and_names(tmp_path: Path, cic: list[str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x1.png", "x2.png", "y.png"):
        save(tmp_path / name)
    (tmp_path / "x3.txt").write_text("no photo")
    assert run("colorize", "x*", "x1.png", *cic, "--quiet") == (0, [], [])
    assert names(tmp_path) == ["x1-color.png", "x1.png", "x2-color.png", "x2.png", "x3.txt", "y.png"]
    assert run("colorize", "y.png", *cic, "-o", "z", "--quiet")[0] == 0
    assert (tmp_path / "z" / "y.png").is_file()
    # Of a linked folder the results go beside the link.
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "album").symlink_to(tmp_path / "z")
    assert run("colorize", "links/album", *cic, "--quiet")[0] == 0
    assert names(tmp_path / "links" / "album-color") == ["y.png"]
    odd = os.fsdecode(b"o\xffd\nd.png")
    save(tmp_path / odd)
    code, out, err = run("colorize", odd, *cic)
    assert (code, len(out), err) == (0, 1, [])


def test_pictures_with_remarks_of_their_decoders(tmp_path: Path, cic: list[str]) -> None:
    """Damaged details that Pillow, libtiff and libpng remark on; none of it reaches the user."""
    palette = Image.fromarray(photo()).convert("P")
    palette.info["transparency"] = bytes(range(256))
    palette.save(tmp_path / "palette.png")
    Image.fromarray(photo()).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    whole = (tmp_path / "lzw.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[:300] + bytes(len(whole) - 300))
    png = bytearray(imagecodecs.png_encode(photo(dtype="uint16")))
    png[-20] ^= 255
    (tmp_path / "flipped.png").write_bytes(png)
    process = subprocess_of("colorize", tmp_path, "--quiet", "-o", tmp_path / "out", *cic, env=os.environ)
    out, err = process.communicate(timeout=300)
    lines = err.splitlines()
    assert out == ""
    assert process.returncode == 1
    assert lines[-1].endswith("failed")
    assert all(line.startswith("jaxcolor: error: ") for line in lines[:-1])
    assert {"palette.png", "lzw.tif"} <= set(names(tmp_path / "out"))


# Bad input


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "COMMAND"),
        (["paint"], "invalid choice"),
        (["colorize"], "IN"),
        (["colorize", "a.png", "--method", "deep-magic"], "invalid choice"),
        (["colorize", "a.png", "--fidelity", "-1"], "fidelity must be a positive number; got -1.0"),
        (["colorize", "a.png", "--fidelity", "0"], "fidelity"),
        (["colorize", "a.png", "--fidelity", "nan"], "fidelity"),
        (["colorize", "a.png", "--coupling", "-0.5"], "coupling"),
        (["colorize", "a.png", "--coupling", "inf"], "coupling"),
        (["colorize", "a.png", "--candidates", "0"], "between 1 and 313"),
        (["colorize", "a.png", "--candidates", "314"], "between 1 and 313"),
        (["colorize", "a.png", "--candidates", "2.5"], "invalid int"),
        (["colorize", "a.png", "--resolution", "100"], "multiple of 8"),
        (["colorize", "a.png", "--resolution", "0"], "multiple of 8"),
        (["colorize", "a.png", "--temperature", "0"], "temperature"),
        (["colorize", "a.png", "--steps", "-1"], "steps"),
        (["colorize", "a.png", "--refinement-steps", "-1"], "steps"),
        (["colorize", "a.png", "--preset", "quick"], "invalid choice"),
        (["colorize", "a.png", "--prior-steps", "-1"], "prior_steps must be at least 0; got -1"),
        (["colorize", "a.png", "--prior-steps", "many"], "invalid int"),
        (["colorize", "a.png", "--seed", "-1"], "seed must be at least 0"),
        (["colorize", "a.png", "--seeds", "0"], "seeds must be at least 1; got 0"),
        (["colorize", "a.png", "--working-side", "7"], "working_side must be at least 8 pixels; got 7"),
        (["colorize", "a.png", "--report", "a.png"], ".json"),
        (["demo", "--candidates", "0"], "between 1 and 313"),
        (["weights"], "list|fetch|convert"),
        (["train", "x"], "required"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--size", "30"], "multiple of 8"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--batch", "0"], "--batch must be at least 1"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--steps", "-1"], "--steps"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--decay", "0"], "--decay"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--validate-every", "0"], "--validate-every"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--width", "0"], "--width"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--learning-rate", "nan"], "--learning-rate"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--uniform-share", "1.5"], "--uniform-share"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--least-share", "0"], "--least-share"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--teacher-share", "nan"], "--teacher-share"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--repeat", "dog_*"], "PATTERN=TIMES"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--repeat", "dog_*=-1"], "PATTERN=TIMES"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--validation-share", "1"], "--validation-share"),
        (["train", "x", "--run", "r", "-o", "o.safetensors", "--devices", "0"], "--devices must be at least 1"),
        (["train", "x", "--run", "r", "-o", "photo.png"], ".safetensors"),
        (["evaluate"], "FOLDER"),
        (["evaluate", "x", "--side", "20"], "multiple of 8"),
    ],
)
def test_bad_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, arguments: list[str], word: str) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png")
    code, out, err = run(*arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert word in err[0]
    assert "--help" in err[0]
    assert names(tmp_path) == ["a.png"]


def bad_photos(folder: Path) -> dict[str, str]:
    """Writes one of each; name to a word of its error."""
    jpeg = save(folder / "whole.jpg", 200, 200).read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "empty.png").touch()
    (folder / "empty.tif").touch()
    (folder / "text.png").write_text("dear diary")
    holes = np.full((8, 8), 0.5, np.float32)
    holes[2, 3] = np.nan
    tifffile.imwrite(folder / "nan.tif", holes, photometric="minisblack")
    return {
        "truncated.jpg": "truncated",
        "empty.png": "is empty",
        "empty.tif": "is empty",
        "text.png": "not a picture",
        "nan.tif": "NaN",
    }


def test_bad_photos_are_reported_and_the_rest_is_done(tmp_path: Path, cic: list[str], run: Run) -> None:
    folder, nothing, report = tmp_path / "in", tmp_path / "nothing", tmp_path / "report.json"
    folder.mkdir()
    nothing.mkdir()
    expected = {str(folder / name): word for name, word in bad_photos(folder).items()}
    save(folder / "good.png")
    expected |= {str(tmp_path / "missing.png"): "no such file", str(nothing): "no photo", "no*.png": "no photo"}
    expected |= {300 * "a" + ".png": "too long", "": "an empty name"}
    before = names(tmp_path)
    code, out, err = run("colorize", folder, *list(expected)[5:], "-o", tmp_path / "out", "--report", report, *cic)
    assert code == 1
    assert len(out) == 1
    assert "good.png" in out[0]
    assert err[-1] == f"1 of {1 + len(expected)} photos colorized, {len(expected)} failed"
    assert len(err) == 1 + len(expected)
    failed = json.loads(report.read_text())["failed"]
    assert failed.keys() == expected.keys()
    for path, word in expected.items():
        assert word in failed[path]
        assert f"jaxcolor: error: {failed[path]}" in err
    assert names(tmp_path) == sorted([*before, "out/good.png", "report.json"])


@pytest.mark.parametrize("name", ["truncated.jpg", "empty.tif", "text.png", "nan.tif", "missing.png", "", "no*.png"])
def test_a_single_bad_photo_is_one_line(tmp_path: Path, cic: list[str], run: Run, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    word = (bad_photos(folder) if name else {}).get(name, "no ")
    before = names(tmp_path)
    code, out, err = run("colorize", folder / name, *cic)
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith("jaxcolor: error: ")
    assert word in err[0]
    assert names(tmp_path) == before


def test_outputs_that_cannot_be(tmp_path: Path, cic: list[str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "a-color.png", "x/a.png"):
        Path(name).parent.mkdir(exist_ok=True)
        save(Path(name))
    Image.fromarray(photo()).save("b.jpg")
    Path("r.json").touch()
    before = {name: Path(name).read_bytes() for name in names(tmp_path)}
    for arguments, word in {
        ("a.png", "-o", "a.png"): "is the input itself",
        ("a.png", "-o", "a.png", "--force"): "is the input itself",
        ("a.png", "-o", ".", "--force"): "is the input itself",
        ("a.png",): "exists already",
        ("a.png", "-o", "b.png"): "exists already",
        ("a.png", "-o", "b.png/c.png"): "b.png",
        ("a.png", "b.png", "-o", "b.jpg"): "is a file",
        ("a.png", "-o", "c.xyz"): "suffix",
        ("a.png", "-o", "/proc/c.png"): "cannot be written",
        ("a.png", "a-color.png", "--force"): "would replace a-color.png, itself an input",
        ("a.png", "x/a.png", "-o", "z"): "would both be written to",
        ("b.png", "b.jpg", "-o", "z", "--compare"): "would both be written to",
        ("a.png", "-o", "c.png", "--report", "no/r.json"): "existing, writable folder",
        ("a.png", "-o", "c.png", "--report", "r.json"): "exists",
        ("/", "--force"): "no ",
    }.items():
        code, out, err = run("colorize", *arguments, *cic)
        assert (code, out, len(err)) == (1, [], 1), arguments
        assert word in err[0]
        assert before == {name: Path(name).read_bytes() for name in names(tmp_path)}


def test_a_report_that_cannot_be_written_is_one_line(tmp_path: Path, cic: list[str], run: Run) -> None:
    save(tmp_path / "a.png")
    code, _, err = run("colorize", tmp_path / "a.png", "--report", "/proc/report.json", *cic)
    assert (code, len(err)) == (1, 1)
    assert "cannot write the report" in err[0]
    assert names(tmp_path) == ["a-color.png", "a.png"]


def bad_weights(folder: Path, tiny: Path) -> dict[str, str]:
    data = tiny.read_bytes()
    (folder / "cut.safetensors").write_bytes(data[: len(data) // 2])
    (folder / "flipped.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 64]))
    (folder / "text.safetensors").write_text("hello")
    (folder / "shape.safetensors").write_bytes(data.replace(rb"\"width\": 0.0625", rb"\"width\": 0.1250"))
    (folder / "old.pth").touch()
    return {
        "cut.safetensors": "damaged",
        "flipped.safetensors": "checksum",
        "text.safetensors": "damaged",
        "shape.safetensors": "wrong shape",
        "old.pth": "convert",
        "missing.safetensors": "no weights",
        "": "not a file",
    }


def test_bad_weights(tmp_path: Path, tiny: Path, run: Run) -> None:
    save(tmp_path / "a.png")
    expected = {str(tmp_path / name): word for name, word in bad_weights(tmp_path, tiny).items()}
    expected["zhang2016"] = "jaxcolor weights fetch zhang2016"
    before = names(tmp_path)
    for name, word in expected.items():
        for command in (["colorize", tmp_path / "a.png"], ["demo", "-o", tmp_path]):
            code, out, err = run(*command, "--weights", name)
            assert (code, out, len(err)) == (1, [], 1), (name, err)
            assert word in err[0]
            assert names(tmp_path) == before


def test_whatever_happens_to_one_photo_the_others_are_done(
    tmp_path: Path, cic: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(job: Any, *rest: Any, **named: Any) -> Any:
        errors = {"a": MemoryError(), "b": OSError(28, "No space left on device"), "c": TypeError("what?\nno")}
        if job.source.stem in errors:
            raise errors[job.source.stem]
        return original(job, *rest, **named)

    original = colorize_command._colorize
    monkeypatch.setattr(colorize_command, "_colorize", failing)
    for name in "abcd":
        save(tmp_path / f"{name}.png")
    code, out, err = run("colorize", tmp_path, "-o", tmp_path / "out", *cic)
    assert (code, len(out), len(err)) == (1, 1, 4)
    assert "out of memory" in err[0]
    assert err[1] == "jaxcolor: error: No space left on device"
    assert "unexpected TypeError at " in err[2]
    assert names(tmp_path / "out") == ["d.png"]


def test_a_comparison_that_fails_does_not_hide_the_photo(
    tmp_path: Path, cic: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxcolor.comparison.write_comparison", full)
    save(tmp_path / "a.png")
    code, out, err = run("colorize", tmp_path / "a.png", "--compare", *cic)
    assert (code, out, len(err)) == (1, [], 1)
    assert "a-color.png is written, but not" in err[0]
    assert err[0].endswith("No space left on device")
    assert (tmp_path / "a-color.png").exists()


def test_errors_in_one_line() -> None:
    assert parsing.one_line(InputError("a\nb")) == "a b"
    assert parsing.one_line(PermissionError(13, "Permission denied", "x")) == "x: Permission denied"
    assert "out of memory" in parsing.one_line(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a device of Linux")
def test_streams_that_are_closed_or_full(tmp_path: Path, cic: list[str]) -> None:
    save(tmp_path / "a.png")
    command = shlex.join(
        [sys.executable, "-m", "jaxcolor", "colorize", str(tmp_path / "a.png"), "--force", *map(str, cic)]
    )
    for redirection, code in ((">&-", 0), ("2>&-", 0), (">/dev/full", 1)):
        (tmp_path / "a-color.png").unlink(missing_ok=True)
        done = subprocess.run(["bash", "-c", f"{command} {redirection}"], capture_output=True, text=True)
        assert done.returncode == code, redirection
        assert "Traceback" not in done.stderr
        assert (tmp_path / "a-color.png").exists()
    assert "No space left" in done.stderr


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, tiny: Path) -> None:
    save(tmp_path / "a.png")
    process = subprocess_of(
        "colorize", tmp_path / "a.png", "--weights", tiny, env=os.environ | {"JAX_PLATFORMS": "none"}
    )
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, len(err.splitlines())) == (1, "", 1)
    assert "choose another device with JAX_PLATFORMS" in err


# Streams and signals


def test_progress_is_for_terminals(tmp_path: Path, fast: list[str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    assert parsing.progress_bar_wanted(quiet=False)
    assert not parsing.progress_bar_wanted(quiet=True)
    monkeypatch.undo()
    monkeypatch.setattr(jobs, "progress_bar_wanted", lambda quiet: True)
    save(tmp_path / "a.png")
    code, out, err = run("colorize", tmp_path / "a.png", *fast)
    assert (code, len(out)) == (0, 1)
    bars = [part for line in err for part in line.split("\r")]
    assert any(bar.startswith("a.png: ") and bar.endswith(" left, step 5 of 5, solve") for bar in bars), bars


def test_help_version_and_bad_usage_start_no_jax() -> None:
    script = (
        "import sys\n"
        "from jaxcolor.cli.main import main\n"
        "for line in ('--help', '--version', 'colorize --help', 'demo --help', 'train --help', 'x', 'colorize',\n"
        "             'colorize a.png --candidates 0', 'demo --steps -1', 'train x --run r -o o --batch 0'):\n"
        "    try:\n"
        "        main(line.split())\n"
        "    except SystemExit as error:\n"
        "        print(line, error.code, file=sys.stderr)\n"
        "assert not {'jax', 'flax', 'numpy', 'PIL', 'tqdm'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: jaxcolor")
    assert "--help 0\n" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["weights", "list"]])
def test_a_reader_that_goes_away(arguments: list[str]) -> None:
    process = subprocess_of(*arguments)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) in (0, 1)


def test_interrupt(tmp_path: Path, fast: list[str]) -> None:
    # After the first photo is there, the signal most likely meets the solver at work on the second.
    folder, report = tmp_path / "in", tmp_path / "report.json"
    folder.mkdir()
    for number in range(60):
        save(folder / f"{number:02}.png", 250, 250)
    process = subprocess_of("colorize", folder, "-o", tmp_path / "out", "--report", report, *fast, "--steps", "300")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "jaxcolor: interrupted\n")
    done = names(tmp_path / "out")
    assert 0 < len(done) < 60
    for name in done:
        with Image.open(tmp_path / "out" / name) as image:
            image.load()
            assert image.size == (250, 250)
    content = json.loads(report.read_text())
    assert content["interrupted"] is True
    reported = [Path(entry["output"]).name for entry in content["photos"]]
    assert reported == done[: len(reported)]
    assert len(done) - len(reported) in (0, 1)
    assert len(out.splitlines()) in (len(reported), len(reported) - 1)
    assert names(tmp_path / "in") == [f"{number:02}.png" for number in range(60)]
    assert not [name for name in names(tmp_path) if "tmp" in name or "part" in name]


# The other commands


def test_demo(tmp_path: Path, fast: list[str], run: Run) -> None:
    code, out, err = run("demo", "-o", tmp_path / "demo", *fast)
    assert (code, err) == (0, [])
    assert [line.split()[0] for line in out] == ["picture", "comparison", "method", "colorfulness", "out", "seconds"]
    with Image.open(tmp_path / "demo" / "jaxcolor-demo.png") as image:
        width, height = image.size
    with Image.open(tmp_path / "demo" / "jaxcolor-demo-compare.png") as image:
        assert image.size == (4 * width + 3 * 6, height + 22)
    assert names(tmp_path) == ["demo/jaxcolor-demo-compare.png", "demo/jaxcolor-demo.png"]


def test_the_doctor_knows_the_energy() -> None:
    row, column = np.mgrid[0:24, 0:32].astype(float)
    luminance = 50 + 30 * np.tanh((column - 16 + 3 * np.sin(row / 4)) / 2)
    candidates = np.broadcast_to(np.array([[50.0, 30], [-40, 40], [0, 0]]), (24, 32, 3, 2))
    share = 1 / (1 + np.exp((column - 14) / 3))
    weights = np.stack([0.8 * share, 0.8 * (1 - share), np.full_like(share, 0.2)], -1)
    data = reference.Data(luminance, candidates, weights, fidelity=0.01, coupling=100.0)
    u, w = reference.primal_dual(data, steps=50, sigma=0.01, tau=12.5, rho=1e-3)
    assert reference.energy(data, u, w) == pytest.approx(doctor.EXPECTED_ENERGY, rel=1e-7)


def test_doctor(tmp_path: Path, tiny: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"embedded": tiny, "zhang2016": tmp_path / "zhang2016.safetensors"}
    monkeypatch.setattr(weights_module, "weights_path", places.__getitem__)
    code, out, err = run("doctor")
    assert (code, err) == (0, [])
    assert out[-1] == "all is well"
    assert "weights      embedded: ready" in out

    data = tiny.read_bytes()
    places["zhang2016"].write_bytes(data[:-1] + bytes([data[-1] ^ 64]))
    places["embedded"] = tmp_path / "missing.safetensors"
    monkeypatch.setattr(doctor, "EXPECTED_ENERGY", 1.0)
    code, out, err = run("doctor")
    assert (code, err) == (1, [])
    problems = [line for line in out if line.startswith("problem")]
    assert len(problems) == 3
    for problem, word in zip(problems, ("embedded weights are missing", "checksum", "small solve"), strict=True):
        assert word in problem
    assert out[-1] == "3 problem(s)"


def color_photos(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        patches = random.integers(0, 255, (8, 10, 3), np.uint8)
        Image.fromarray(patches).resize((80, 64)).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xffjunk")
    save(folder / "gray.png")


def train_arguments(tmp_path: Path) -> list[Any]:
    places = [tmp_path / "photos", "--run", tmp_path / "run", "-o", tmp_path / "trained.safetensors"]
    return ["train", *places, "--width", 1 / 32, "--size", 32, "--batch", 4, "--validation-share", 0.3]


def test_train_command(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What surrounds the training: photos in, weights out, and what is wrong in one line."""
    begun = []

    def train(config: TrainingConfig, training: list, validation: list, *rest: Any) -> TrainingState:
        assert (len(training), len(validation)) == (wanted, 3)
        begun.append((config.width, *rest[-2:], config.teacher_share))
        return initial_state(config, jnp.full(313, 1 / 313)).replace(step=jnp.int32(3))

    monkeypatch.setattr("jaxcolor.cic.training.loop.train", train)
    monkeypatch.setattr("jaxcolor.cic.training.loop.empirical_prior", lambda *_: np.full(313, 1 / 313))
    color_photos(tmp_path / "photos")
    wanted = 9
    code, out, err = run(*train_arguments(tmp_path), "--steps", 3)
    assert (code, len(out)) == (0, 2)
    assert [line.split(":")[0] for line in err] == ["left out", "left out"]
    net = CIC.load(tmp_path / "trained.safetensors")
    assert (net.width, net.logit_scale) == (1 / 32, 1)
    # What is held out calibrates the finished network, in its manifest only.
    _, validation = load_photos([tmp_path / "photos"]).split(0.3)
    assert net.manifest["calibration"]["photos"] == 3
    assert net.calibrated().logit_scale == pytest.approx(
        calibrate(net, [squeezed(image, RESOLUTION) for image in validation.images]), rel=1e-2
    )
    training, _ = load_photos([tmp_path / "photos"]).split(0.3)
    wanted = 9 + 3 * training.names.count("1.png") + sum(name.startswith("1") for name in training.names)
    code, _, err = run(*train_arguments(tmp_path), "--steps", 4, "--repeat", "1.png=5", "--repeat", "1*=2")
    assert code == 130
    assert "interrupted" in err[-1]
    manifest = CIC.load(tmp_path / "trained.safetensors").manifest
    assert manifest["training"]["repeated"] == {"1.png": 5, "1*": 2}
    assert "calibration" not in manifest

    # Weights to start from bring their width.
    arguments = train_arguments(tmp_path)
    place = arguments.index("--width")
    repeated = ["--repeat", "1.png=5", "--repeat", "1*=2"]
    run(*arguments[:place], *arguments[place + 2 :], *repeated, "--init", arguments[5])
    # Those to learn from do not.
    run(*arguments, *repeated, "--teacher", "embedded", "--teacher-share", 0.25)
    assert [width for width, *_ in begun] == [1 / 32] * 4
    assert [init is None for _, init, *_ in begun] == [True, True, False, True]
    assert begun[2][1].manifest["training"]["repeated"] == {"1.png": 5, "1*": 2}
    assert [teacher is None for _, _, teacher, _ in begun] == [True, True, True, False]
    assert begun[3][2].width == 0.25
    assert begun[3][3] == 0.25

    (tmp_path / "empty").mkdir()
    before = names(tmp_path)
    for change, word in {
        (1, tmp_path / "empty"): "no color photo",
        (1, tmp_path / "missing"): "is not a folder",
        (5, tmp_path / "no" / "o.safetensors"): "existing, writable folder",
        (3, tmp_path / "photos" / "1.png"): "is a file",
    }.items():
        place, value = change
        code, out, err = run(*arguments[:place], value, *arguments[place + 1 :])
        assert (code, out, len(err)) == (1, [], 1), change
        assert word in err[0]
    code, out, err = run(*arguments[:-1], 0.999999)
    assert (code, len(err)) == (1, 3)
    assert "do not split" in err[-1]
    code, out, err = run(*arguments, "--repeat", "*=0")
    assert (code, len(err)) == (1, 3)
    assert "leaves no photo" in err[-1]
    code, out, err = run(*arguments, "--init", "nothing")
    assert (code, out, len(err)) == (1, [], 1)
    assert "no weights 'nothing'" in err[0]
    assert names(tmp_path) == before


class Restarted(BaseException):
    pass


@pytest.mark.parametrize("tunables", ["", "glibc.malloc.arena_max=2"])
def test_commands_of_many_steps_restart_with_huge_pages(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tunables: str
) -> None:
    def execv(program: str, arguments: list[str]) -> None:
        assert (program, arguments) == (sys.executable, [sys.executable, *sys.orig_argv[1:]])
        raise Restarted

    def restarted(arguments: list[Any], system: str) -> bool:
        (tmp_path / "enabled").write_text(system)
        monkeypatch.setattr(sys, "argv", ["jaxcolor", *map(str, arguments)])
        try:
            main()
        except Restarted:
            assert os.environ["GLIBC_TUNABLES"].split(":") == [*tunables.split(), "glibc.malloc.hugetlb=1"]
            assert not restarted(arguments, system)  # nor again
            monkeypatch.setenv("GLIBC_TUNABLES", tunables)
            return True
        return False

    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(huge_pages, "_OF_THE_SYSTEM", tmp_path / "enabled")
    colorize, training, on_request = ["colorize", tmp_path / "none.png"], train_arguments(tmp_path), "always [madvise]"
    assert not restarted(colorize, on_request)
    measuring = ["bench", "--json", tmp_path / "absent" / "all.json"]
    at_full_size = [*colorize, "--variant", "mouzon2019"]
    for arguments in ([*colorize, "--method", "deep-prior"], at_full_size, training, measuring):
        assert restarted(arguments, on_request)
        assert not restarted(arguments, "[always] madvise")
        assert not restarted(arguments, "madvise [never]")
        assert run(*arguments)[0] == 1  # of another program, which goes on
        assert os.environ["GLIBC_TUNABLES"] == tunables
    monkeypatch.setattr(huge_pages, "_OF_THE_SYSTEM", tmp_path / "elsewhere")
    assert not restarted(training, on_request)


@pytest.mark.slow
def test_train_and_use(tmp_path: Path, run: Run) -> None:
    color_photos(tmp_path / "photos")
    steps = ["--steps", 4, "--decay", 2, "--validate-every", 2]
    process = subprocess_of(*train_arguments(tmp_path), *steps)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0
    assert len(out.splitlines()) == 2
    assert [line.split(":")[0] for line in err.splitlines()[:2]] == ["left out", "left out"]
    save(tmp_path / "a.png")
    trained = ["--weights", tmp_path / "trained.safetensors", "--resolution", 32, "--method", "cic"]
    assert run("colorize", tmp_path / "a.png", *trained)[0] == 0
    assert (tmp_path / "a-color.png").is_file()
