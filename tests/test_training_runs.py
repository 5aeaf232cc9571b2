"""What surrounds the training step: checkpoints, logs, several devices, provenance."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from jaxcolor.cic.training import provenance
from jaxcolor.cic.training.checkpoints import Checkpoints
from jaxcolor.cic.training.log import TrainingLog, append_row
from jaxcolor.cic.training.loop import placements, sample_sheet
from jaxcolor.errors import InputError


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_checkpoints_of_another_network_or_damaged_ones_are_one_line_and_stay(tmp_path: Path) -> None:
    state = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(4)}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest is None
        assert checkpoints.restored(state) is state
        for step in (1, 2, 3):
            checkpoints.save(step, {"a": step * state["a"], "b": state["b"]})
        checkpoints.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
    with Checkpoints(tmp_path) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restored(state)["a"], 3 * state["a"])
    before = files(tmp_path)
    for shapes in ({"a": (3, 3), "b": (4,)}, {"a": (2, 3), "c": (4,)}):
        other = {name: jnp.ones(shape) for name, shape in shapes.items()}
        with (
            pytest.raises(InputError, match=r"of step 3 .* is of another network; give the width"),
            Checkpoints(tmp_path) as checkpoints,
        ):
            checkpoints.restored(other)
    assert files(tmp_path) == before
    for path in (tmp_path / "3").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:20])
    assert "is damaged; delete it" in refusal(tmp_path, {"a": [2, 3], "b": [4]})
    for path in (tmp_path / "3").rglob("_METADATA"):
        path.unlink()
    assert "is damaged; delete it" in refusal(tmp_path, {"a": [2, 3], "b": [4]})


def refusal(folder: Path, shapes: dict[str, list[int]]) -> str:
    """What is said when the last checkpoint is asked for as a tree of arrays of these shapes.

    In a process of its own: when Orbax fails it leaves coroutines behind, whose errors appear in other tests.
    """
    script = """
import json, sys
import jax.numpy as jnp
from pathlib import Path
from jaxcolor.cic.training.checkpoints import Checkpoints
from jaxcolor.errors import InputError

with Checkpoints(Path(sys.argv[1])) as checkpoints:
    try:
        checkpoints.restored({name: jnp.ones(shape) for name, shape in json.loads(sys.argv[2]).items()})
    except InputError as error:
        print(error)
"""
    command = [sys.executable, "-c", script, str(folder), json.dumps(shapes)]
    (line,) = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return line


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
            with pytest.raises(InputError, match=r": 0.2 MB needed, 0.1 MB free; that of step 1 is intact; make room"):
                checkpoints.save(2, state)
        usual = resource.getrlimit(resource.RLIMIT_FSIZE)
        # No file may grow beyond this: the write itself fails, as with a quota.
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, usual[1]))
        try:
            checkpoints.save(2, state)
            with pytest.raises(InputError, match=r"cannot write .*: File too large; that of step 1 is intact") as error:
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
                with pytest.raises(InputError, match="that of step 1 is intact"):
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
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row.values()) for row in rows] == [
        ["1", "0.5", ""],
        ["2", "0.333333", "0.25"],
        ["3", "", "0.125"],
        ["4", "", ""],
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
import jax, jax.numpy as jnp, numpy as np
from jaxcolor.cic.training.loop import TrainingConfig, initial_state, make_step, placements

config = TrainingConfig(width=1 / 32, size=16, batch=4, steps=9, warmup=1, decay=1)
prior = jnp.asarray(np.full(313, 1 / 313, np.float32))
rgb = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), np.uint8)
results = []
for devices in (1, 2):
    replicated, divided = placements(config.batch, devices)
    state = jax.device_put(initial_state(config, prior), replicated)
    step = make_step(config, jnp.asarray(np.linspace(0.5, 1.5, 313, dtype=np.float32)), replicated)
    state, losses = step(state, jax.device_put(rgb, divided))
    assert all(len(leaf.sharding.device_set) == devices for leaf in jax.tree.leaves(state))
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state))
    results.append(jax.tree.map(np.asarray, (state, losses)))
    state, _ = step(state, jax.device_put(rgb, divided))  # what comes out goes in again
# There are three.
for batch, count in ((1, 1), (2, 2), (3, 3), (4, 2), (5, 1)):
    assert len(placements(batch)[0].device_set) == count
(one, losses), (two, same) = results
np.testing.assert_allclose(same, losses, rtol=1e-5)
# The optimiser holds the gradient, which rounding changes little; the statistics are those of the whole batch.
pairs = zip(*(jax.tree.leaves((state.optimiser, state.batch_stats)) for state in (two, one)), strict=True)
largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(one.optimiser))
for got, want in pairs:
    # The bias of a convolution that is normalised has the gradient 0, and here what rounding leaves of it.
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * max(np.abs(want).max(), 1e-3 * largest))
# A first step of Adam is as long as its learning rate in the sign of the gradient: where that is 0 up to rounding, as
# for those biases, the parameters may differ, and by about two steps at most.
offs = []
for path, want in jax.tree_util.tree_leaves_with_path(one.params):
    got = two.params
    for key in path:
        got = got[key.key]
    off = np.abs(got - want) / (0.05 * config.learning_rate)
    assert off.max() < 2.5, (path, off.max())
    if path[0].key + "_norm" not in one.params or path[-1].key != "bias":
        offs.append(off.ravel())
assert (np.concatenate(offs) > 0.2).mean() < 0.01, (np.concatenate(offs) > 0.2).mean()
"""


def test_two_devices_give_the_parameters_of_one() -> None:
    # Nearly all of the time is compilation, so it does not optimise.
    flags = "--xla_force_host_platform_device_count=3 --xla_backend_optimization_level=0"
    flags += " --xla_llvm_disable_expensive_passes=true"
    # A simulated device waits for the other inside a thread of the pool that both share: two threads are too few.
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PJRT_NPROC": "16"}
    command = [sys.executable, "-c", TWO_DEVICES]
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
