"""Photos that do not fit are refused before the work, with a size that would fit."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxcolor as jc
from jaxcolor import memory
from jaxcolor.memory import bytes_available, bytes_needed, require_memory
from jaxcolor.settings import WORKING_SIDE

GIGABYTE = 10**9

# Prints the peak resident memory of one colorization. Weights are random: the embedded network is no part of this.
MEASURE = """
import resource, sys, jax, numpy as np, jaxcolor as jc
height, width, method, candidates = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
luminance = np.random.default_rng(0).random((height, width), np.float32)
net = jc.CIC.init(jax.random.key(0), width=1 / 4)
settings = dict(method=method, candidates=candidates, steps=2, refinement_steps=2)
jc.colorize(luminance, sys.argv[5], weights=net, **settings)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_24_megapixels_fit_into_a_machine_of_24_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "bytes_available", lambda: 20 * GIGABYTE)
    require_memory((4000, 6000), 10)
    with pytest.raises(jc.InputError):
        require_memory((4000, 6000), 20)


@pytest.mark.parametrize("candidates", [0, 1, 10, 313])
@pytest.mark.parametrize("available", [GIGABYTE, 3 * GIGABYTE, 20 * GIGABYTE])
@pytest.mark.parametrize("working", [1000**2, math.inf])
def test_the_size_in_the_message_fits(
    monkeypatch: pytest.MonkeyPatch, candidates: int, available: int, working: float
) -> None:
    monkeypatch.setattr(memory, "bytes_available", lambda: available)
    with pytest.raises(jc.InputError) as caught:
        require_memory((20_000, 30_000), candidates, working_pixels=working)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{available / 1e9:.1f} GB are free" in message
    assert ("fewer candidates" in message) == (candidates > 1)
    found = re.search(r"resize it to (\d+)×(\d+)", message)
    assert found is not None
    width, height = map(int, found.groups())
    require_memory((height, width), candidates, working_pixels=working)
    with pytest.raises(jc.InputError):
        require_memory((height + height // 20 + 20, width + width // 20 + 30), candidates, working_pixels=working)


def test_a_long_photo_needs_more_than_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "bytes_available", lambda: 3 * GIGABYTE)
    require_memory((1000, 1000), 10, working_pixels=512**2)
    with pytest.raises(jc.InputError, match="100000×10 pixels need about"):
        require_memory((10, 100_000), 10, working_pixels=512**2)
    # Without a solver nothing is brought to another size.
    require_memory((10, 100_000), 0, working_pixels=512**2)


def test_too_little_for_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "bytes_available", lambda: 1000)
    with pytest.raises(jc.InputError, match="close other programs"):
        require_memory((1, 1), 1)


def test_nothing_is_computed_before_the_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "bytes_available", lambda: GIGABYTE)
    monkeypatch.setattr("jaxcolor.pipeline._predict", None)
    gray = jc.GrayImage(np.full((2000, 3000), 50, np.float32))
    with pytest.raises(jc.InputError, match=r"3000×2000 pixels need about 1\.7 GB .* resize it to \d+×\d+"):
        jc.colorize(gray, tmp_path / "a.png", weights=jc.CIC({}))
    assert list(tmp_path.iterdir()) == []


def test_this_machine_has_some() -> None:
    assert 10**6 < bytes_available() < 10**15


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """The tightest of the groups around a process counts, and what is cached of files is free."""
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    groups = tmp_path / "memory" if version == 1 else tmp_path
    inner = groups / "outer" / "inner"
    inner.mkdir(parents=True)
    for folder, limit, used, cached in ((inner.parent, 5000, 4000, 700), (inner, 8000, 1000, 0)):
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 3\n{names[2]} {cached}\n")
    own = tmp_path / "own"
    own.write_text("2:cpu:/\n" + ("4:memory:/outer/inner\n" if version == 1 else "0::/outer/inner\n"))
    monkeypatch.setattr(memory, "_OWN_GROUPS", own)
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    assert bytes_available() == 1700
    (inner.parent / names[0]).write_text("max\n")
    assert bytes_available() == 7000
    own.unlink()
    assert bytes_available() > 7000


@pytest.mark.slow
@pytest.mark.parametrize(("method", "candidates"), [("cic", 1), ("coupled-tv", 4), ("coupled-tv", 10)])
def test_the_estimate_holds(tmp_path: Path, method: str, candidates: int) -> None:
    sizes = ((1024, 1024), (1500, 2000))
    peaks = []
    for height, width in sizes:
        place = tmp_path / f"{height}.png"
        command = [sys.executable, "-c", MEASURE, str(height), str(width), method, str(candidates), str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    working = WORKING_SIDE**2
    estimates = [bytes_needed(h * w, candidates if method == "coupled-tv" else 0, working) for h, w in sizes]
    for peak, estimate in zip(peaks, estimates, strict=True):
        assert peak < estimate
    # A pixel more costs at least half of what is estimated: no photo is refused without need.
    assert peaks[1] - peaks[0] > 0.5 * (estimates[1] - estimates[0])
