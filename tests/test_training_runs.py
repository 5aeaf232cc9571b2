"""What surrounds the training step: checkpoints, logs, several devices, provenance."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from jaxcolor.cic.training import provenance
from jaxcolor.cic.training.checkpoints import Checkpoints
from jaxcolor.cic.training.log import TrainingLog, append_row
from jaxcolor.cic.training.progress import SHOWN_EVERY, Kind, Meter, Progress
from jaxcolor.cic.training.step import placements
from jaxcolor.cic.training.validation import sample_sheet
from jaxcolor.errors import InputError


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_checkpoints_of_another_network_or_damaged_ones_are_one_line_and_stay(tmp_path: Path) -> None:
    folder = tmp_path / "good"
    state = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(4)}
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest is None
        assert checkpoints.restored(state) is state
        for step in (1, 2, 3):
            checkpoints.save(step, {"a": step * state["a"], "b": state["b"]})
        checkpoints.wait()
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    with Checkpoints(folder) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restored(state)["a"], 3 * state["a"])
    before = files(folder)
    for shapes in ({"a": (3, 3), "b": (4,)}, {"a": (2, 3), "c": (4,)}):
        other = {name: jnp.ones(shape) for name, shape in shapes.items()}
        with (
            pytest.raises(InputError, match=r"of step 3 .* is of another network or optimiser; give the width"),
            Checkpoints(folder) as checkpoints,
        ):
            checkpoints.restored(other)
    assert files(folder) == before
    lines = []
    damages = [("d/*", b"OCDB"), ("_METADATA", None), ("_METADATA", b"[]"), ("process_0", b"\xff"), ("_sharding", b"")]
    damages += [("_CHECKPOINT_METADATA", b"[]")]
    for number, (pattern, content) in enumerate(damages):
        place = tmp_path / "damaged" / str(number)
        shutil.copytree(folder, place)
        (path, *_) = (path for path in (place / "3").rglob(pattern) if path.is_file())
        path.write_bytes(content or b"")
        if content is None:
            path.unlink()
        lines.append(f"the checkpoint of step 3 in {place} is damaged; delete it, or give another folder")
    got = refusals(tmp_path / "damaged", {"a": [2, 3], "b": [4]})
    assert got[:-1] == lines[:-1]
    assert re.fullmatch(r"the checkpoints in .*5 are damaged \(.*\); give another folder", got[-1])


def refusals(folder: Path, shapes: dict[str, list[int]]) -> list[str]:
    """What is said when each of the folders in ``folder`` is asked for its last checkpoint as arrays of these shapes.

    In a process of its own: when Orbax fails it leaves coroutines behind, whose errors appear in other tests.
    """
    script = """
import json, sys
import jax.numpy as jnp
from pathlib import Path
from jaxcolor.cic.training.checkpoints import Checkpoints
from jaxcolor.errors import InputError

for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    try:
        with Checkpoints(folder) as checkpoints:
            checkpoints.restored({name: jnp.ones(shape) for name, shape in json.loads(sys.argv[2]).items()})
    except InputError as error:
        print(error)
