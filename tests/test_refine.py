"""jc.refine and jaxcolor refine: damaged colors come back to the edges, sound ones stay; gradients; bad input."""

import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.color import lab2rgb, rgb2lab

import jaxcolor as jc
from jaxcolor import registration
from jaxcolor.cli.main import main
from jaxcolor.color.spaces import srgb_to_lab
from jaxcolor.coupled_tv.operators import coupled_total_variation
from jaxcolor.images import read_color
from jaxcolor.refinement import refine_photo
from tests.coupled_tv_data import float64

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SHAPE = (64, 64)


def scene() -> np.ndarray:
    """Lab [64, 64, 3]: four fields of different lightness and color, with a little texture in the lightness."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    field = (column > 30 + 6 * np.sin(row / 9)).astype(int) + 2 * (row > 34 + 5 * np.cos(column / 7))
    colors = np.array([[35, 20, 25], [65, -15, 20], [50, 5, -25], [80, 5, 10]], float)
    lab = colors[field]
    lab[..., 0] += np.random.default_rng(0).normal(0, 0.5, SHAPE)
    return lab.astype(np.float32)


def shifted(chroma: np.ndarray) -> np.ndarray:
    return ndimage.shift(chroma, (0, 6, 0), order=0, mode="nearest")


def blurry(chroma: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(chroma, (4, 4, 0), mode="nearest")


def colored(lab: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    return lab2rgb(np.concatenate([lab[..., :1], chroma], -1)).astype(np.float32)


def error(rgb: np.ndarray, lab: np.ndarray) -> float:
    return float(np.linalg.norm(rgb2lab(np.asarray(rgb))[..., 1:] - lab[..., 1:], axis=-1).mean())


@pytest.mark.parametrize(("damage", "left"), [(shifted, 0.15), (blurry, 0.85), (lambda chroma: chroma, None)])
def test_damage_is_undone_and_sound_colors_stay(damage, left) -> None:
    lab = scene()
    given = colored(lab, damage(lab[..., 1:]))
    after = error(jc.refine(lab[..., 0], given), lab)
    assert after < (0.3 if left is None else left * error(given, lab))


def test_strength_from_nothing_to_much() -> None:
    """0 leaves alone; up to 1/2 the colors move straight; from there on the coupled total variation falls."""
    lab = scene()
    given = colored(lab, blurry(lab[..., 1:]))
    at = jax.jit(lambda strength: jc.refine(lab[..., 0], given, strength=strength))
    same = jc.refine(lab[..., 0], given, strength=0.0)
    np.testing.assert_allclose(same, given, atol=2e-3)
    np.testing.assert_allclose(at(0.0), same, atol=1e-6)
    moved = [np.linalg.norm(rgb2lab(at(strength)) - rgb2lab(same)) for strength in (0.1, 0.2, 0.35, 0.5)]
    np.testing.assert_allclose(moved, moved[-1] * np.array([0.2, 0.4, 0.7, 1.0]), rtol=0.02)

    def variation(chroma: np.ndarray) -> float:
        return float(coupled_total_variation(lab[..., 0], (chroma[..., 0], chroma[..., 1]), 240.0))

    left = [variation(rgb2lab(at(strength))[..., 1:]) for strength in (0.5, 0.65, 0.8, 0.9, 1.0)]
    # What the colors add to the variation of the lightness.
    left = np.array(left) - variation(0 * lab[..., 1:])
    assert (np.diff(left) < -0.01 * left[0]).all()


def test_strength_zero_is_exact_for_files(tmp_path: Path) -> None:
    lab = scene()
    file = save(tmp_path / "a.png", colored(lab, shifted(lab[..., 1:])))
    result = refine_photo(None, file, strength=0)
    np.testing.assert_array_equal(result.chroma, srgb_to_lab(jnp.asarray(read_color(file)))[..., 1:])
    assert result.report["status"] == "left alone"


def photo() -> np.ndarray:
    """Lab [176, 208, 3]: smooth colors and lightness, and a disc of others."""
    rng = np.random.default_rng(4)
    smooth = ndimage.gaussian_filter(rng.normal(size=(176, 208, 3)), (12, 12, 0))
    row, column = np.mgrid[:176, :208]
    disc = (row - 80) ** 2 + (column - 110) ** 2 < 50**2
    lab = smooth / smooth.std((0, 1)) * [6, 5, 5] + np.where(disc[..., None], [70, 5, 30], [45, -10, -10])
    return lab.astype(np.float32)


def test_blocks_of_jpeg_are_recognised_and_smoothed() -> None:
    lab = photo()
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * colored(lab, lab[..., 1:])).astype(np.uint8)).save(file, "JPEG", quality=30)
    given = np.asarray(Image.open(file)) / np.float32(255)
    blocks = [float(registration.blockiness(rgb2lab(rgb)[..., 1:])) for rgb in (colored(lab, lab[..., 1:]), given)]
    assert blocks[0] < 1.2
    assert blocks[1] > 2.2
    # Moved by half a block they are the same blocks.
    assert float(registration.blockiness(rgb2lab(given)[7:, 9:, 1:])) == pytest.approx(blocks[1], rel=0.1)
    assert error(jc.refine(lab[..., 0], given), lab) < 0.9 * error(given, lab)
    # Borders of things are no blocks, however straight.
    straight = np.where(np.arange(208)[:, None] < 97, [40.0, 20.0], [-30.0, 0.0])
    assert float(registration.blockiness(np.broadcast_to(straight, (176, 208, 2)))) < 1.2


def test_shift_and_blur_are_recognised() -> None:
    lab = scene()
    light, chroma = lab[..., 0], lab[..., 1:]
    assert registration.estimate_shift(light, shifted(chroma)).tolist() == [0, 6]
    assert registration.estimate_shift(light, chroma).tolist() == [0, 0]
    assert float(registration.excess_blur(light, chroma)) == 0
    assert 2 < float(registration.excess_blur(light, blurry(chroma))) < 6
    assert registration.estimate_shift(light, 0 * chroma).tolist() == [0, 0]


def test_no_two_transforms_run_at_once() -> None:
    # jaxlib 0.11.2: on a CPU of two cores two of them wait for each other's threads, forever.
    program = registration.estimate_shift.lower(jnp.zeros((40, 60)), jnp.zeros((40, 60, 2))).compile().as_text()
    transforms = [part.count(" fft(") for part in program.split("\n}\n")]
    assert sum(transforms) == 2
    assert max(transforms) == 1


@pytest.mark.parametrize("shape", [(1, 3100), pytest.param((6200, 3), marks=pytest.mark.slow)])
def test_long_thin_pictures_are_refined(shape: tuple[int, int]) -> None:
    light = np.full(shape, 60, np.float32)
    given = np.full((*shape, 3), [0.7, 0.5, 0.5], np.float32)
    refined = jc.refine(light, given, steps=1)
    assert refined.shape == given.shape
    assert np.isfinite(refined).all()


def test_blur_agrees_with_scipy_away_from_the_border() -> None:
    chroma = scene()[..., 1:]
    inside = (slice(16, -16), slice(16, -16))
    expected = ndimage.gaussian_filter(chroma, (3, 3, 0), truncate=9)
    np.testing.assert_allclose(registration.blurred(chroma, 3.0)[inside], expected[inside], atol=1e-3)


def test_gradient_with_respect_to_the_colored_photo() -> None:
    rng = np.random.default_rng(1)
    light, given = rng.uniform(20, 80, (6, 8)), rng.uniform(0.35, 0.65, (3, 4, 3))
    weights, direction = rng.normal(size=(6, 8, 3)), rng.normal(size=given.shape)
    with float64():

        def loss(rgb):
            return (jc.refine(jnp.asarray(light), rgb, steps=6) * weights).sum()

        slope = jax.jit(jax.grad(loss))(jnp.asarray(given))
        value = jax.jit(loss)
        step = 1e-6
        difference = (value(jnp.asarray(given + step * direction)) - value(jnp.asarray(given - step * direction))) / (
            2 * step
        )
        np.testing.assert_allclose((slope * direction).sum(), difference, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 1.5}, "strength must be from 0"),
        ({"colored": np.zeros((64, 32, 3), np.float32)}, r"32×64 \(aspect 0.5\) and the gray one 64×64 \(aspect 1\)"),
        ({"colored": np.full((8, 8, 3), 255.0)}, r"sRGB in \[0, 1\]"),
        ({"colored": np.zeros((8, 8), np.float32)}, r"shape \[h, w, 3\]"),
        ({"colored": np.full((8, 8, 3), np.nan)}, "nan"),
    ],
)
def test_bad_input(arguments, message) -> None:
    given = {"gray": scene()[..., 0], "colored": np.zeros((8, 8, 3), np.float32)} | arguments
    with pytest.raises(jc.InputError, match=message):
        jc.refine(**given)


def save(path: Path, rgb: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.rint(rgb * 255).astype(np.uint8)).save(path)
    return path


def test_command_pairs_folders_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = scene()
    gray = colored(lab, 0 * lab[..., 1:])
    given = colored(lab, shifted(lab[..., 1:]))
    for name in "ab":
        save(tmp_path / "gray" / f"{name}.png", gray)
    for name in "bc":
        save(tmp_path / "colored" / f"{name}.bmp", given)
    code = main(["refine", str(tmp_path / "gray"), str(tmp_path / "colored"), "-o", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert code == 1
    assert len(out.splitlines()) == 1
    assert "a.png: has no colored version" in err
    assert "c.bmp: no photo of that name" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.bmp"]
    assert error(read_color(tmp_path / "out" / "b.bmp"), lab) < 0.2 * error(given, lab)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["x.png", "--strength", "2"], 2, "--strength must be from 0 to 1"),
        (["a", "b", "c"], 2, "expected [GRAY] COLORED"),
        (["missing.png"], 1, "missing.png: no such file"),
    ],
)
def test_bad_usage_is_one_line(words, code, message, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        result = main(["refine", *words])
    except SystemExit as error:
        result = error.code
    err = capsys.readouterr().err
    assert (result, len(err.splitlines())) == (code, 1)
    assert message in err
