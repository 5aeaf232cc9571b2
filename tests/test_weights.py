"""Weights on disk: what is written is what is read, and nothing else is."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from jaxcolor.cic import weights
from jaxcolor.cic.weights import expected_shapes, list_weights, load_weights, resolve, save_weights
from jaxcolor.cli import weights as command
from jaxcolor.color.palette import ab_bins
from jaxcolor.errors import InputError

WIDTH = 1 / 32


def random_variables(dtype: str = "float32") -> dict:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(dtype) for name, shape in expected_shapes(WIDTH).items()}
    arrays["params/model_out"] = (ab_bins() / 110).astype(dtype)
    return unflatten_dict(arrays, sep="/")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    save_weights(tmp_path / "good.safetensors", random_variables(), {"width": WIDTH, "license": "CC0-1.0"})
    return tmp_path / "good.safetensors"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JAXCOLOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip(tmp_path: Path, dtype: str) -> None:
    variables = random_variables(dtype)
    path = tmp_path / "w.safetensors"
    manifest = save_weights(path, variables, {"width": WIDTH, "logit_scale": 1.5, "metrics": {"auc": 0.9}})
    read, read_manifest = load_weights(path)
    assert read_manifest == manifest
    assert manifest["logit_scale"] == 1.5
    assert manifest["parameters"] == sum(a.size for a in flatten_dict(variables["params"]).values())
    for name, array in flatten_dict(read, sep="/").items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, flatten_dict(variables, sep="/")[name])
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_average(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, variables = tmp_path / "other.safetensors", random_variables()
    rng = np.random.default_rng(1)
    for name, array in flatten_dict(variables["params"]).items():
        if name != ("model_out",):
            array += rng.normal(size=array.shape).astype(np.float32)
    save_weights(other, variables, {"width": WIDTH, "training": {"step": 7}, "calibration": {"logit_scale": 2}})
    output = tmp_path / "mean.safetensors"
    arguments = argparse.Namespace(files=[good, other], output=output, force=False)
    assert command.run_average(arguments) == 0
    assert str(output) in capsys.readouterr().out
    read, manifest = load_weights(output)
    assert [part["step"] for part in manifest["averaged"]] == [None, 7]
    assert manifest["training"] == {"step": 7}
    assert "calibration" not in manifest
    parts = [flatten_dict(load_weights(path)[0]) for path in (good, other)]
    for name, array in flatten_dict(read).items():
        np.testing.assert_allclose(array, (parts[0][name] + parts[1][name]) / 2, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="--force"):
        command.run_average(arguments)
    save_weights(other, variables, {"width": WIDTH, "logit_scale": 2.0})
    for files, message in (([good], "at least two"), ([good, other], "logit scales")):
        with pytest.raises(InputError, match=message):
            command.run_average(argparse.Namespace(files=files, output=output, force=True))


def test_full_width_has_the_released_number_of_parameters() -> None:
    shapes = expected_shapes(1.0)
    assert sum(np.prod(s) for name, s in shapes.items() if name.startswith("params/")) == 32_236_011


def rewrite(path: Path, change_manifest: dict | None = None, **arrays: np.ndarray | None) -> None:
    """Write the file again with other arrays or manifest entries and, as an honest writer would, a fresh checksum."""
    tensors = {**load_file(path), **arrays}
    tensors = {name: array for name, array in tensors.items() if array is not None}
    manifest = {**weights.read_manifest(path), "checksum": weights._checksum(tensors), **(change_manifest or {})}
    save_file(tensors, path, metadata={"manifest": json.dumps(manifest)})


@pytest.mark.parametrize(
    ("manifest", "arrays", "expected"),
    [
        ({"architecture": "siggraph17"}, {}, "architecture 'siggraph17'"),
        ({"palette": "k-means"}, {}, "palette 'k-means'"),
        ({"width": 1 / 8}, {}, "wrong shape: .*params/model1_0/kernel"),
        ({"width": 1e12}, {}, "width"),
        ({"width": "wide"}, {}, "width must be a positive number, got 'wide'"),
        ({"logit_scale": -1}, {}, "logit_scale must be a positive number"),
        ({"checksum": "0" * 64}, {}, "checksum"),
        ({}, {"params/model1_0/bias": None}, "missing: params/model1_0/bias"),
        ({}, {"params/more": np.ones(2)}, "F64"),
        ({}, {"params/more": np.ones(2, np.float32)}, "unexpected: params/more"),
        ({}, {"params/model1_0/bias": np.full(2, np.nan, np.float32)}, "not finite: params/model1_0/bias"),
        ({}, {"params/model_out": np.ones((313, 2), np.float32)}, "another palette"),
    ],
)
def test_files_that_do_not_fit_are_refused(good: Path, manifest: dict, arrays: dict, expected: str) -> None:
    rewrite(good, manifest, **arrays)
    with pytest.raises(InputError, match=expected) as caught:
        load_weights(good)
    assert "\n" not in str(caught.value)


def test_all_mismatches_come_in_one_error(good: Path) -> None:
    rewrite(
        good,
        **{
            "params/model1_0/bias": None,
            "params/extra": np.ones(1, np.float32),
            "params/model2_0/bias": np.ones(5, np.float32),
        },
    )
    with pytest.raises(
        InputError,
        match=r"missing: params/model1_0/bias; unexpected: params/extra; wrong shape: params/model2_0/bias \(5,\)",
    ):
        load_weights(good)


def test_damaged_files_are_refused(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    flipped = bytearray(data)
    flipped[-40] ^= 1
    damaged = {
        "truncated": data[: len(data) // 2],
        "header": data[:100],
        "empty": b"",
        "text": b"hello, this is no weights file",
        "flipped": bytes(flipped),
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged") as caught:
            load_weights(path)
        assert "\n" not in str(caught.value)
    for path in (tmp_path, tmp_path / "absent.safetensors"):
        with pytest.raises(InputError, match="does not exist or is not a file"):
            load_weights(path)
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="no jaxcolor manifest"):
        load_weights(tmp_path / "foreign.safetensors")


def test_saving_refuses_what_loading_would_and_keeps_the_old_file(good: Path, tmp_path: Path) -> None:
    before = good.read_bytes()
    bad = random_variables()
    bad["params"]["model1_0"]["bias"][0] = np.inf
    for variables, manifest in ((bad, {"width": WIDTH}), (random_variables(), {"width": 1}), (bad, {})):
        with pytest.raises(InputError):
            save_weights(good, variables, manifest)
    assert good.read_bytes() == before
    with pytest.raises(InputError, match="cannot write"):
        save_weights(tmp_path / "no folder" / "w.safetensors", random_variables(), {"width": WIDTH})
    assert [p.name for p in tmp_path.iterdir()] == ["good.safetensors"]


def test_names(good: Path, cache: Path) -> None:
    assert resolve() == resolve("default") == resolve("embedded")
    assert resolve("embedded").name == "embedded.safetensors"
    assert resolve(good) == resolve(str(good)) == good
    with pytest.raises(InputError, match="jaxcolor weights fetch zhang2016"):
        resolve("zhang2016")
    with pytest.raises(InputError, match="expected one of embedded, zhang2016, or the path"):
        resolve("zhang2017")
    with pytest.raises(InputError, match=r"jaxcolor weights convert net\.pth"):
        resolve("net.pth")


def test_list(good: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed() -> str:
        parser = argparse.ArgumentParser()
        command.add_parser(parser.add_subparsers())
        args = parser.parse_args(["weights", "list"])
        assert args.run(args) == 0
        return capsys.readouterr().out

    names = [info.name for info in list_weights()]
    assert names == ["embedded", "zhang2016"]
    assert list_weights()[1].manifest is None
    assert "zhang2016   not on this machine" in printed()
    target = cache / "weights" / "zhang2016.safetensors"
    target.parent.mkdir(parents=True)
    target.write_bytes(good.read_bytes())
    assert list_weights()[1].manifest["license"] == "CC0-1.0"
    assert resolve("zhang2016") == target
    assert "license: CC0-1.0" in printed()
    target.write_bytes(b"damaged")
    assert list_weights()[1].problem is not None
    assert "zhang2016   unusable: " in printed()


@pytest.mark.parametrize(
    ("told", "word"),
    [({"prior": [0.5, 0.5]}, "prior must be 313 numbers"), ({"training": {"uniform_share": "x"}}, "uniform_share")],
)
def test_frequencies_of_colors_that_are_none(tmp_path: Path, told: dict[str, object], word: str) -> None:
    save_weights(tmp_path / "odd.safetensors", random_variables(), {"width": WIDTH, **told})
    with pytest.raises(InputError, match=word):
        load_weights(tmp_path / "odd.safetensors")
