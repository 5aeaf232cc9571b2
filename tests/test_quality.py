"""The halo benchmark and its companions run, and the parts that are their own do what they say."""

import json
from itertools import pairwise

import jax
import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000

from benchmarks import parameters, quality, refine, upsamplers
from benchmarks.__main__ import main
from benchmarks.truth import SETTINGS, distribution_of, halves, photo, two_regions
from jaxcolor.color.distribution import ColorDistribution

pytestmark = pytest.mark.usefixtures("compiled_quickly")

FAST = ["gray", "bicubic", "fast bilateral solver"]


@pytest.fixture
def folder(tmp_path):
    _, chroma, _ = two_regions(48)
    rgb = np.stack([chroma[..., 0] + 100, chroma[..., 1] + 90, 120 + 0 * chroma[..., 0]], -1)
    for name in ("a.png", "b.png"):
        Image.fromarray(rgb.astype(np.uint8)).save(tmp_path / name)
    return tmp_path


def test_tables_json_and_sheets(folder, capsys):
    sizes = ["--size", "48", "--grid", "6", "--photos", "1", "--setting", "degraded"]
    files = ["--json", str(folder / "all.json"), "--sheets", str(folder / "sheets")]
    main(["quality", str(folder), *sizes, *files, "--methods", *FAST])
    printed = capsys.readouterr().out
    assert "degraded, 1 photos" in printed
    rows = json.loads((folder / "all.json").read_text())["degraded"]
    assert list(rows) == ["truth", *FAST]
    assert rows["truth"][0]["delta_e"] < 0.01 < rows["bicubic"][0]["delta_e"] < rows["gray"][0]["delta_e"]
    assert rows["gray"][0]["saturation"] < 0.01
    assert (folder / "sheets" / "degraded-a.png").exists()


def test_figures_show_every_method_but_gray_and_the_best_peer(folder):
    sizes = ["--size", "48", "--grid", "6", "--setting", "degraded"]
    methods = ["gray", "bicubic", "fast bilateral solver", "coupled-tv"]
    main(["quality", str(folder), *sizes, "--methods", *methods, "--plot", str(folder / "plots")])
    names = ("quality-degraded.png", "quality-per-photo.png")
    assert {path.name for path in (folder / "plots").iterdir()} == set(names)
    for name in names:
        with Image.open(folder / "plots" / name) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_the_best_peer_is_that_of_the_measure():
    photos = {"bicubic": (1.0, 4.0), "joint bilateral": (2.0, 3.0), "coupled-tv": (0.5, 0.5), "gray": (0.0, 0.0)}
    rows = {
        name: [dict.fromkeys(quality.COLUMNS, 0.0) | {"band_delta_e": a, "delta_e": b}]
        for name, (a, b) in photos.items()
    }
    assert quality.best_peer(rows, "band_delta_e") == "bicubic"
    assert quality.best_peer(rows, "delta_e") == "joint bilateral"
    assert quality.best_peer(rows | {"coupled-tv": []}, "delta_e") is None


def test_refining_is_measured(folder, capsys):
    main(["refine", str(folder), "--photos", "1", "--methods", "refine", "--json", str(folder / "all.json")])
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "1 photos"
    rows = json.loads((folder / "all.json").read_text())["a.png"]
    assert list(rows) == list(refine.DAMAGES)
    assert rows["none"]["damaged"][1] < 0.01
    assert rows["none"]["refine"][1] < 0.3
    for name, row in rows.items():
        assert name == "none" or row["refine"][1] < 1.02 * row["damaged"][1], name
    assert rows["shifted 6"]["refine"][1] < 0.2 * rows["shifted 6"]["damaged"][1]
    # The last line is the mean of the changes, and their worst.
    changes = [100 * np.subtract(np.divide(r["refine"], r["damaged"]), 1) for n, r in rows.items() if n != "none"]
    band, mean, worst = np.mean(changes, 0)[0], np.mean(changes, 0)[1], np.max(changes, 0)[1]
    assert printed[-1].split(maxsplit=3)[3] == f"{band:+.1f} /{mean:+6.1f} ({worst:+.1f})"


def test_every_row_is_a_number_and_the_means_leave_out_what_is_unknown():
    rows = {"x": [dict.fromkeys(quality.COLUMNS, 1.0), {key: float("nan") for key in quality.COLUMNS}]}
    assert all(value == 1 for value in quality.means(rows["x"]).values())
    assert "1.000" in quality.table("title", rows)


def test_a_comparison_gives_differences_with_their_errors_and_counts_photos():
    theirs = [{"away_from_edges": 0.2, "alignment": 0.8, "edge_width": 3.0, "saturation": 0.2}] * 2
    ours = [dict(theirs[0], away_from_edges=0.1, alignment=0.88), dict(theirs[0], away_from_edges=0.22, edge_width=6.0)]
    # Of two differences d and e the mean is (d + e) / 2, and its standard error |d - e| / 2.
    assert quality.comparison("a", "b", {"a": ours, "b": theirs}, theirs[0]) == (
        "a against b (better on how many photos): away -20.0 ± 30.0 % (1 of 2), align. +5.0 ± 5.0 % (1 of 2), "
        "width +50.0 ± 50.0 % (0 of 2), saturat. +0.0 ± 0.0 % (0 of 2)"
    )
    theirs = [theirs[0], dict(theirs[0], edge_width=float("nan"))]
    assert "width +0.0 ± nan % (0 of 1)" in quality.comparison("a", "b", {"a": theirs, "b": theirs}, ["edge_width"])


