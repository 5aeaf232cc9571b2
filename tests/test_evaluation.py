"""``jaxcolor evaluate`` and its Python API, measured again with scikit-image and NumPy."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.special import entr, log_softmax
from skimage.color import deltaE_ciede2000, rgb2hsv, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxcolor import evaluation as evaluation_module
from jaxcolor.cic.calibration import predict_photo
from jaxcolor.cic.predict import CIC, Manifest
from jaxcolor.errors import InputError
from jaxcolor.evaluation import _share_below, evaluate
from tests.conftest import Run
from tests.reference import cic as reference

SIDE = 16


def drawn_photos(count: int) -> list[np.ndarray]:
    row, column = np.mgrid[0:SIDE, 0:SIDE] / 5
    waves = [np.stack([np.sin(column + i), np.cos(row + i), np.sin(row * column / 3 + i)], -1) for i in range(count)]
    return [(127 + 100 * wave).astype(np.uint8) for wave in waves]


@pytest.fixture(scope="module")
def net() -> CIC:
    """Random weights that hold the prior of their training, and the temperature of the released network."""
    prior = np.random.default_rng(0).dirichlet(np.full(313, 2.0))
    manifest = Manifest({"name": "random", "prior": prior.tolist(), "training": {"uniform_share": 0.5}})
    drawn = CIC.init(jax.random.key(0), width=1 / 16)
    return CIC(drawn.variables, logit_scale=2.606, width=1 / 16, manifest=manifest)


def area_under_curve(errors: np.ndarray, weights: np.ndarray) -> float:
    shares = [np.average(errors <= t, weights=weights) for t in range(151)]
    return 100 * float(np.trapezoid(shares)) / 150


def test_all_measures_are_those_of_other_programs(net: CIC) -> None:
    photos, shown = drawn_photos(3), []
    result = evaluate(net, photos, watch=shown.append)
    prior = np.array(net.manifest["prior"])
    assert list(result.rows) == list(shown[0]) == [
        "gray", "dataset mean", "mean", "fitted mean", "annealed mean", "truth",
    ]  # fmt: skip
    truths = [photo / 255 for photo in photos]
    true_lab = np.stack([rgb2lab(truth) for truth in truths])
    true_ab = true_lab[..., 1:].reshape(-1, 2)
    nearest = ((true_ab[:, None] - reference.bins()) ** 2).sum(-1).argmin(1)
    for name, row in result.rows.items():
        pictures = [np.asarray(each[name], np.float64) for each in shown]
        lab = np.stack([rgb2lab(picture) for picture in pictures])
        saturation = np.mean([rgb2hsv(picture)[..., 1].mean() for picture in pictures])
        np.testing.assert_allclose(row["saturation"], saturation, atol=1e-4)
        if name == "truth":
            assert row["ab_rmse"] is row["psnr"] is row["colorfulness_difference"] is None
            continue
        errors = np.linalg.norm(lab[..., 1:].reshape(-1, 2) - true_ab, axis=1)
        want = {
            "auc": area_under_curve(errors, np.ones(len(errors))),
            "auc_rebalanced": area_under_curve(errors, 1 / prior[nearest]),
            "ab_rmse": np.sqrt((errors**2).mean() / 2),
            "psnr": np.mean([peak_signal_noise_ratio(*pair) for pair in zip(truths, pictures, strict=True)]),
            "delta_e_2000": deltaE_ciede2000(lab, true_lab).mean(),
            "ssim": np.mean([gaussian_ssim(*pair) for pair in zip(truths, pictures, strict=True)]),
        }
        np.testing.assert_allclose([row[key] for key in want], list(want.values()), rtol=1e-3, err_msg=name)
    assert result.rows["gray"]["colorfulness"] < 0.1
    # Gray keeps the lightness, and the mean color is that of the cells, moved into the gamut.
    np.testing.assert_allclose(rgb2lab(shown[0]["gray"])[..., 0], true_lab[0, ..., 0], atol=0.1)
    assert result.rows["dataset mean"]["ab_rmse"] < result.rows["gray"]["ab_rmse"]


def gaussian_ssim(first: np.ndarray, second: np.ndarray) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(first, second, channel_axis=-1, data_range=1, **options))


def test_likelihoods_are_those_of_the_predicted_probabilities(net: CIC) -> None:
    photos = drawn_photos(3)
    got = evaluate(net, photos).distribution
    prior, palette = np.array(net.manifest["prior"]), reference.bins()
    entropies, likelihoods, fitted, truths = [], [], [], []
    for photo in photos:
        _, distribution, _ = predict_photo(net, photo)
        log_p = np.log(np.asarray(distribution.probabilities, np.float64)).reshape(-1, 313)
        cells = rgb2lab(photo)[..., 1:].reshape(SIDE // 4, 4, SIDE // 4, 4, 2).mean((1, 3)).reshape(-1, 2)
        z = np.stack([reference.soft_encode(color, palette, 5, 5.0) for color in cells])
        cool = log_softmax(log_p / got["temperature_fitted"], axis=1)
        truths.append(z.mean(0))
        entropies.append([-(z * each).sum(1).mean() for each in (log_p, np.log(prior), cool)])
        true = z.argmax(1)
        likelihoods.append([-log_p[np.arange(len(true)), true].mean(), -np.log(prior[true]).mean()])
        fitted.append(-cool[np.arange(len(true)), true].mean())
    names = ("cross_entropy", "cross_entropy_prior", "cross_entropy_fitted")
    np.testing.assert_allclose([got[name] for name in names], np.mean(entropies, 0), rtol=1e-4)
    names = ("negative_log_likelihood", "negative_log_likelihood_prior")
    np.testing.assert_allclose([got[name] for name in names], np.mean(likelihoods, 0), rtol=1e-4)
    np.testing.assert_allclose(got["negative_log_likelihood_fitted"], np.mean(fitted), rtol=1e-4)
    np.testing.assert_allclose(got["logit_scale_fitted"] * got["temperature_fitted"], 2.606, rtol=1e-5)
    # Of all distributions that are the same everywhere, the truths' own mean has the least cross-entropy with them.
    best = np.mean(truths, 0)
    least = entr(best).sum()
    np.testing.assert_allclose(got["cross_entropy_prior_of_photos"], least, rtol=1e-4)
    own, prior_only = np.mean(entropies, 0)[:2]
    np.testing.assert_allclose(got["share_below_prior"], 1 - own / prior_only, rtol=1e-3)


def test_the_standard_error_of_the_share_is_that_of_photos_drawn_again() -> None:
    rng = np.random.default_rng(0)
    baselines = rng.uniform(2, 4, 300)
    values = baselines * rng.uniform(0.6, 1.1, 300)
    share = _share_below(values, baselines)
    again = rng.integers(0, 300, (20_000, 300))
    drawn = 1 - values[again].mean(1) / baselines[again].mean(1)
    np.testing.assert_allclose(share["share_below_prior"], 1 - values.sum() / baselines.sum())
    np.testing.assert_allclose(share["share_below_prior_error"], drawn.std(), rtol=0.03)
    assert "share_below_prior_error" not in _share_below(values[:1], baselines[:1])


def test_the_calibration_that_the_weights_bring_is_measured_and_not_fitted_again(net: CIC) -> None:
    photos = drawn_photos(3)
    told, as_told = (replace(net.with_calibration(1.3, photos=9), logit_scale=scale) for scale in (2.606, 1.3))
    got, want = (evaluate(each, photos) for each in (told, as_told))
    assert list(got.rows)[2:6] == ["mean", "calibrated mean", "fitted mean", "annealed mean"]
    assert list(got.reliability) == ["as given", "calibrated", "fitted"]
    # It is what the network gives at that scale.
    for key in ("cross_entropy", "negative_log_likelihood", "calibration_error", "logit_scale"):
        np.testing.assert_allclose(got.distribution[f"{key}_calibrated"], want.distribution[key], rtol=1e-4)
    assert got.distribution["logit_scale_fitted"] != pytest.approx(1.3, rel=0.1)
    np.testing.assert_allclose(
        [got.rows["calibrated mean"][key] for key in ("ab_rmse", "psnr")],
        [want.rows["mean"][key] for key in ("ab_rmse", "psnr")],
        rtol=1e-4,
    )
    table = got.table()
    assert "logit scale 2.606, calibrated 1.3, fitted to these photos" in table
    assert f"calibrated {got.distribution['cross_entropy_calibrated']:.3f}, fitted to these photos" in table
    assert f"(standard error over the photos {100 * got.distribution['share_below_prior_error']:.1f})" in table


def test_without_a_stored_prior_it_is_that_of_the_photos(net: CIC) -> None:
    photos = drawn_photos(2)
    plain = evaluate(CIC(net.variables, width=net.width), photos)
    assert (plain.prior_source, evaluate(net, photos).prior_source) == ("photos", "weights")
    assert "prior of these photos, as the weights hold none" in plain.table()
    # Laid out on its own photos it fits them better than any prior of other photos.
    assert plain.distribution["cross_entropy_prior"] < evaluate(net, photos).distribution["cross_entropy_prior"]


@pytest.mark.parametrize("shapes", [[], [(16, 16, 3), (24, 24, 3)], [(20, 20, 3)], [(8, 8, 3)], [(16, 24, 3)]])
def test_photos_of_other_shapes_are_refused(net: CIC, shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(InputError, match="evaluation needs photos"):
        evaluate(net, [np.zeros(shape, np.uint8) for shape in shapes])


# The command


@pytest.fixture
def evaluated(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``jaxcolor evaluate`` on small squares."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL", "JAX_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return lambda *arguments: run("evaluate", *arguments, "--side", SIDE)


@pytest.fixture
def folder(tmp_path: Path, net: CIC) -> Path:
    """Color photos ``photos/``, and weights ``net.safetensors`` in half precision."""
    (tmp_path / "photos").mkdir()
    for number, photo in enumerate(drawn_photos(5)):
        Image.fromarray(photo).resize((40, 30)).save(tmp_path / "photos" / f"{number}.png")
    net.save(tmp_path / "net.safetensors", dtype="float16")
    return tmp_path


def test_command_writes_what_is_asked_for(folder: Path, evaluated: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read_out(gray: Any, distribution: Any, **settings: Any) -> np.ndarray:
        asked.append(settings["method"])
        vivid = settings["method"] == "coupled-tv" and len(asked) > 4  # not of the first photo
        return np.full((SIDE, SIDE, 3), [0.6, 0.4, 0.2] if vivid else [0.5, 0.4, 0.3], np.float32)

    monkeypatch.setattr(evaluation_module, "read_out", read_out)
    weights = ["--weights", folder / "net.safetensors"]
    targets = ["--json", folder / "e.json", "--sheet", folder / "s.png", "--calibrate", folder / "c.safetensors"]
    options = [*weights, *targets, "--plots", folder / "plots", "--coupled-tv", "--most", 3]
    code, out, err = evaluated(folder / "photos", *options)
    assert (code, err) == (0, [])
    assert out[0].startswith("3 photos")
    assert asked == ["cic", "cic", "cic", "coupled-tv"] * 3
    report = json.loads((folder / "e.json").read_text())
    assert report["photos"] == 3
    assert report["more_saturated"] == 2
    assert "more saturated than the annealed mean on 2 photos" in "\n".join(out)
    assert sum(report["reliability"]["as_given"]["count"]) == 3 * (SIDE // 4) ** 2
    assert [line.split("  ")[0] for line in out[1:8]] == list(report["rows"])
    assert {path.name for path in (folder / "plots").iterdir()} == {"reliability.png", "measures.png"}
    for picture in (folder / "plots" / "reliability.png", folder / "plots" / "measures.png", folder / "s.png"):
        with Image.open(picture) as image:
            assert len(image.convert("RGB").getcolors(2**20) or []) > 3
    calibrated = CIC.load(folder / "c.safetensors")
    assert calibrated.logit_scale == pytest.approx(report["distribution"]["logit_scale_fitted"])
    assert calibrated.manifest["calibration"]["photos"] == 3
    # Half precision stays half precision.
    assert (folder / "c.safetensors").stat().st_size < 1.1 * (folder / "net.safetensors").stat().st_size
    code, out, err = evaluated(folder / "photos", *weights, *targets)
    assert (code, out, len(err)) == (1, [], 1)
    assert "give --force to replace it" in err[0]
    code, out, err = evaluated(folder / "photos", *weights, "--plots", folder / "plots")
    assert (code, out, len(err)) == (1, [], 1)
    assert "reliability.png exists; give --force" in err[0]


def test_what_was_measured_is_not_lost_with_a_picture(
    folder: Path, evaluated: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any, **__: Any) -> None:
        raise InputError("no room")

    monkeypatch.setattr("jaxcolor.images.write_image", no_room)
    targets = ["--json", folder / "e.json", "--sheet", folder / "s.png", "--calibrate", folder / "c.safetensors"]
    code, out, err = evaluated(folder / "photos", "--weights", folder / "net.safetensors", *targets)
    assert (code, err) == (1, ["jaxcolor: error: no room"])
    assert out[0].startswith("5 photos")
    assert (folder / "e.json").exists()
    assert (folder / "c.safetensors").exists()


def test_what_cannot_be_evaluated_is_one_line(folder: Path, evaluated: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_module, "evaluate", lambda *_: pytest.fail("nothing to evaluate"))
    (folder / "empty").mkdir()
    (folder / "gray").mkdir()
    Image.new("L", (20, 20)).save(folder / "gray" / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for arguments, code, word in [
        ([folder / "empty"], 1, "of 0 image files"),
        ([folder / "missing"], 1, "is not a folder"),
        ([folder / "photos", "--most", 0], 2, "--most"),
        ([folder / "photos", "--json", "a.txt"], 2, ".json"),
        ([folder / "photos", "--calibrate", "a.pth"], 2, ".safetensors"),
        ([folder / "photos", "--json", folder / "no" / "e.json"], 1, "existing, writable folder"),
        ([folder / "photos", "--weights", "nothing"], 1, "no weights 'nothing'"),
        ([folder / "photos", "--plots", folder / "plots"], 1, "pip install 'jaxcolor[plot]'"),
    ]:
        got, out, err = evaluated(*arguments)
        assert (got, out, len(err)) == (code, [], 1), arguments
        assert word in err[0]
    got, out, err = evaluated(folder / "gray")
    assert (got, out) == (1, [])
    assert "none is readable and in color" in err[-1]
    assert not (folder / "plots").exists()


def test_broken_files_are_named_and_the_rest_is_measured(folder: Path, evaluated: Run) -> None:
    Image.new("L", (20, 20)).save(folder / "photos" / "gray.png")
    options = [folder / "photos", "--weights", folder / "net.safetensors"]
    code, out, err = evaluated(*options)
    assert (code, [line.split(":")[0] for line in err]) == (0, ["left out"])
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xffjunk")
    code, out, err = evaluated(*options)
    assert (code, len(err)) == (1, 2)
    assert any("broken.jpg" in line for line in err)
    assert out[0].startswith("5 photos")