"""
    command = [sys.executable, "-c", script, str(folder), json.dumps(shapes)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_two_runs_cannot_write_to_one_folder(tmp_path: Path) -> None:
    state = {"kernel": jnp.ones(3)}
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match=f"another run is writing to {tmp_path}; end it"):
            Checkpoints(tmp_path)
        checkpoints.save(1, state)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    state = {"a": jnp.asarray(np.random.default_rng(0).normal(size=(200, 200)), jnp.float32)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.wait()
        with monkeypatch.context() as patch:
            patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=50_000))
            with pytest.raises(
                InputError, match=r": 0.2 MB needed, 0.1 MB free; the checkpoint of step 1 is intact; make room"
            ):
                checkpoints.save(2, state)
        usual = resource.getrlimit(resource.RLIMIT_FSIZE)
        # No file may grow beyond this: the write itself fails, as with a quota.
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, usual[1]))
        try:
            checkpoints.save(2, state)
            with pytest.raises(
                InputError, match=r"cannot write .*: File too large; the checkpoint of step 1 is intact"
            ) as error:
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        assert "\n" not in str(error.value)
        # A write that failed unseen is not taken for the last checkpoint.
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, usual[1]))
        try:
            checkpoints.save(2, state)
            with monkeypatch.context() as patch:
                patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=50_000))
                with pytest.raises(InputError, match="the checkpoint of step 1 is intact"):
                    checkpoints.save(3, state)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    with Checkpoints(tmp_path) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restored(jax.tree.map(jnp.zeros_like, state))["a"], state["a"])
        checkpoints.save(2, state)
        checkpoints.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_log_takes_new_columns_into_an_old_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    append_row(path, {"step": 1, "loss": 0.5})
    append_row(path, {"step": 2, "loss": 1 / 3, "wait": 0.25})
    append_row(path, {"step": 3, "wait": 0.125})
    # What a spreadsheet may have added.
    path.write_bytes(path.read_bytes().replace(b"2,0.333333,0.25", b"2,0.333333,0.25,\xff"))
    append_row(path, {"step": 4})
    # A run that was killed after step 5 goes on from step 3; here it comes to 4 again.
    for step in (5, 4):
        append_row(path, {"step": step, "loss": 0.25})
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row.values()) for row in rows] == [
        ["1", "0.5", ""],
        ["2", "0.333333", "0.25"],
        ["3", "", "0.125"],
        ["4", "0.25", ""],
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]


def test_log_writes_pictures_and_for_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = np.random.default_rng(0).integers(0, 255, (6, 4, 3), np.uint8)
    log = TrainingLog(tmp_path, tensorboard=True)
    log.write(500, {"cross_entropy": 3.25}, sheet)
    log.close()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "samples" / "0000500.png")), sheet)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"cross_entropy" in events.read_bytes()
    assert np.float32(3.25).tobytes() in events.read_bytes()
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install 'jaxcolor\[tensorboard\]'"):
        TrainingLog(tmp_path, tensorboard=True)


def test_sample_sheet_shows_gray_color_and_truth() -> None:
    rgb = np.zeros((2, 8, 8, 3), np.uint8)
    rgb[1] = [200, 30, 30]
    lab = rgb2lab(np.float32(rgb) / 255)
    sheet = jax.jit(sample_sheet)(rgb, lab[..., :1], lab[:, ::4, ::4, 1:])
    gray, color, truth = np.split(np.asarray(sheet).astype(int), 3)
    assert np.ptp(gray, axis=-1).max() <= 1
    assert np.abs(color - truth).max() <= 1
    np.testing.assert_array_equal(truth, np.concatenate(list(rgb), 1))


TWO_DEVICES = """
import sys, jax, jax.numpy as jnp, numpy as np
from dataclasses import replace
from itertools import islice
from pathlib import Path
from jaxcolor.cic.training import loop
from jaxcolor.cic.training.config import TrainingConfig
from jaxcolor.cic.training.crops import batches
from jaxcolor.cic.training.state import initial_state
from jaxcolor.cic.training.step import placements
from jaxcolor.cic.training.validation import MEASURES

config = TrainingConfig(width=1 / 32, size=16, batch=4, steps=3, warmup=1, decay=1)
# There are three.
for batch, count in ((1, 1), (2, 2), (3, 3), (4, 2), (5, 1)):
    assert len(placements(batch)[0].device_set) == count
loop.empirical_prior = lambda *_: jnp.full(313, 1 / 313)
loop.initial_state = lambda *given: jax.tree.map(
    lambda x: x.astype(float) if x.dtype == jnp.float32 else x, initial_state(*given)
)
steps, make_step = {}, loop.make_step
loop.make_step = lambda config, weights, placement: steps.setdefault(placement, make_step(config, weights, placement))
loop.make_validation = lambda *_: lambda _: (dict.fromkeys(MEASURES, 1.0), photos[0])
photos = [np.random.default_rng(i).integers(0, 255, (20, 30, 3), np.uint8) for i in range(5)]

