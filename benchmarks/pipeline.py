"""The whole way of a photo: cold and second process, warm process, peak memory, a folder; jaxcolor beside nobody,
because no other program does the same job."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import jaxcolor as jc
from jaxcolor.images import read_gray

from .timing import Table, Timing, measure

# Run by a small process, since a process counts the peak of the one that started it as its own.
LAUNCHER = """
import json, subprocess, sys, time
try:
    import resource
except ImportError:
    resource = None
began = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if resource else float("nan")
print(json.dumps([code, seconds, peak]))
"""


def tables(quick: bool, peers: bool) -> Iterator[Table]:
    """Processes by size of the photo, a warm process, a folder."""
    settings = ["--steps", "2", "--refinement-steps", "1"] if quick else []
    with tempfile.TemporaryDirectory() as folder:
        for width, height in (
            [(64, 64)] if quick else [(256, 256), (512, 512), (1024, 1024), (4000, 3000), (6000, 4000)]
        ):
            yield processes(Path(folder), width, height, settings)
        sides = [64, 128] if quick else [256, 512, 1024, 2048, 4096]
        yield growth(Path(folder), sides, settings)
        # At full size, where the largest takes minutes for every hundred steps.
        yield growth(Path(folder), sides, ["--variant", "mouzon2019", "--steps", "50", "--refinement-steps", "5"])
        yield warm(64 if quick else 256, 2 if quick else 500)
        for method in ("coupled-tv", "cic"):
            chosen = [*settings, "--method", method]
            yield of_folder(Path(folder), *((2, 64, 64) if quick else (8, 512, 512)), chosen)
        if not quick:
            yield of_folder(Path(folder), 4, 4000, 3000, ["--method", "cic"])


def photo(folder: Path, width: int, height: int) -> Path:
    """A gray photo with structure at every scale: a synthetic landscape of summed waves and edges."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / max(height, width)
    picture = np.zeros((height, width), np.float32)
    for octave in range(8):
        a, b, phase = rng.normal(size=3)
        picture += np.sign(np.sin(2**octave * (a * x + b * y) * 3 + phase)) / (octave + 1)
    pixels = 127 + 100 * picture / np.abs(picture).max() + rng.normal(0, 3, picture.shape)
    path = folder / f"{width}x{height}.jpg"
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=92)
    return path


def processes(folder: Path, width: int, height: int, settings: list[str]) -> Table:
    """The command line on one photo: with an empty compile cache, and again; peak memory beside it."""
    source, rows, values = photo(folder, width, height), {}, {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("first process", "second process"):
            seconds, peak, _ = launched(source, settings, cache)
            rows[name] = Timing(seconds, seconds, seconds)
            values[name] = {"peak GB": peak / 1e9}
    return Table(f"jaxcolor colorize, {width}×{height}", rows, "second process", unit="s", values=values)


def growth(folder: Path, sides: list[int], settings: list[str]) -> Table:
    """The color stage of the command on squares, programs cached, and how its time and memory grow with the pixels."""
    rows, values = {}, {}
    with tempfile.TemporaryDirectory() as cache:
        for side in sides:
            source = photo(folder, side, side)
            launched(source, settings, cache)
            _, peak, (report,) = launched(source, settings, cache)
            seconds = report["seconds"]["color"]
            rows[f"{side}²"] = Timing(seconds, seconds, seconds)
            values[f"{side}²"] = {"peak GB": peak / 1e9}
    pixels = np.square(sides, dtype=float)
    exponent = np.polyfit(np.log(pixels), np.log([row.median for row in rows.values()]), 1)[0]
    peaks = [value["peak GB"] * 1e9 for value in values.values()]
    note = f"seconds grow as the pixels to the power {exponent:.2f}, memory by "
    note += f"{(peaks[-1] - peaks[0]) / (pixels[-1] - pixels[0]):.0f} bytes for every pixel more"
    title = f"color stage of jaxcolor colorize {' '.join(settings)}".rstrip()
    return Table(title, rows, f"{sides[0]}²", unit="s", values=values, notes=[note])


def launched(source: Path, settings: list[str], cache: str) -> tuple[float, int, list[dict[str, Any]]]:
    """Seconds, peak memory in bytes and reports of the photos of one process of the command."""
    target, told = source.with_name("color" + source.suffix), source.with_name("report.json")
    command = [sys.executable, "-m", "jaxcolor", "colorize", str(source), "-o", str(target), "--force"]
    command += ["--report", str(told), *settings]
    answer = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *command],
        env=os.environ | {"JAXCOLOR_CACHE": cache},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    code, seconds, peak = json.loads(answer)
    if code:
        raise SystemExit(f"jaxcolor colorize failed on {source.name}")
    return seconds, peak * (1 if sys.platform == "darwin" else 1024), json.loads(told.read_text())["photos"]


def warm(size: int, steps: int) -> Table:
    """A photo in a process that has done one like it."""
    with tempfile.TemporaryDirectory() as folder:
        gray = read_gray(photo(Path(folder), size, size))
    ways = {"coupled-tv": {"steps": steps}, "cic": {"method": "cic"}}
    rows = {name: measure(lambda chosen=chosen: jc.colorize(gray, **chosen), 5) for name, chosen in ways.items()}
    return Table(f"warm process, {size}²", rows, "coupled-tv", unit="s")


def of_folder(folder: Path, count: int, width: int, height: int, settings: list[str]) -> Table:
    """The command on a folder: what one photo more takes, programs cached, and how long its stages are.

    Where the stages add up to more than the photo, they overlap: the next photo is read and the last one written
    meanwhile. The command reads in a thread, beside everything else, so that reading is timed apart.
    """
    source = photo(folder, width, height)
    seconds = []
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as made:
        many = Path(made) / "many"
        many.mkdir()
        launched(source, settings, cache)
        for new in (range(1), range(1, count + 1)):
            for number in new:
                (many / f"{number}{source.suffix}").write_bytes(source.read_bytes())
            began = time.perf_counter()
            report = launched(many, settings, cache)[2]
            seconds.append(time.perf_counter() - began)
    each = (seconds[1] - seconds[0]) / count
    began = time.perf_counter()
    read_gray(source)
    stages = {"read": time.perf_counter() - began} | {
        stage: float(np.median([one["seconds"][stage] for one in report])) for stage in ("network", "color", "write")
    }
    rows = {"a photo": each, "its stages, added up": sum(stages.values())} | {f"  {s}": t for s, t in stages.items()}
    title = f"jaxcolor colorize FOLDER {' '.join(settings)}".rstrip()
    title += f", {count} photos of {width}×{height} more: {60 / each:.1f} a minute"
    return Table(title, {name: Timing(t, t, t) for name, t in rows.items()}, "a photo", unit="s")
