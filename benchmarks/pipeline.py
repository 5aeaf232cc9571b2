"""The whole way of a photo: cold and second process, warm process, peak memory, a folder; jaxcolor beside nobody,
because no other program does the same job."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxcolor as jc
import jaxcolor.coupled_tv as ctv
from jaxcolor.images import read_gray

from .solver import problem_of
from .timing import Table, Timing, compile_seconds, measure, measure_within

# So long may the repetitions of one row take, processes and all; what takes longer is timed once.
SECONDS = 20.0

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
    """Processes by size of the photo, growth with the pixels, a warm process, batches, folders."""
    settings, limit = (["--steps", "2", "--refinement-steps", "1"], 0.0) if quick else ([], SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        sizes = [(64, 64)] if quick else [(256, 256), (512, 512), (4000, 3000), (6000, 4000)]
        for width, height in sizes:
            yield processes(Path(folder), width, height, settings, limit)
        sides = [64, 128] if quick else [256, 512, 1024, 2048, 4096]
        yield growth(Path(folder), sides, settings, limit)
        if not quick:
            # Everything at full size; with the default number of steps the largest sides would take many minutes.
            full = ["--variant", "mouzon2019"]
            yield growth(Path(folder), sides[:3], full, limit)
            yield growth(Path(folder), sides[2:], [*full, "--steps", "50", "--refinement-steps", "5"], limit)
        yield warm(64 if quick else 256, 2 if quick else 500)
        yield batches((1, 2) if quick else (1, 4, 16), 64 if quick else 256, 2 if quick else 100)
        side = 64 if quick else 512
        for method, counts in {"coupled-tv": (2, 12), "cic": (10, 110)}.items():
            yield of_folder(
                Path(folder), (1, 3) if quick else counts, side, side, [*settings, "--method", method], limit
            )
        if not quick:
            yield of_folder(Path(folder), (2, 6), 4000, 3000, ["--method", "cic"], limit)


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


def processes(folder: Path, width: int, height: int, settings: list[str], limit: float) -> Table:
    """The command line on one photo: with an empty compile cache, and again; peak memory beside it."""
    source = photo(folder, width, height)
    table = Table(f"jaxcolor colorize, {width}×{height}", {}, "second process", unit="s")
    peaks: list[float] = []

    def run(cache: str) -> float:
        took, peak, _ = launched(source, settings, cache)
        peaks.append(peak / 1e9)
        return took

    def first() -> float:
        with tempfile.TemporaryDirectory() as empty:
            return run(empty)

    with tempfile.TemporaryDirectory() as cache:
        run(cache)
        for name, function in {"first process": first, "second process": lambda: run(cache)}.items():
            peaks.clear()
            table.rows[name] = measure_within(function, limit)
            table.values[name] = {"peak GB": max(peaks)}
    return table


def growth(folder: Path, sides: list[int], settings: list[str], limit: float) -> Table:
    """The color stage of the command on squares, programs cached, and how its time and memory grow with the pixels."""
    title = f"color stage of jaxcolor colorize {' '.join(settings)}".rstrip()
    table = Table(title, {}, f"{sides[0]}²", unit="s", kind="growth" if len(sides) > 1 else "")
    peaks: dict[str, list[float]] = {}

    def color(source: Path, cache: str) -> float:
        _, peak, (report,) = launched(source, settings, cache)
        peaks.setdefault(source.name, []).append(peak)
        return report["seconds"]["color"]  # type: ignore[no-any-return]

    with tempfile.TemporaryDirectory() as cache:
        for side in sides:
            source = photo(folder, side, side)
            color(source, cache)
            table.rows[f"{side}²"] = measure_within(partial(color, source, cache), limit)
    seconds = [row.median for row in table.rows.values()]
    memory = [max(of) for of in peaks.values()]
    exponents = [float("nan"), *local_exponents([side**2 for side in sides], seconds)]
    for side, peak, exponent in zip(sides, memory, exponents, strict=True):
        # From the size before to this one; the first has none.
        grows = {} if np.isnan(exponent) else {"exponent": exponent}
        table.values[f"{side}²"] = {"pixels": side**2, "peak GB": peak / 1e9, **grows}
    slope, start = np.polyfit([side**2 for side in sides], seconds, 1, w=1 / np.array(seconds))
    table.notes.append(
        f"seconds = {start:.2g} + {1e6 * slope:.2g} for every million pixels; exponent: of the growth from the size "
        f"before; memory grows by {(memory[-1] - memory[0]) / (sides[-1] ** 2 - sides[0] ** 2):.0f} bytes a pixel"
    )
    return table


def local_exponents(sizes: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """Powers of the size with which seconds grow, from each size to the next.

    >>> [round(power, 3) for power in local_exponents([1, 2, 4], [1.0, 2.0, 8.0])]
    [1.0, 2.0]
    """
    return [float(power) for power in np.diff(np.log(seconds)) / np.diff(np.log(sizes))]


def launched(source: Path, settings: list[str], cache: str) -> tuple[float, int, list[dict[str, Any]]]:
    """Seconds, peak memory in bytes and reports of the photos of one process of the command."""
    target, told = source.with_name("color" + source.suffix), source.with_name("report.json")
    command = [sys.executable, "-m", "jaxcolor", "colorize", str(source), "-o", str(target), "--force"]
    command += ["--report", str(told), *settings]
    # The command chooses its pages of memory itself, as it does for everybody.
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    answer = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *command],
        # Both, because this process may be a command of jaxcolor, which has set the second.
        env=environment | {"JAXCOLOR_CACHE": cache, "JAX_COMPILATION_CACHE_DIR": str(Path(cache, "programs"))},
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
    table = Table(f"warm process, {size}²", {}, "coupled-tv", unit="s")
    for name, chosen in ways.items():
        run = partial(jc.colorize, gray, **chosen)
        table.compile[name] = compile_seconds(run)
        table.rows[name] = measure(run, 5)
    return table


def batches(counts: Sequence[int], size: int, steps: int) -> Table:
    """Network and solver for one photo of a batch, under ``jax.vmap``, by the number of photos in it.

    The command has no batches: what it has in flight is one photo that is read, one that is computed, one that is
    written.
    """
    net = jc.CIC.load()
    problem = problem_of(size, 10)
    table = Table(f"one photo of a batch under vmap, {size}², {steps} primal-dual steps", {}, "", unit="ms")
    for count in counts:
        photos = jnp.broadcast_to(problem.luminance, (count, size, size))
        problems = jax.tree.map(lambda leaf, count=count: jnp.broadcast_to(leaf, (count, *leaf.shape)), problem)
        predict = jax.jit(jax.vmap(lambda luminance: net.predict(luminance).probabilities))
        solve = jax.jit(jax.vmap(lambda problem: ctv.solve(problem, ctv.PrimalDual(), steps).chroma))
        for name, run, batch in (("network", predict, photos), ("solver", solve, problems)):
            row, whole = f"{name}, {count} at once", partial(_waited, run, batch)
            table.compile[row] = compile_seconds(whole)
            table.rows[row] = measure(whole, 5).divided(count)
    return table


def _waited(function: Callable[[Any], Any], argument: Any) -> None:
    jax.block_until_ready(function(argument))


def of_folder(
    folder: Path, counts: tuple[int, int], width: int, height: int, settings: list[str], limit: float
) -> Table:
    """The command on a folder: what one photo more takes, programs cached, and how long its stages are.

    From the smaller number of photos to the larger, so that the start of the process is left out. Where the stages add
    up to more than the photo, they overlap: one photo is read ahead and the last one written while one is computed.
    Reading is timed apart, because the command does it in a thread, beside everything else.
    """
    source = photo(folder, width, height)
    reports: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as made:
        fewer, more = (_copies(Path(made, str(count)), source, count) for count in counts)
        launched(source, settings, cache)

        def a_photo() -> float:
            less = launched(fewer, settings, cache)[0]
            whole, _, told = launched(more, settings, cache)
            reports.extend(told)
            return (whole - less) / (counts[1] - counts[0])

        each = measure_within(a_photo, 3 * limit)
    stages = {"read": measure(lambda: read_gray(source), 5)} | {
        stage: Timing.of([one["seconds"][stage] for one in reports]) for stage in ("network", "color", "write")
    }
    total = sum(stage.median for stage in stages.values())
    title = f"jaxcolor colorize FOLDER {' '.join(settings)}".rstrip()
    title += f", a photo of {width}×{height}, from {counts[0]} to {counts[1]}: {60 / each.median:.1f} a minute"
    table = Table(title, {"a photo": each} | {f"  {name}": of for name, of in stages.items()}, "a photo", unit="s")
    table.values = {f"  {name}": {"share": of.median / total} for name, of in stages.items()}
    table.notes = [f"in flight: one photo read, one computed, one written; the stages add up to {total:.3f} s"]
    return table


def _copies(folder: Path, source: Path, count: int) -> Path:
    """A new folder with so many copies of a file."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}{source.suffix}").write_bytes(source.read_bytes())
    return folder
