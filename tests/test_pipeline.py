"""jc.colorize: what it returns, what it refuses, and that photos of many sizes share compiled programs."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.color import lab2rgb, rgb2lab

import jaxcolor as jc
from benchmarks.truth import Degradation, distribution_of, two_regions, wrong_share
from jaxcolor.coupled_tv import Solution, Status, solve_in_chunks
from jaxcolor.coupled_tv.operators import coupled_total_variation
from jaxcolor.deep_prior import PRESETS, Preset, SkipNetwork
from jaxcolor.methods import LEADING_FIDELITY, LEADING_STEPS, led_by_edges
from jaxcolor.photo import bucket, enlarged, padded_photo
from jaxcolor.pipeline import chroma_of
from jaxcolor.settings import Settings

pytestmark = pytest.mark.usefixtures("compiled_quickly")

FAST: dict[str, Any] = {"resolution": 32, "steps": 3, "refinement_steps": 2, "candidates": 3}


@pytest.fixture(scope="module")
def net() -> jc.CIC:
    return jc.CIC.init(jax.random.key(0), width=1 / 16)


def photo(height: int, width: int) -> np.ndarray:
    row, column = np.mgrid[0:height, 0:width]
    return ((0.5 + 0.4 * np.sin(column / 9) * np.cos(row / 7)) * 255).astype(np.uint8)


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the functions that are compiled meanwhile."""
    names: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Compiling "):
                names.append(record.getMessage().split()[1])

    listener, logger = Listener(), logging.getLogger("jax")
    kept, logger.handlers, propagate, logger.propagate = logger.handlers, [listener], logger.propagate, False
    try:
        with jax.log_compiles():
            yield names
    finally:
        logger.handlers, logger.propagate = kept, propagate


@pytest.mark.parametrize("method", ["cic", "coupled-tv"])
def test_the_result(net: jc.CIC, tmp_path: Path, method: str) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(photo(40, 60)).save(source)
    told: list[tuple[str, int, int]] = []
    result = jc.colorize(source, target, weights=net, method=method, progress=lambda *news: told.append(news), **FAST)
    assert result.rgb.shape == (40, 60, 3)
    assert result.rgb.dtype == result.chroma.dtype == np.float32
    assert result.chroma.shape == (40, 60, 2)
    assert np.isfinite(result.rgb).all()
    assert result.rgb.min() >= 0
    assert result.rgb.max() <= 1
    lightness = rgb2lab(np.stack([photo(40, 60)] * 3, -1))[..., 0]
    shown = rgb2lab(result.rgb)
    assert np.abs(shown[..., 0] - lightness).max() < 0.01
    inside = np.all((lab2rgb(np.dstack([lightness, result.chroma])) > 0.002), -1)
    inside &= np.all((lab2rgb(np.dstack([lightness, result.chroma])) < 0.998), -1)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(shown[inside][:, 1:], result.chroma[inside], atol=0.05)
    assert result.distribution.probabilities.shape == (8, 8, 313)
    with Image.open(target) as image:
        np.testing.assert_allclose(np.asarray(image) / 255, result.rgb, atol=0.5 / 255 + 1e-6)
    report = json.loads(json.dumps(result.report, allow_nan=False))
    assert (report["input"], report["output"]) == (str(source), str(target))
    assert (report["height"], report["width"], report["method"]) == (40, 60, method)
    assert report["colorfulness"] == pytest.approx(float(jc.metrics.colorfulness(result.rgb)), rel=1e-4)
    assert report["saturation"] == pytest.approx(float(jc.metrics.saturation(result.rgb)), rel=1e-4)
    assert report["seconds"].keys() == {"read", "network", "color", "write"}
    if method == "coupled-tv":
        assert told == [("solve", 3, 5), ("solve", 5, 5)]
        assert [solver["steps"] for solver in report["solvers"]] == [3, 2]
        assert report["candidates"] == 3
        assert report["shift_in_cells"] == [0, 0]
    again = jc.read_out(jc.read_gray(source), result.distribution, method=method, **FAST)
    np.testing.assert_array_equal(again, result.rgb)


