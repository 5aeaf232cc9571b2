"""``jaxcolor train`` as it is typed: what is wrong in one line, and checkpoints that outlive it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from jaxcolor.cic.calibration import predict_photo
from jaxcolor.cic.predict import CIC, Manifest
from jaxcolor.cic.training import data, loop
from jaxcolor.cic.training.checkpoints import Checkpoints
from jaxcolor.cic.training.config import TrainingConfig
from jaxcolor.cic.training.crops import squeezed
from jaxcolor.cic.training.data import load_photos
from jaxcolor.cic.training.provenance import LIBRARIES, phases
from jaxcolor.cic.training.state import TrainingState, initial_state
from jaxcolor.cic.training.validation import MEASURES
from jaxcolor.cli import train as train_command
from jaxcolor.cli.train import RATES
from tests.conftest import Run
from tests.reference import cic as reference
from tests.test_training import drawn_photo

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WIDTH = 1 / 32


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets is taken back."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL", "JAX_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos in ``photos``."""
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.fromarray(drawn_photo(40, 50 + number, number)).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


def arguments(folder: Path, *more: Any) -> list[Any]:
    places = [folder / "photos", "--run", folder / "run", "-o", folder / "own.safetensors"]
    sizes = ["--width", WIDTH, "--size", 16, "--batch", 2, "--validation-share", 0.4]
    return ["train", *places, *sizes, "--steps", 6, "--validate-every", 2, *more]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[TrainingState], Any]]:
    """The loop without a network: a step counts, and does what is put into this list; a validation tells ones."""
    done: list[Callable[[TrainingState], Any]] = []

    def step(state: TrainingState, *_: Any) -> tuple[TrainingState, jax.Array]:
        state = state.replace(step=state.step + 1)
        for change in done:
            state = change(state) or state
        return state, jnp.ones(2)

    sheet = np.zeros((48, 16, 3), np.uint8)
    monkeypatch.setattr(loop, "make_step", lambda *_: step)
    monkeypatch.setattr(loop, "make_validation", lambda *_: lambda _: (dict.fromkeys(MEASURES, 1.0), sheet))
    monkeypatch.setattr(loop, "empirical_prior", lambda *_: np.full(313, 1 / 313, np.float32))
    # Nobody looks at the weights.
    variables = CIC.init(jax.random.key(0), WIDTH).variables
    monkeypatch.setattr(loop, "make_averaged_variables", lambda *_: lambda _: variables)
    monkeypatch.setattr(train_command, "_measured", lambda net, _: net)
    return done


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run" / "checkpoints").iterdir())


def test_a_run_tells_how_it_goes_and_what_it_was(folder: Path, run: Run, steps: list) -> None:
    """Also with damaged files among the photos."""
    (folder / "photos" / "cut.jpg").write_bytes(b"\xff\xd8\xffjunk")
    Image.new("L", (20, 20)).save(folder / "photos" / "gray.png")
    more = ["--license", "CC0-1.0", "--source", "us", "--repeat", "1.*=3", "--name", "own"]
    code, out, err = run(*arguments(folder, *more))
    assert (code, len(out)) == (0, 2)
    left_out = sorted(line for line in err if line.startswith("left out: "))
    assert [Path(line.split(": ")[1]).name for line in left_out] == ["cut.jpg", "gray.png"]
    lines = [line for line in err if line not in left_out]
    assert [line.split(":")[0] for line in lines] == [f"step {step} of 6" for step in (2, 4, 6)]
    assert "loss 1.000, held-out cross-entropy 1.000 (prior 1.000)" in lines[0]
    assert checkpoints(folder) == ["4", "6"]

    manifest = CIC.load(folder / "own.safetensors").manifest
    told = {name: manifest[name] for name in ("name", "license", "source")}
    assert told == {"name": "own", "license": "CC0-1.0", "source": "us"}
    (phase,) = manifest["training"]["phases"]
    photos = load_photos([folder / "photos"])
    training, validation = photos.split(0.4)
    assert phase["data"] == {
        "training": len(training.names), "held_out": len(validation.names), "digest": photos.digest,
        "validation_share": 0.4, "repeated": {"1.*": 3},
    }  # fmt: skip
    assert sorted(phase["versions"]) == sorted(LIBRARIES)
    assert manifest["training"]["commit"] == phase["commit"]

    # A photo less: the run goes on, and says that it is another.
    (folder / "photos" / "5.png").unlink()
    code, _, err = run(*arguments(folder, *more, "--steps", 8))
    assert code == 0
    (warning,) = [line for line in err if "warning" in line]
    assert f"not the photos that the run in {folder / 'run'} had before" in warning
    assert [phase["from_step"] for phase in phases(folder / "run")] == [0, 6]
    assert not any("warning" in line for line in run(*arguments(folder, *more, "--steps", 10))[2])


