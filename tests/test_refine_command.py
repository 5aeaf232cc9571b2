"""jaxcolor refine on real files: pairs, bad files, comparison, palette and hints, Ctrl-C."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxcolor.images import read_color
from tests.conftest import Run
from tests.test_cli import names, subprocess_of

LIGHT, DARK = (190, 150, 120), (40, 70, 60)


def pictures(height: int = 40, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A gray photo and its colored version, half its size."""
    left = np.arange(width) < width // 2
    colors = np.where(left[:, None], LIGHT, DARK).astype(np.uint8)
    colored = np.broadcast_to(colors, (height, width, 3))
    gray = (colored @ [0.299, 0.587, 0.114]).astype(np.uint8)
    return gray, colored[::2, ::2].copy()


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    gray, colored = pictures()
    return save(tmp_path / "gray.png", gray), save(tmp_path / "colored.png", colored)


def test_one_pair_beside_the_colored_photo(pair: tuple[Path, Path], run: Run) -> None:
    gray, colored = pair
    before = colored.read_bytes()
    code, out, err = run("refine", gray, colored, "--steps", 4, "--compare")
    assert (code, len(out), err) == (0, 1, [])
    assert names(colored.parent) == ["colored-refined-compare.png", "colored-refined.png", "colored.png", "gray.png"]
    assert colored.read_bytes() == before
    with Image.open(colored.parent / "colored-refined-compare.png") as sheet:
        assert sheet.size == (3 * 60 + 2 * 6, 40 + 22)
        shown = np.asarray(sheet.convert("RGB"))[22:] / np.float32(255)
    refined = read_color(colored.parent / "colored-refined.png")
    np.testing.assert_allclose(shown[:, 132:], refined, atol=1e-6)
    np.testing.assert_allclose(shown[30, 66 + 10], np.array(LIGHT) / 255, atol=1e-6)
    assert np.ptp(shown[30, 10]) == 0
    # The second time nothing is replaced.
    code, _, err = run("refine", gray, colored, "--steps", 4)
    assert (code, len(err)) == (1, 1)
    assert "colored-refined.png" in err[0]


def test_without_a_gray_photo_the_lightness_stays(run: Run, tmp_path: Path) -> None:
    colored = save(tmp_path / "colored.png", pictures(80, 120)[1])
    code, _, err = run("refine", colored, "-o", tmp_path / "out.png", "--steps", 4)
    assert (code, err) == (0, [])
    np.testing.assert_allclose(read_color(tmp_path / "out.png"), read_color(colored), atol=0.02)


def test_hints_and_palette(pair: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    """The left half takes the palette's color that is nearest, the right one is hinted."""
    (tmp_path / "own.json").write_text('["#c08060", "#305080"]')
    (tmp_path / "known.csv").write_text("x,y,radius,color\n50,20,1,#406040\n")
    options = ["--palette", tmp_path / "own.json", "--hints", tmp_path / "known.csv"]
    code, _, err = run("refine", *pair, "-o", tmp_path / "out.png", "--steps", 40, *options)
    assert (code, err) == (0, [])
    red, green, blue = read_color(tmp_path / "out.png").transpose(2, 0, 1)
    inner = (slice(4, -4), slice(4, 26))
    assert (red - blue)[inner].min() > 0.25
    assert (green - np.maximum(red, blue))[4:-4, 34:-4].min() > 0.05
    for option, content in (("--palette", "[]"), ("--hints", "x,y,radius,color\n999,2,1,red\n")):
        file = tmp_path / ("bad.json" if option == "--palette" else "bad.csv")
        file.write_text(content)
        code, out, err = run("refine", *pair, "-o", tmp_path / "bad.png", option, file)
        assert (code, out, len(err)) == (1, [], 1)
    assert not (tmp_path / "bad.png").exists()


def test_bad_files_of_a_folder_are_told_and_the_others_done(run: Run, tmp_path: Path) -> None:
    gray, colored = pictures()
    for name in ("broken", "cut", "wide", "sound"):
        save(tmp_path / "gray" / f"{name}.png", gray)
        save(tmp_path / "colored" / f"{name}.png", colored)
    (tmp_path / "colored" / "broken.png").write_bytes(b"\x89PNG junk")
    whole = (tmp_path / "gray" / "cut.png").read_bytes()
    (tmp_path / "gray" / "cut.png").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "colored" / "wide.png", colored[:8])
    folders = [tmp_path / "gray", tmp_path / "colored", "-o", tmp_path / "out"]
    code, out, err = run("refine", *folders, "--steps", 4, "--report", tmp_path / "report.json")
    assert (code, len(out)) == (1, 1)
    assert "broken.png" in err[0]
    assert "cut.png" in err[1]
    assert "30×8 (aspect 3.75) and the gray one 60×40 (aspect 1.5)" in err[2]
    assert err[3:] == ["1 of 4 photos refined, 3 failed"]
    assert names(tmp_path / "out") == ["sound.png"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert [Path(name).stem for name in report["failed"]] == ["broken", "cut", "wide"]


def interrupted(arguments: list[Any], environment: dict[str, str], ready: Callable[[], Any]) -> None:
    """Start ``jaxcolor refine``, send Ctrl-C when it is ready, and look at how it ends."""
    process = subprocess_of("refine", *arguments, env=os.environ | environment)
    deadline = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "jaxcolor: interrupted\n")


def test_ctrl_c_during_one_photo(tmp_path: Path) -> None:
    gray, colored = (save(tmp_path / f"{i}.png", pixels) for i, pixels in enumerate(pictures(300, 400)))
    programs = tmp_path / "programs"

    def solving() -> bool:
        return any(path.name.startswith("jit__chunk") for path in programs.glob("*"))

    arguments = [gray, colored, "-o", tmp_path / "out" / "a.png", "--steps", 1_000_000]
    interrupted(arguments, {"JAX_COMPILATION_CACHE_DIR": str(programs)}, solving)
    assert solving()
    assert names(tmp_path / "out") == []


def test_ctrl_c_in_a_folder_keeps_what_is_done(tmp_path: Path) -> None:
    gray, colored = pictures(300, 400)
    for number in range(40):
        save(tmp_path / "gray" / f"{number:02}.png", gray)
        save(tmp_path / "colored" / f"{number:02}.png", colored)
    out, report = tmp_path / "out", tmp_path / "report.json"
    arguments = [tmp_path / "gray", tmp_path / "colored", "-o", out, "--report", report, "--steps", 200]
    interrupted(arguments, {}, lambda: list(out.glob("*.png")))
    done = names(out)
    assert 0 < len(done) < 40
    for name in done:
        assert read_color(out / name).shape == (300, 400, 3)
    content = json.loads(report.read_text())
    assert content["interrupted"] is True
    reported = [Path(entry["output"]).name for entry in content["photos"]]
    assert reported == done[: len(reported)]
    assert len(done) - len(reported) in (0, 1)
    assert not [name for name in names(tmp_path) if "tmp" in name or "part" in name]