def test_colors_beside_the_edges_are_put_back() -> None:
    """In the default variant, in the paper's not; also of a photo that is larger than the working size."""
    row, column = np.mgrid[:256, :256]
    light = 50 + 30 * np.sin(row / 17) * np.sin(column / 23)
    truth = np.where(light > 50, 40.0, -40.0)[..., None] * np.array([1.0, -0.5])
    distribution = distribution_of(truth, Degradation(blur=0.5, shift=0.8))
    gray = jc.GrayImage(light.astype(np.float32))
    wrong = {}
    for variant in ("guided", "mouzon2019"):
        chroma = chroma_of(gray, distribution, variant=variant, steps=100, working_side=128)
        wrong[variant] = (np.sign(chroma[..., 0]) != np.sign(truth[..., 0]))[16:-16, 16:-16].mean()
    assert wrong["guided"] < 0.4 * wrong["mouzon2019"]


def test_the_deep_prior(net: jc.CIC, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a working size, never silently; chroma at full size; the same seed gives the same picture."""
    tiny = Preset(network=SkipNetwork(channels=4, scales=1), guided=True)
    monkeypatch.setitem(PRESETS, "fast", tiny)
    told: list[tuple[str, int, int]] = []
    settings = FAST | {"method": "deep-prior", "preset": "fast", "prior_steps": 2, "working_side": 24}
    result = jc.colorize(photo(40, 60), weights=net, progress=lambda *news: told.append(news), **settings)
    assert result.rgb.shape == (40, 60, 3)
    assert np.isfinite(result.rgb).all()
    report = json.loads(json.dumps(result.report, allow_nan=False))
    assert (report["method"], report["preset"], report["steps"]) == ("deep-prior", "fast", 2)
    assert report["working_size"] == [20, 29]
    assert report["notes"] == ["the deep prior was fitted at 29×20 pixels, the working size"]
    assert report["loss"].keys() == {"color", "luminance", "variation"}
    assert [solver["steps"] for solver in report["solvers"]] == [3]
    assert [(done, total) for _, done, total in told] == [(2, 5), (5, 5)]
    assert told[0][0].startswith("loss: color")
    given = jc.colorize(photo(40, 60), weights=net, **(settings | {"preset": tiny}))
    np.testing.assert_array_equal(given.rgb, result.rgb)
    assert given.report["preset"] == "given"
    again = jc.read_out(jc.GrayImage.from_array(photo(40, 60)), result.distribution, **settings)
    np.testing.assert_array_equal(again, result.rgb)

    whole = jc.colorize(photo(20, 28), weights=net, **settings)
    assert whole.report["working_size"] == [20, 28]
    assert whole.report["notes"] == []
    assert whole.rgb.shape == (20, 28, 3)
    assert "solvers" not in whole.report

    hints = jc.Hints([jc.Hint(10, 12, 2, (0.5, 0.4, 0.35))])
    for size in ((20, 28), (40, 60)):
        hinted = jc.colorize(photo(*size), weights=net, hints=hints, **settings)
        colors, held, _ = hints.drawn(jc.GrayImage.from_array(photo(*size)).luminance)
        np.testing.assert_array_equal(hinted.chroma[held], colors[held])
        assert [solver["steps"] for solver in hinted.report["solvers"]] == [3]
    with pytest.raises(jc.InputError, match="lies outside the photo"):
        jc.colorize(photo(20, 28), weights=net, hints=jc.Hints([jc.Hint(99, 1, 1, (1, 0, 0))]), **settings)

    monkeypatch.setattr("jaxcolor.methods.fitting_pixels", lambda channels: 4500 * 5 // 4)
    fitted = jc.colorize(photo(80, 90), weights=net, **(settings | {"working_side": None}))
    assert fitted.report["notes"] == ["the deep prior was fitted at 71×63 pixels, as large as memory allows"]
    monkeypatch.setattr("jaxcolor.methods.fitting_pixels", lambda channels: 0)
    with pytest.raises(jc.InputError, match="memory for 2400 pixels at least"):
        jc.colorize(photo(40, 60), weights=net, **settings)


def test_the_deep_prior_of_the_cpu_smooths_coupled_tv_and_brings_no_halo_back() -> None:
    """The shipped preset: it must change something, lower the variation that it penalises, and keep the border."""
    luminance, truth, colors = two_regions(64)
    degraded = distribution_of(truth, Degradation(blur=1.2, shift=0.7, noise=1.0), grid=16)
    gray = jc.GrayImage(luminance)
    bicubic = np.asarray(jax.image.resize(degraded.mean(), truth.shape, "cubic"))
    coupled, prior = (chroma_of(gray, degraded, method=method) for method in ("coupled-tv", "deep-prior"))
    assert wrong_share(bicubic, truth, colors) > 0.01
    assert wrong_share(prior, truth, colors) <= wrong_share(coupled, truth, colors) < 0.005

    def variation(chroma: np.ndarray) -> float:
        planes = jnp.asarray(luminance) / 100, tuple(jnp.moveaxis(jnp.asarray(chroma) / 220, -1, 0))
        objective = PRESETS["fast"].objective
        return float(coupled_total_variation(*planes, objective.coupling, objective.smoothing))

    assert variation(prior) < variation(coupled) < variation(bicubic)


@pytest.mark.parametrize(("backend", "preset"), [("cpu", "fast"), ("gpu", "paper")])
def test_the_preset_that_a_device_gets(net: jc.CIC, monkeypatch: pytest.MonkeyPatch, backend: str, preset: str) -> None:
    tiny = Preset(network=SkipNetwork(channels=4, scales=1), steps=1)
    monkeypatch.setitem(PRESETS, preset, tiny)
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    result = jc.colorize(photo(20, 28), weights=net, **(FAST | {"method": "deep-prior"}))
    assert result.report["preset"] == preset


def test_large_photos_are_selected_at_the_working_size(net: jc.CIC) -> None:
    told: list[tuple[str, int, int]] = []
    settings = FAST | {"working_side": 24}
    result = jc.colorize(photo(40, 60), weights=net, progress=lambda *news: told.append(news), **settings)
    assert result.chroma.shape == (40, 60, 2)
    assert result.report["working_size"] == [20, 29]
    assert [solver["steps"] for solver in result.report["solvers"]] == [3, 2, 3]
    assert told == [("solve", done, 8) for done in (3, 5, 8)]
    hint = jc.Hints([jc.Hint(x=30, y=20, radius=3, color=(0.7, 0.4, 0.4))])
    hinted = jc.colorize(photo(40, 60), weights=net, hints=hint, **settings)
    held = hinted.chroma[18:23, 28:33]
    np.testing.assert_array_equal(held, np.broadcast_to(held[2, 2], held.shape))
    assert np.abs(held[0, 0] - result.chroma[20, 30]).max() > 3
    whole = jc.colorize(photo(20, 28), weights=net, **settings)
    assert whole.report["working_size"] == [20, 28]
    assert len(whole.report["solvers"]) == 2


def test_the_working_size_brings_no_halo_back() -> None:
    """Two regions, selected at a quarter of the size: at full size every pixel still has its own region's color."""
    luminance, truth, colors = two_regions(192)
    degraded = distribution_of(truth, Degradation(blur=1.2, shift=0.7), grid=24)
    gray, settings = jc.GrayImage(luminance), {"refinement_steps": 0}
    whole, selected = (chroma_of(gray, degraded, **settings, working_side=side) for side in (192, 48))
    bicubic = np.asarray(jax.image.resize(degraded.mean(), truth.shape, "cubic"))
    assert wrong_share(bicubic, truth, colors) > 0.008
    assert wrong_share(whole, truth, colors) < 0.001
    assert wrong_share(selected, truth, colors) < 0.001


def reduced_regions(share: int, side: int = 64) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """A padded photo of two regions, their colors reduced ``share`` times, which is where, and the two colors."""
    row, column = np.mgrid[:side, :side]
    right = column > side / 2 + 6 * np.sin(row / 9)
    colors = np.array([[40.0, 20.0], [-30.0, 10.0]], np.float32)
    full = padded_photo(np.where(right, 70, 35).astype(np.float32))
    small = colors[right.astype(int)].reshape(side // share, share, side // share, share, 2).mean((1, 3))
    return full, small, right, colors


def test_leading_keeps_what_was_selected() -> None:
    """Twice enlarged there is little to mend, and colors that have been selected are not to be made paler."""
    full, small, right, colors = reduced_regions(2)

    def error(fidelity: float | None) -> float:
        (a, b), _, _ = led_by_edges(full, small, Settings(fidelity=fidelity), lambda done, energy: None)
        side = len(right)
        shown = np.stack([a, b], -1)[:side, :side]
        return float(np.linalg.norm(shown - colors[right.astype(int)], axis=-1).mean())

    assert error(None) < 0.85 * error(0.01)
    assert error(None) == pytest.approx(error(LEADING_FIDELITY / 2), rel=1e-6)


def test_chroma_of_the_working_size_comes_back_to_the_edges_of_the_photo() -> None:
    """Two regions whose border the small picture blurs: enlarged it is a halo, and the solver takes that away."""
    full, small, right, colors = reduced_regions(8)
    side = len(right)
    chroma, report, _ = led_by_edges(full, small, Settings(), lambda done, energy: None)
    assert report["steps"] == LEADING_STEPS

    def bleeding(planes: Any) -> tuple[float, float]:
        shown = np.asarray(planes)[:side, :side]
        leak = jc.metrics.leak_fraction(shown, *colors, right)
        return float(leak), float(jc.metrics.edge_width(full.luminance[:side, :side], shown))

    leak, width = bleeding(enlarged(small, full))
    assert leak > 0.005
    assert width > 8
    leak, width = bleeding(np.stack(chroma, -1))
    assert leak == 0
    assert width < 1


def test_ctrl_c_at_a_size_in_between_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **settings: Any) -> Solution:
        solution = solve_in_chunks(*arguments, **settings)
        return replace(solution, status=np.int32(Status.INTERRUPTED)) if settings["progress"] is None else solution

    monkeypatch.setattr("jaxcolor.methods.solve_in_chunks", interrupted)
    full, small = padded_photo(np.full((64, 64), 50, np.float32)), np.zeros((8, 8, 2), np.float32)
    with pytest.raises(KeyboardInterrupt):
        led_by_edges(full, small, Settings(steps=2), lambda done, energy: None)


def test_arrays_and_steps_of_zero(net: jc.CIC) -> None:
    gray = photo(40, 60)
    settings = FAST | {"steps": 0, "refinement_steps": 0}
    result = jc.colorize(gray, weights=net, **settings)
    assert (result.report["input"], result.report["output"]) == (None, None)
    assert [solver["steps"] for solver in result.report["solvers"]] == [0]
    other = jc.colorize(jc.GrayImage.from_array(gray), weights=net, **settings)
    np.testing.assert_array_equal(result.rgb, other.rgb)


def test_weights_that_have_changed_are_loaded_anew(tmp_path: Path) -> None:
    seen = []
    for seed in (1, 2):
        jc.CIC.init(jax.random.key(seed), width=1 / 16).save(tmp_path / "net.safetensors")
        seen += [jc.colorize(photo(40, 60), weights=tmp_path / "net.safetensors", **FAST).report for _ in range(2)]
    checksums = [report["weights"]["checksum"] for report in seen]
    assert checksums[0] == checksums[1] != checksums[2] == checksums[3]


def test_photos_of_one_bucket_share_programs(net: jc.CIC) -> None:
    for method in ("coupled-tv", "cic"):
        jc.colorize(photo(40, 60), weights=net, method=method, **FAST)
        with compilations() as compiled:
            jc.colorize(photo(41, 61), weights=net, method=method, **FAST)
            jc.colorize(photo(64, 35), weights=net, method=method, **FAST)
        assert compiled == []
    with compilations() as compiled:
        jc.colorize(photo(40, 60), weights=net, **(FAST | {"fidelity": 0.02, "coupling": 7.0, "steps": 4}))
    assert compiled == []


def test_the_compilations_of_a_new_bucket_are_seen(net: jc.CIC) -> None:
    """Or the test above would count nothing."""
    with compilations() as compiled:
        jc.colorize(photo(70, 60), weights=net, method="cic", **FAST)
    assert compiled


def test_padding_does_not_show(net: jc.CIC, monkeypatch: pytest.MonkeyPatch) -> None:
    given = photo(63, 50)
    for method in ("coupled-tv", "cic"):
        padded = jc.colorize(given, weights=net, method=method, **FAST)
        dist = net.predict(jc.GrayImage.from_array(given).luminance, 32)
        np.testing.assert_allclose(padded.distribution.probabilities, dist.probabilities, atol=1e-6)
        with monkeypatch.context() as patch:
            patch.setattr("jaxcolor.photo.bucket", lambda size: size)
            alone = jc.colorize(given, weights=net, method=method, **FAST)
        assert padded.rgb.shape == alone.rgb.shape == (63, 50, 3)
        np.testing.assert_allclose(padded.chroma, alone.chroma, atol=1e-3)
        assert np.ptp(alone.chroma) > 1


def test_buckets() -> None:
    sizes = np.arange(1, 9000)
    lengths = np.array([bucket(int(size)) for size in sizes])
    assert (lengths >= sizes).all()
    assert (lengths[sizes >= 512] <= sizes[sizes >= 512] * 17 / 16).all()
    assert len(set(lengths[sizes >= 4000])) < 40
    assert (np.diff(lengths) >= 0).all()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"method": "magic"}, "cic"),
        ({"colour": 1}, "settings are method"),
        ({"candidates": 0}, "between 1 and 313"),
        ({"candidates": 314}, "between 1 and 313"),
        ({"fidelity": -1.0}, "fidelity"),
        ({"coupling": float("nan")}, "coupling"),
        ({"resolution": 100}, "multiple of 8"),
        ({"temperature": 0.0}, "temperature"),
        ({"steps": -1}, "steps"),
        ({"preset": "slow"}, "preset must be one of fast, paper, author"),
        ({"preset": 3}, "or a Preset; got 3"),
        ({"prior_steps": -1}, "prior_steps"),
        ({"seed": -1}, "seed must"),
        ({"seeds": 0}, "seeds must"),
        ({"working_side": 4}, "working_side"),
        ({"steps": 2.5}, "steps must be a whole number; got 2.5"),
        ({"candidates": None}, "candidates must be a whole number; got None"),
        ({"fidelity": "a"}, "fidelity must be a number; got 'a'"),
    ],
)
def test_bad_settings_are_one_line(net: jc.CIC, settings: dict[str, Any], word: str) -> None:
    with pytest.raises(jc.InputError, match=word) as caught:
        jc.colorize(photo(8, 8), weights=net, **settings)
    assert "\n" not in str(caught.value)