def test_options_come_to_the_run(folder: Path, run: Run, steps: list) -> None:
    """And are what its configuration has if they are not given."""

    def recorded(*more: Any) -> dict[str, Any]:
        assert run(*arguments(folder, "--steps", 2, *more))[0] == 0
        return phases(folder / "run")[-1]

    usual, given = TrainingConfig(), recorded()
    names = ("learning_rate", "weight_decay", "warmup", "gradient_norm", "average", "optimiser", "precision", "decay")
    assert {name: given[name] for name in names} == {name: getattr(usual, name) for name in names}
    options = {"learning_rate": 0.5, "weight_decay": 0.25, "warmup": 7, "gradient_norm": 3.0, "average": 0.75}
    options |= {"precision": "bfloat16"}
    more = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert {name: recorded(*more)[name] for name in options} == options
    # Its moments are others, so this is another run.
    code, _, err = run(*arguments(folder, "--optimiser", "adam"))
    assert (code, len(err)) == (1, 1)
    assert "is of another network or optimiser; give the width and --optimiser of that run" in err[0]
    assert RATES["muon"] == (usual.learning_rate, usual.weight_decay)


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--weight-decay", -1, "--weight-decay must be at least 0"),
        ("--gradient-norm", 0, "--gradient-norm must be a positive number"),
        ("--average", 1, "--average must be at least 0 and below 1"),
        ("--warmup", 0, "--warmup must be at least 1"),
        ("--learning-rate", "inf", "--learning-rate must be a positive number"),
        ("--optimiser", "sgd", "invalid choice: 'sgd'"),
        ("--precision", "float16", "invalid choice: 'float16'"),
    ],
)
def test_numbers_out_of_range_are_one_line(folder: Path, run: Run, option: str, value: Any, word: str) -> None:
    code, out, err = run(*arguments(folder, option, value))
    assert (code, out, len(err)) == (2, [], 1)
    assert word in err[0]
    assert not (folder / "run").exists()


def test_folders_that_teach_nothing_are_one_line(tmp_path: Path, run: Run) -> None:
    (tmp_path / "photos").mkdir()
    code, out, err = run(*arguments(tmp_path))
    assert (code, out, len(err)) == (1, [], 1)
    assert "of 0 image files none is readable and in color" in err[0]
    for number in range(3):
        gray = drawn_photo(40, 50, number)[..., :1].repeat(3, -1)
        Image.fromarray(gray).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "text.png").write_text("no picture")
    code, out, err = run(*arguments(tmp_path))
    assert (code, out, len(err)) == (1, [], 1)
    assert "of 4 image files none is readable and in color" in err[0]
    assert not (tmp_path / "run").exists()


def test_photos_that_do_not_fit_are_one_line(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "machine_bytes_available", lambda: 1000)
    code, out, err = run(*arguments(folder))
    assert (code, out, len(err)) == (1, [], 1)
    assert "6 photos need 3.78e-05 GB of memory" in err[0]


