"""What the papers' figures draw are the numbers of other programs; notebook 8 draws them all."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from skimage.color import lab2rgb, rgb2hsv

import jaxcolor as jc
from benchmarks.__main__ import main
from jaxcolor import plots
from jaxcolor.color.palette import ab_bins
from jaxcolor.errors import InputError

RNG = np.random.default_rng(0)


def test_displayed_is_lab_and_keeps_lightness_out_of_gamut():
    luminance = np.linspace(5, 95, 12, dtype=np.float32).reshape(3, 4)
    chroma = RNG.uniform(-8, 8, (3, 4, 2)).astype(np.float32)
    lab = np.concatenate([luminance[..., None], chroma], -1)
    inside = (lab2rgb(lab) > 0.01).all(-1) & (lab2rgb(lab) < 0.99).all(-1)
    np.testing.assert_allclose(plots.displayed(luminance, chroma)[inside], lab2rgb(lab)[inside], atol=2e-3)
    gray = np.concatenate([luminance[..., None], 0 * chroma], -1)
    np.testing.assert_allclose(plots.displayed(luminance), lab2rgb(gray), atol=2e-3)
    vivid = jc.metrics.saturation(plots.displayed(50.0, 20 * chroma))
    assert 0.3 < vivid < 1
    assert plots.displayed(50.0, chroma).shape == (3, 4, 3)


def test_saturation_histogram_and_means_are_those_of_scikit_image():
    pictures = {"a": RNG.uniform(0, 0.99, (9, 7, 3)), "b": RNG.uniform(0.4, 0.6, (9, 7, 3))}
    (axes,) = plots.saturation_figure(pictures).axes
    for (name, picture), bars, line in zip(pictures.items(), axes.patches, axes.lines, strict=True):
        saturation = rgb2hsv(picture)[..., 1]
        assert bars.get_label() == f"{name}: mean {saturation.mean():.4f}"
        assert line.get_xdata()[0] == pytest.approx(saturation.mean())
        shares = np.bincount((50 * saturation).astype(int).ravel(), minlength=50) / saturation.size
        np.testing.assert_allclose(bars.get_data().values, shares, atol=1e-12)


def test_palette_is_drawn_in_its_own_colors():
    (axes,) = plots.palette_figure(ab_bins()).axes
    (dots,) = axes.collections
    np.testing.assert_array_equal(dots.get_offsets(), ab_bins()[:, ::-1])
    gray = np.flatnonzero((ab_bins() == 0).all(-1))
    np.testing.assert_allclose(dots.get_facecolor()[gray], [to_rgba(str(lab2rgb([50.0, 0, 0])[0]))], atol=1e-3)


def test_entropy_figure_shows_the_entropy_of_every_cell():
    probabilities = RNG.dirichlet(np.ones(6), (4, 5)).astype(np.float32)
    figure = plots.entropy_figure(np.full((8, 10), 50.0), jc.ColorDistribution(probabilities, np.zeros((6, 2))))
    drawn = figure.axes[1].images[0]
    expected = -(probabilities * np.log(probabilities)).sum(-1)
    np.testing.assert_allclose(drawn.get_array(), expected, rtol=1e-4)
    assert drawn.get_clim() == pytest.approx((0, np.log(6)))
    assert f"{expected.mean():.2f}" in figure.axes[1].get_title()


def test_loss_curves_add_up_and_assignments_are_marked():
    history = RNG.uniform(1, 2, (20, 3))
    (axes,) = plots.losses_figure(history, [5, 10]).axes
    curves = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(curves["loss"], curves["color"] + curves["luminance"] + curves["variation"])
    assert [line.get_xdata()[0] for line in axes.lines[-2:]] == [5, 10]


def test_pictures_stand_in_their_rows():
    dark, light = np.zeros((4, 6, 3)), np.ones((4, 6, 3))
    figure = plots.pictures_figure([{"a": dark, "b": light}, {"a": light, "b": dark}])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "a", "b"]
    assert [axes.images[0].get_array().mean() for axes in figure.axes] == [0, 1, 1, 0]
    for rows in ([], [{}], [{"a": dark}, {"a": dark, "b": dark}]):
        with pytest.raises(InputError, match="rows of one length"):
            plots.pictures_figure(rows)


def test_command_writes_what_is_asked_for(tmp_path, capsys):
    main(["figures", str(tmp_path / "out"), "--only", "B3", "B4", "--size", "32", "--number", "1"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["B3.png", "B4.png"]
    assert "among which the network chooses" in capsys.readouterr().out
    for wrong, word in {
        ("--weights", str(tmp_path / "missing.safetensors")): "missing",
        ("--number", "0"): "at least 1; got 0",
        ("--size", "8"): "at least 16",
    }.items():
        with pytest.raises(SystemExit, match=word):
            main(["figures", str(tmp_path / "other"), *wrong])
    assert not (tmp_path / "other").exists()
