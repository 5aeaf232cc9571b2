"""The deep prior from the command line, and its benchmark."""

import json
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from benchmarks import deep_prior
from benchmarks.__main__ import main
from jaxcolor.deep_prior import PRESETS, Preset, SkipNetwork
from tests.conftest import Run

TINY = Preset(network=SkipNetwork(channels=4, scales=1), steps=2, guided=True, start="guide", assign_from=None)


@pytest.fixture
def gray(tmp_path: Path) -> Path:
    ramp = np.linspace(40, 200, 24 * 32).reshape(24, 32)
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "gray.png")
    return tmp_path / "gray.png"


def colorize(run: Run, gray: Path, *options: str) -> tuple[int, dict, np.ndarray]:
    report, out = gray.with_name("report.json"), gray.with_name("out.png")
    quick = ["--resolution", "32", "--steps", "2", "--refinement-steps", "0", "--force", "--method", "deep-prior"]
    code, *_ = run("colorize", gray, "-o", out, "--report", report, *quick, *options)
    # NaN is none of JSON, though Python reads it.
    everything = json.loads(report.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in the report"))
    return code, everything["photos"][0], imageio.imread(out)


def test_options_reach_the_fit(gray: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset that is named, so many steps and seeds; the same seed gives the same file, another one another."""
    monkeypatch.setitem(PRESETS, "author", replace(TINY, steps=5))
    options = ["--preset", "author", "--prior-steps", "3", "--seeds", "2", "--seed"]
    code, report, first = colorize(run, gray, *options, "7")
    assert (code, report["preset"], report["steps"], report["seed"]) == (0, "author", 3, 7)
    assert len(report["losses"]) == 2
    np.testing.assert_array_equal(colorize(run, gray, *options, "7")[2], first)
    assert np.abs(colorize(run, gray, *options, "8")[2].astype(int) - first).max() > 0


def test_a_loss_that_is_not_finite_is_said_and_a_picture_written(
    gray: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "fast", replace(TINY, steps=6, learning_rate=1e30))
    code, report, picture = colorize(run, gray)
    assert code == 0
    assert "the loss became infinite or NaN" in report["status"]
    assert "lower the learning rate" in report["notes"][0]
    assert picture.shape == (24, 32, 3)
    assert report["loss"]["luminance"] is None
    # The knob that the message names is there.
    code, report, _ = colorize(run, gray, "--learning-rate", "1e-3")
    assert "all steps were taken" in report["status"]
    assert report["loss"]["luminance"] >= 0


def test_what_has_no_effect_is_said(gray: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    free = replace(TINY, guided=False, start="mean")
    monkeypatch.setitem(PRESETS, "paper", free)
    _, report, _ = colorize(run, gray, "--preset", "paper", "--coupling", "7")
    assert any(note.startswith("coupling, steps, refinement_steps: without effect") for note in report["notes"])
    monkeypatch.setitem(PRESETS, "paper", TINY)
    assert not colorize(run, gray, "--preset", "paper", "--coupling", "7")[1]["notes"]


def test_a_plateau_ends_the_fit(gray: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "fast", replace(TINY, steps=500, learning_rate=1e-9))
    _, report, _ = colorize(run, gray, "--plateau", "0.01")
    assert (report["steps"], report["status"]) == (400, "the stopping rule was met")


@pytest.mark.slow
def test_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(deep_prior.VARIANTS, "fast", replace(TINY, steps=3))
    row, column = np.mgrid[:32, :32]
    Image.fromarray(np.stack([200 - 4 * row, 3 * column, 90 + 0 * row], -1).astype(np.uint8)).save(tmp_path / "a.png")
    plot, everything = tmp_path / "curve.png", tmp_path / "all.json"
    parts = ["--parts", "curve", "colors", "--one-loss", "--size", "32", "--resolution", "32"]
    main(["deep-prior", "--photos", str(tmp_path), *parts, "--plot", str(plot), "--json", str(everything)])
    result = json.loads(everything.read_text())
    curve = result["curve"]["fast"]
    assert np.shape(curve["parts"]) == (3, 3)
    assert curve["seconds"] == sorted(curve["seconds"])
    assert curve["end"] >= curve["seconds"][-1] > 0
    rows = result["colors"]
    assert list(rows) == ["truth", "cic", "coupled-tv", "fast"]
    assert rows["truth"][0]["delta_e"] < 0.01 < rows["fast"][0]["delta_e"]
    with Image.open(plot) as drawing:
        assert drawing.size[0] > 500
    printed = capsys.readouterr().out
    assert "fast against coupled-tv (better on how many photos): away " in printed