def test_refusals_come_before_the_work(net: jc.CIC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxcolor.pipeline._predict", None)
    (tmp_path / "b.png").write_bytes(b"mine")
    Image.fromarray(photo(8, 8)).save(tmp_path / "a.png")
    for source, target, word in (
        (tmp_path / "none.png", None, "no such file"),
        (tmp_path / "a.png", tmp_path / "b.png", "exists already"),
        (tmp_path / "a.png", tmp_path / "a.png", "the input itself"),
        (np.zeros((3, 3, 7), np.uint8), None, "expected"),
    ):
        with pytest.raises(jc.InputError, match=word):
            jc.colorize(source, target, weights=net)
    with pytest.raises(jc.InputError, match="no weights 'nobody'"):
        jc.colorize(photo(8, 8), weights="nobody")
    assert (tmp_path / "b.png").read_bytes() == b"mine"


def test_colors_that_are_not_finite_are_refused(net: jc.CIC, tmp_path: Path) -> None:
    broken = jax.tree.map(lambda x: x * np.nan, net)
    for method in ("cic", "coupled-tv"):
        with pytest.raises(jc.InputError, match=r"not finite|infinite"):
            jc.colorize(photo(40, 60), tmp_path / "a.png", weights=broken, method=method, **FAST)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_solve_writes_nothing(net: jc.CIC, tmp_path: Path) -> None:
    def interrupt(*news: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jc.colorize(photo(40, 60), tmp_path / "a.png", weights=net, progress=interrupt, **FAST)
    assert list(tmp_path.iterdir()) == []