def run(name, devices):
    folder = Path(sys.argv[1], name)
    return loop.train(config, photos, photos[:1], folder, validate_every=2, progress="none", devices=devices)

def cut(*given):
    yield from islice(batches(*given), 2)
    raise RuntimeError("stopped")

one, two = run("one", 1), run("two", 2)
loop.batches = cut
try:
    run("moved", 2)
except RuntimeError as error:
    assert str(error) == "stopped"
loop.batches = batches
moved = run("moved", 1)
for state, devices in ((one, 1), (two, 2), (moved, 1)):
    assert all(len(leaf.sharding.device_set) == devices for leaf in jax.tree.leaves(state))
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float64"), jnp.dtype("int32")}
start = loop.initial_state(config, loop.empirical_prior())
for other in (two, moved):
    # The bias of a convolution that is normalised has the gradient 0, and moves by what rounding leaves of it: 1e-10.
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8), other, one)
for before, after in zip(*map(jax.tree.leaves, (start.params, one.params)), strict=True):
    assert before.ndim < 4 or np.abs(after - before).max() > 1e-3  # every kernel has moved
"""


@pytest.mark.slow
def test_two_devices_give_the_parameters_of_one(tmp_path: Path) -> None:
    """Three steps of a run, in double precision; and of one that goes on on one of two devices."""
    # Nearly all of the time is compilation, so it does not optimise.
    flags = "--xla_force_host_platform_device_count=3 --xla_backend_optimization_level=0"
    flags += " --xla_llvm_disable_expensive_passes=true"
    # A simulated device waits for the other inside a thread of the pool that both share: two threads are too few.
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PJRT_NPROC": "16", "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-c", TWO_DEVICES, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr


def test_devices_that_are_not_there_or_do_not_divide_the_batch_are_refused() -> None:
    for devices in (0, 1000):
        with pytest.raises(InputError, match=f"cannot train on {devices} devices"):
            placements(8, devices)


def test_commit_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance.jaxcolor, "__file__", str(tmp_path / "__init__.py"))
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "__init__.py").write_text("a = 1\n")
    assert provenance.code_commit() is None
    git("init")
    git("commit", "--allow-empty", "-m", "nothing of ours")
    assert provenance.code_commit() is None
    git("add", ".")
    git("commit", "-m", "the package")
    commit = git("rev-parse", "HEAD")
    assert provenance.code_commit() == commit
    (tmp_path / "__init__.py").write_text("a = 2\n")
    assert provenance.code_commit() == f"{commit} with local changes"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code_commit() is None


class Losses:
    """Of a step that the device has not finished, if not ``ready``."""

    def __init__(self, ready: bool, loss: float = 1.0) -> None:
        self.is_ready, self.loss = (lambda: ready), loss

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        assert self.is_ready(), "somebody waits for the device"
        return np.array([self.loss, 2 * self.loss])


def test_the_meter_tells_waiting_for_photos_from_working() -> None:
    def source(seconds: float) -> Iterator[np.ndarray]:
        while True:
            time.sleep(seconds)
            yield np.zeros(1)

    def share(fetching: float, working: float, ready: bool) -> float:
        meter = Meter(batch=4)
        given = source(fetching)
        for _ in range(8):
            meter.fetched(given)
            time.sleep(working)
            meter.losses.append(Losses(ready))  # type: ignore[arg-type]
        waited = meter._speed(8, time.perf_counter() - meter._start)["data_wait"]
        given.close()
        return waited

    assert share(fetching=0.02, working=0, ready=True) > 0.9
    assert share(fetching=0, working=0.02, ready=True) < 0.1
    # The device has work while photos are fetched: all but the first of them.
    assert share(fetching=0.02, working=0, ready=False) < 0.3


def test_a_glance_at_the_losses_does_not_wait_for_the_device() -> None:
    meter = Meter(batch=4)
    assert meter.glance() == {}
    meter.losses += [Losses(True, 9.0)] * 5 + [Losses(True, 3.0)] * SHOWN_EVERY  # type: ignore[list-item]
    meter._start = time.perf_counter() - 10
    first = meter.glance()
    assert (first["loss"], first["photos_per_second"]) == (3.0, pytest.approx(4 * 25 / 10, rel=0.1))
    meter.losses += [Losses(False)] * 3  # type: ignore[list-item]
    assert meter.glance()["loss"] == 3.0
    assert meter.losses[-1] is not None
    with pytest.raises(AssertionError, match="waits for the device"):
        meter.row()


ROW = {"loss": 3.25, "cross_entropy": 3.5, "cross_entropy_prior": 3.625, "photos_per_second": 40.0, "data_wait": 0.015}


def test_progress_is_a_bar_or_a_line_for_every_validation_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for kind in get_args(Kind):
        progress, meter = Progress(kind, first=100, total=1000), Meter(batch=4)
        for step in range(101, 201):
            meter.losses.append(Losses(True, 0.125))  # type: ignore[arg-type]
            progress.advanced(step, meter)
        # A hundred steps took ten seconds.
        progress._since = (100, time.perf_counter() - 10)
        progress.validated(200, ROW)
        progress.close()
        shown[kind] = capsys.readouterr()
    assert shown["lines"].err == (
        "step 200 of 1000: loss 3.250, held-out cross-entropy 3.500 (prior 3.625), 40.0 photos/s, data wait 1.5 %, "
        "01:20 left\n"
    )
    last = shown["bar"].err.splitlines()[-1].split("\r")[-1]
    for part in ("200/1000", "loss=0.125", "photos/s=", "data wait=", "held out=3.500"):
        assert part in last
    assert shown["none"].err == shown["none"].out == shown["lines"].out == shown["bar"].out == ""


def test_photos_libraries_and_devices_are_noted_and_other_photos_are_noticed(tmp_path: Path) -> None:
    # As written before photos were noted.
    old = {"from_step": 0, "width": 0.25, "steps": 100, "commit": "abc", "init": {"name": "embedded"}}
    (tmp_path / provenance.PHASES).write_text(json.dumps([old]))
    assert not provenance.other_photos(tmp_path, "1234")
    settings = {"steps": 100} | provenance.surroundings(jax.devices()[:1])
    for step, digest in ((50, "1234"), (60, "1234"), (70, "5678")):
        provenance.record_phase(tmp_path, step, settings | {"data": {"digest": digest}})
    noted = provenance.phases(tmp_path)
    assert noted[0] == old
    assert [(phase["from_step"], phase["data"]["digest"]) for phase in noted[1:]] == [(50, "1234"), (70, "5678")]
    assert noted[1]["versions"]["jax"] == jax.__version__
    assert noted[1]["devices"] == {"count": 1, "kind": jax.devices()[0].device_kind}
    assert provenance.other_photos(tmp_path, "1234")
    assert not provenance.other_photos(tmp_path, "5678")
    assert not provenance.other_photos(tmp_path / "none", "5678")


def test_the_weights_that_a_run_began_with_are_noted_once(tmp_path: Path) -> None:
    origin = {"name": "embedded", "training": {"phases": [1, 2, 3]}}
    for step, steps in ((0, 100), (50, 100), (100, 200), (150, 200)):
        provenance.record_phase(tmp_path, step, {"steps": steps}, origin)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / provenance.PHASES).write_text("[")
    with pytest.raises(InputError, match="is damaged"):
        provenance.phases(tmp_path / "other")
    noted = [(phase["from_step"], phase["steps"], phase.get("init")) for phase in provenance.phases(tmp_path)]
    assert noted == [(0, 100, origin), (100, 200, None)]