def test_degraded_distributions_are_distributions_and_reproducible():
    _, chroma, _ = two_regions(48)
    first, again = (distribution_of(chroma, SETTINGS["degraded"], grid=6, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    np.testing.assert_allclose(first.probabilities.sum(-1), 1, rtol=1e-5)
    clean = distribution_of(chroma, grid=6)
    assert np.abs(np.asarray(first.mean() - clean.mean())).max() > 3


def test_fast_bilateral_solver_keeps_constants_and_follows_edges():
    luminance = (np.where(np.arange(48) < 24, 20.0, 80.0) * np.ones((48, 1))).astype(np.float32)
    right = np.clip((np.arange(6) - 1) / 3, 0, 1)[None, :, None] * np.ones((6, 1, 1))
    dist = ColorDistribution(np.concatenate([1 - right, right], -1).astype(np.float32), np.array([[0.0, 5], [40, 5]]))
    solved = upsamplers.fast_bilateral_solver(luminance, dist)
    np.testing.assert_allclose(solved[..., 1], 5, atol=1e-3)
    given = upsamplers.enlarged(dist, luminance.shape)
    assert np.ptp(solved[:, :24, 0]) < 0.7 * np.ptp(given[:, :24, 0])
    assert solved[0, 24, 0] - solved[0, 23, 0] > 5 * (given[0, 24, 0] - given[0, 23, 0])


def test_halves_share_no_photo():
    first, second = halves(list("abcde"))
    assert first == ["a", "c", "e"]
    assert second == ["b", "d"]


def test_choices_are_named_by_what_they_change():
    assert parameters.CoupledTV().changes() == "defaults"
    assert parameters.CoupledTV(fidelity=0.5, kernel="linear").changes() == "fidelity 0.5, kernel linear"


@pytest.mark.parametrize(
    ("method", "axis", "center", "labels"),
    [
        pytest.param(
            "coupled-tv", "kernel", ["steps=5"], ["cubic", "linear", "luminance", "nearest"], marks=pytest.mark.slow
        ),
        ("coupled-tv", "reduction", ["steps=5"], ["1", "2", "4"]),
        pytest.param(
            "deep-prior",
            "learning_rate",
            ["steps=2", "channels=4", "scales=1"],
            ["0.0002", "0.001", "0.005"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_parameters_are_chosen_on_one_half_and_reported_on_the_other(folder, capsys, method, axis, center, labels):
    files = ["--json", str(folder / "all.json"), "--plot", str(folder / "all.png")]
    options = ["--size", "32", "--cell", "4", "--number", "2", "--axes", axis, "--set", *center]
    main(["parameters", str(folder), "--method", method, *options, *files])
    printed = capsys.readouterr().out
    result = json.loads((folder / "all.json").read_text())
    assert result["photos"] == {"chosen on": ["a.png"], "reported on": ["b.png"]}
    assert [value for value, _ in result["axes"][axis]] == labels
    assert set(result["chosen"]) == {"bicubic", *(label for _, label in result["axes"][axis])}
    # Both files hold the same picture, so what was chosen must come out again.
    assert {"bicubic", result["center"]} <= set(result["reported"]) <= set(result["chosen"])
    for label, values in result["reported"].items():
        np.testing.assert_allclose(np.array(values)[[0, 2]], np.array(result["chosen"][label])[[0, 2]], rtol=1e-3)
        assert label in printed
    different = [np.array(result["chosen"][label]) for _, label in result["axes"][axis]]
    assert all(np.abs(a - b).max() > 1e-6 for a, b in pairwise(different))
    with Image.open(folder / "all.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_errors_of_the_study_are_those_of_bicubic_by_scikit_image(folder):
    (path, _) = sorted(folder.glob("*.png"))
    rows = parameters.measured([path], 32, 4, [])["bicubic"]
    lab = photo(path, 32)
    mean = np.asarray(distribution_of(lab[..., 1:], grid=8).mean())
    chroma = np.stack([np.asarray(jax.image.resize(mean[..., i], (32, 32), "cubic")) for i in (0, 1)], -1)
    error = deltaE_ciede2000(lab.astype(float), np.dstack([lab[..., :1], chroma]).astype(float))
    np.testing.assert_allclose(rows[0][1], error.mean(), rtol=1e-4)
    np.testing.assert_allclose(rows[0][2], np.linalg.norm(chroma, axis=-1).mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--axes", "magic"], "choose from fidelity"),
        (["--set", "magic=1"], "takes NAME=VALUE with a name of fidelity"),
        (["--set", "steps=many"], "steps must be int; got 'many'"),
        (["--number", "1"], "at least two photos"),
    ],
)
def test_what_the_study_cannot_do_is_refused(capsys, folder, options, words):
    with pytest.raises(SystemExit):
        main(["parameters", str(folder), *options])
    assert words in capsys.readouterr().err