def test_memory_that_runs_out_is_told_in_terms_of_training(folder: Path, run: Run, steps: list) -> None:
    def full(state: TrainingState) -> None:
        if state.step == 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    steps.append(full)
    code, _, err = run(*arguments(folder))
    assert code == 1
    assert "out of memory; give a smaller --batch, --size or --width" in err[-1]
    assert "candidates" not in err[-1]
    assert checkpoints(folder) == ["2"]


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(folder: Path, run: Run, steps: list) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def fill(state: TrainingState) -> None:
            if state.step == 3:
                patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))

        steps.append(fill)
        code, _, err = run(*arguments(folder))
        assert code == 1
        assert "0.0 MB free; the checkpoint of step 2 is intact; make room, and the same command goes on" in err[-1]
        assert checkpoints(folder) == ["2"]
    steps.clear()
    assert run(*arguments(folder))[0] == 0
    assert checkpoints(folder) == ["4", "6"]


def test_a_checkpoint_of_another_width_is_one_line_and_stays(folder: Path, run: Run, steps: list) -> None:
    other = TrainingConfig(width=2 * WIDTH)
    state = jax.eval_shape(lambda: initial_state(other, jnp.full(313, 1 / 313)))
    with Checkpoints(folder / "run" / "checkpoints") as kept:
        kept.save(9, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = run(*arguments(folder))
    assert (code, len(err)) == (1, 1)
    assert "the checkpoint of step 9" in err[0]
    assert "is of another network or optimiser; give the width" in err[0]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_finished_network_tells_what_was_measured_on_photos_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured again with its predicted probabilities, in float64."""
    side, palette = 32, reference.bins()
    monkeypatch.setattr(train_command, "RESOLUTION", side)
    prior = np.random.default_rng(0).dirichlet(np.full(313, 2.0))
    manifest = Manifest({"name": "own", "prior": prior.tolist(), "training": {"uniform_share": 0.5}})
    net = CIC(CIC.init(jax.random.key(0), WIDTH).variables, width=WIDTH, manifest=manifest)
    photos = [drawn_photo(40, 60, seed) for seed in range(3)]
    got = train_command._measured(net, photos)
    measured = []
    for photo in photos:
        _, distribution, cells = predict_photo(net, squeezed(photo, side))
        p = np.float64(distribution.probabilities).reshape(-1, 313)
        colors = np.float64(cells).reshape(-1, 2)
        z = np.stack([reference.soft_encode(color, palette, 5, 5.0) for color in colors])
        squares = ((p @ palette - colors) ** 2).mean(), (colors**2).mean()
        measured.append([-(z * np.log(p)).sum(1).mean(), -(z * np.log(prior)).sum(1).mean(), *squares])
    entropy, prior_only, square, gray = np.mean(measured, 0)
    metrics = got.manifest["metrics"]
    assert (metrics["on"], metrics["photos"]) == ("photos held out, squeezed to 32 pixels", 3)
    want = dict(zip(MEASURES, (entropy, prior_only, np.sqrt(square), np.sqrt(gray)), strict=True))
    assert {name: metrics[name] for name in MEASURES} == pytest.approx(want, rel=1e-3)
    assert got.manifest["calibration"]["photos"] == 3
    assert got.manifest["prior"] == manifest["prior"]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_bit(folder: Path) -> None:
    def start(name: str) -> subprocess.Popen:
        command = [str(word) for word in arguments(folder, "--steps", 40, "--decay", 10, "--validate-every", 4)]
        command[3], command[5] = str(folder / name), str(folder / f"{name}.safetensors")
        return subprocess.Popen([sys.executable, "-m", "jaxcolor", *command], stderr=subprocess.PIPE, text=True)

    def finished(process: subprocess.Popen) -> list[str]:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        return [line for line in err.splitlines() if line.startswith("step ")]

    through = finished(start("through"))
    killed = start("killed")
    while not any(path.name.isdigit() for path in (folder / "killed" / "checkpoints").glob("*")):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "killed.safetensors").exists()
    resumed = finished(start("killed"))
    assert 0 < len(resumed) < len(through) == 10
    one, other = (load_file(folder / f"{name}.safetensors") for name in ("through", "killed"))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    logs = [(folder / name / "log.csv").read_text().splitlines() for name in ("through", "killed")]
    assert [line.split(",")[0] for line in logs[0]] == [line.split(",")[0] for line in logs[1]]
    assert json.loads((folder / "killed" / "phases.json").read_text())[-1]["from_step"] == 0
