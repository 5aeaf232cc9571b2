"""Training on photos that the tests draw: data, loss, the loop and its checkpoints."""

import csv
import errno
import os
import re
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.special import log_softmax, softmax
from skimage.color import rgb2lab

import jaxcolor.images
from jaxcolor.cic.network import CICNetwork, merged, random_variables
from jaxcolor.cic.predict import CIC, Manifest
from jaxcolor.cic.training import crops, data, loop, validation
from jaxcolor.cic.training.config import TrainingConfig
from jaxcolor.cic.training.crops import SQUEEZE, batches, make_batch, random_crop, useful_side
from jaxcolor.cic.training.data import Photos, load_photos
from jaxcolor.cic.training.loop import train, trained_network
from jaxcolor.cic.training.loss import (
    SHARPENING,
    TONE,
    empirical_prior,
    luminance_and_targets,
    rebalanced_loss,
    retouched,
)
from jaxcolor.cic.training.provenance import code_commit, phases
from jaxcolor.cic.training.state import (
    STATISTICS_SEED,
    TrainingState,
    initial_state,
    optimiser_of,
    state_from,
    teacher_from,
)
from jaxcolor.cic.training.step import make_step
from jaxcolor.cic.training.validation import MEASURES
from jaxcolor.color.palette import ab_bins, rebalancing_weights
from jaxcolor.errors import InputError
from tests.reference import cic as reference

CONFIG = TrainingConfig(width=1 / 32, size=32, batch=8, steps=6, warmup=1, decay=2, learning_rate=0.1)


def drawn_photo(height: int, width: int, seed: int) -> np.ndarray:
    """Blue sky over green ground, with a red disk: luminance tells the color."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    sky = (rows < height * rng.uniform(0.3, 0.7))[..., None]
    rgb = np.where(sky, [150, 190, 250], [40, 90, 30]) + rng.normal(0, 5, (height, width, 3))
    center = rng.uniform(0.2, 0.8, 2) * [height, width]
    disk = np.hypot(rows - center[0], columns - center[1]) < min(height, width) / 6
    rgb[disk] = [200, 40, 30]
    return np.clip(rgb, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return [drawn_photo(*shape, seed) for seed, shape in enumerate([(40, 60), (70, 50), (33, 33), (48, 96)])]


def test_photos_are_read_and_what_cannot_be_used_is_named(tmp_path: Path, photos: list[np.ndarray]) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, image in zip(["a.png", "deep/b.WEBP", "deep/er/c.tif"], photos, strict=False):
        Image.fromarray(image).save(tmp_path / name, lossless=True)
    Image.fromarray(photos[0]).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.tif").touch()
    (tmp_path / "notes.txt").write_text("not looked at")
    Image.fromarray(photos[0][..., 0]).save(tmp_path / "gray.png")
    Image.fromarray(np.repeat(photos[0][..., :1], 3, axis=2)).save(tmp_path / "gray_rgb.png")
    found = load_photos([tmp_path])
    assert found.names == ["a.png", "b.WEBP", "c.tif", "whole.jpg"]
    for got, want in zip(found.images, photos[:3], strict=False):
        np.testing.assert_array_equal(got, want)
    assert {Path(path).name for path, reason in found.rejected.items() if reason == "gray"} == {
        "gray.png",
        "gray_rgb.png",
    }
    broken = {Path(path).name for path, reason in found.rejected.items() if reason.startswith("not readable")}
    assert broken == {"cut.jpg", "text.png", "empty.tif"}


def test_of_two_photos_one_is_held_out(photos: list[np.ndarray]) -> None:
    for share in (1e-6, 0.02):
        # The first two are equal, the third is the one that tells something.
        found = Photos([photos[0], photos[0], photos[1]], ["a.png", "b.png", "c.png"], {})
        training, validation = found.split(share)
        assert (training.names, validation.names) == (["a.png", "b.png"], ["c.png"])
    flat = np.zeros((40, 40, 3), np.uint8) + np.uint8([200, 40, 90])
    training, validation = Photos([flat, flat], ["a.png", "b.png"], {}).split(0.02)
    assert (len(training.names), len(validation.names)) == (1, 1)


def test_pictures_of_the_run_and_hidden_files_are_no_photos(tmp_path: Path, photos: list[np.ndarray]) -> None:
    for name in ("a.png", "run/samples/1.png", ".b.png", ".c/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photos[0]).save(tmp_path / name)
    assert load_photos([tmp_path], besides=tmp_path / "run").names == ["a.png"]


def test_photos_are_read_as_they_are_to_be_colorized(tmp_path: Path, photos: list[np.ndarray]) -> None:
    Image.fromarray(photos[0]).save(tmp_path / "wide.png", icc_profile=imagecodecs.cms_profile("adobergb"))
    (found,) = load_photos([tmp_path]).images
    assert np.abs(found - 255 * jaxcolor.images.read_color(tmp_path / "wide.png")).max() <= 0.5001
    assert np.abs(found.astype(int) - photos[0]).max() > 5


def test_a_photo_with_an_odd_tag_is_read_or_named(tmp_path: Path, photos: list[np.ndarray]) -> None:
    orientation, resolution = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), struct.pack("<HHI4s", 282, 2, 3, b"72")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + resolution + bytes(4)
    Image.fromarray(photos[0]).save(tmp_path / "odd.jpg", exif=exif)
    Image.fromarray(photos[0]).save(tmp_path / "whole.jpg")
    found = load_photos([tmp_path])
    assert len(found.names) + len(found.rejected) == 2
    assert "whole.jpg" in found.names


# Pillow warns of odd tags and reads on.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_no_damage_stops_the_reading(tmp_path: Path, photos: list[np.ndarray], suffix: str) -> None:
    Image.fromarray(photos[2]).save(tmp_path / f"good{suffix}")
    data = bytearray((tmp_path / f"good{suffix}").read_bytes())
    rng = np.random.default_rng(0)
    for i in range(40):
        damaged = data[: rng.integers(len(data))] if i % 2 else bytearray(data)
        for place in rng.integers(0, max(1, min(len(damaged), 200 if i % 4 else len(data))), 5):
            damaged[place : place + 1] = bytes([rng.integers(256)])
        (tmp_path / f"bad{i}{suffix}").write_bytes(damaged)
    found = load_photos([tmp_path])
    assert f"good{suffix}" in found.names
    assert len(found.names) + len(found.rejected) == 41


def smooth_photo(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    return np.uint8(np.stack([250 * rows, 250 * columns, 120 + 100 * np.sin(6 * rows * columns)], -1))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_large_photos_are_kept_small(tmp_path: Path, suffix: str, turned: bool) -> None:
    photo, exif = smooth_photo(600, 840), Image.Exif()
    exif[0x0112] = 6 if turned else 1
    Image.fromarray(photo).save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    (found,) = load_photos([tmp_path], short=100).images
    want = photo.reshape(100, 6, 140, 6, 3).mean((1, 3))
    assert found.shape == ((140, 100, 3) if turned else (100, 140, 3))
    upright = np.rot90(found, 1) if turned else found
    assert np.abs(upright - want).mean() < 1.5
    # Every pixel counts: of stripes one pixel wide the mean is left.
    Image.fromarray(np.tile(np.uint8([[[255, 0, 0], [0, 0, 80]]]), (600, 300, 1))).save(tmp_path / f"a{suffix}")
    (found,) = load_photos([tmp_path], short=100).images
    np.testing.assert_allclose(found[2:-2, 2:-2].mean((0, 1)), [127.5, 0, 40], atol=4)
    assert found[2:-2, 2:-2].std((0, 1)).max() < 4


def test_a_large_photo_with_a_profile_is_kept_small(tmp_path: Path) -> None:
    photo = smooth_photo(300, 450)
    Image.fromarray(photo).save(tmp_path / "a.png", icc_profile=imagecodecs.cms_profile("adobergb"))
    (found,) = load_photos([tmp_path], short=100).images
    colors = 255 * jaxcolor.images.read_color(tmp_path / "a.png")
    assert np.abs(found - colors.reshape(100, 3, 150, 3, 3).mean((1, 3))).mean() < 1.5


def test_photos_that_are_small_enough_are_kept_to_the_bit(tmp_path: Path, photos: list[np.ndarray]) -> None:
    for name in ("a.jpg", "b.png"):
        Image.fromarray(photos[0]).save(tmp_path / name, quality=80)
    plain = load_photos([tmp_path])
    short = min(photos[0].shape[:2])
    for got, name, want in zip(load_photos([tmp_path], short=short).images, plain.names, plain.images, strict=True):
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(got, image)
        np.testing.assert_array_equal(got, want)
    assert all(min(image.shape[:2]) == short - 1 for image in load_photos([tmp_path], short=short - 1).images)


@given(st.integers(8, 256), st.floats(0.05, 1), st.integers(0, 2**31 - 1))
def test_no_crop_wants_more_pixels_than_are_kept(size: int, least_share: float, seed: int) -> None:
    side, seen = useful_side(size, least_share), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops, "squeezed", lambda image, size, box: seen.append(box) or image)
        random_crop(np.broadcast_to(np.uint8(0), (side, 2 * side, 3)), size, np.random.default_rng(seed), least_share)
    ((left, top, right, bottom),) = seen
    assert min(right - left, bottom - top) >= size * (1 - 1e-9)
    # Nor is more kept than the smallest crop wants.
    assert useful_side(size, least_share) * least_share / SQUEEZE < size + 1


def test_photos_that_do_not_fit_are_refused_before_they_are_decoded(
    tmp_path: Path, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, image in enumerate(photos[:3]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "text.png").write_text("no picture")
    needed = sum(image.nbytes for image in photos[:3])
    monkeypatch.setattr(data, "machine_bytes_available", lambda: needed)
    assert len(load_photos([tmp_path]).images) == 3
    monkeypatch.setattr(data, "machine_bytes_available", lambda: needed - 1)
    assert len(load_photos([tmp_path], short=20).images) == 3
    monkeypatch.setattr(data, "_pixels", lambda *_: pytest.fail("nothing to decode"))
    size = f"need {needed / 1e9:.3g} GB .* {(needed - 1) / 1e9:.3g} GB are free"
    with pytest.raises(InputError, match=f"4 photos {size}; give fewer photos, or a smaller --size"):
        load_photos([tmp_path])
    with pytest.raises(InputError, match="give fewer photos, or a smaller --side"):
        load_photos([tmp_path], side=1000)


def test_the_digest_is_that_of_the_photos(tmp_path: Path, photos: list[np.ndarray]) -> None:
    for name, image in zip(("a.png", "b.png"), photos, strict=False):
        Image.fromarray(image).save(tmp_path / name)
    found = load_photos([tmp_path])
    # Neither how they are kept nor what else lies there changes it, nor which of them are taken.
    (tmp_path / "text.png").write_text("no picture")
    assert load_photos([tmp_path], short=20).digest == found.digest == found.split(0.5)[0].digest
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    renamed = load_photos([tmp_path]).digest
    Image.fromarray(photos[2]).save(tmp_path / "c.png")
    assert len({found.digest, renamed, load_photos([tmp_path]).digest}) == 3


@pytest.mark.skipif(os.name != "posix", reason="file names are text there")
def test_a_file_name_may_be_no_text(tmp_path: Path, photos: list[np.ndarray]) -> None:
    for name in (b"\xff.png", b"b.png"):
        Image.fromarray(photos[0]).save(tmp_path / os.fsdecode(name))
    found = load_photos([tmp_path])
    assert [len(part.names) for part in found.split(0.02)] == [1, 1]
    assert len(found.digest) == 64


def test_folders_without_color_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no color photo.*of 0 image files"):
        load_photos([tmp_path])
    Image.new("L", (9, 9)).save(tmp_path / "gray.png")
    with pytest.raises(InputError, match=r"no color photo.*of 1 image files"):
        load_photos([tmp_path])
    with pytest.raises(InputError, match="is not a folder"):
        load_photos([tmp_path / "missing"])


def colors_by_name(folder: Path, count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    drawn = [random.integers(0, 255, (8, 9, 3), np.uint8).repeat(4, 0).repeat(4, 1) for _ in range(count)]
    for i, image in enumerate(drawn):
        Image.fromarray(image).save(folder / f"{i}.png")
    return drawn


def test_split_depends_on_the_name_of_a_photo(tmp_path: Path) -> None:
    colors_by_name(tmp_path, 40)
    training, validation = load_photos([tmp_path]).split(0.25)
    assert sorted(training.names + validation.names) == sorted(f"{i}.png" for i in range(40))
    assert 3 <= len(validation.names) <= 20
    for name in training.names[::2]:
        (tmp_path / name).unlink()
    assert load_photos([tmp_path]).split(0.25)[1].names == validation.names


def test_near_duplicates_of_training_photos_are_not_held_out(tmp_path: Path) -> None:
    drawn = colors_by_name(tmp_path, 40)
    training, validation = load_photos([tmp_path]).split(0.25)
    copied, mirrored, changed = (drawn[int(name.split(".")[0])] for name in training.names[:3])
    Image.fromarray(copied).resize((72, 60)).save(tmp_path / validation.names[0])
    Image.fromarray(mirrored[:, ::-1]).save(tmp_path / validation.names[1])
    Image.fromarray(np.uint8(0.6 * changed + 50)).save(tmp_path / validation.names[2])
    assert load_photos([tmp_path]).split(0.25)[1].names == validation.names[3:]


def test_photos_are_turned_upright(tmp_path: Path, photos: list[np.ndarray]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the right side of what is stored is the bottom
    Image.fromarray(photos[0]).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_photos([tmp_path]).images[0], np.rot90(photos[0], -1))


def test_batches_depend_on_seed_and_step_alone(photos: list[np.ndarray]) -> None:
    # Asked for in any order, or from the middle of a run, it is the same batch.
    backwards = {step: make_batch(photos, 16, 3, 7, step) for step in reversed(range(8))}
    for first in (0, 5):
        source = batches(photos, 16, 3, 7, first)
        for step in range(first, 8):
            np.testing.assert_array_equal(next(source), backwards[step])
        source.close()
    assert backwards[0].shape == (3, 16, 16, 3)
    assert backwards[0].dtype == np.uint8
    assert np.any(backwards[0] != backwards[1])
    assert np.any(backwards[0] != make_batch(photos, 16, 3, 8, 0))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_crops_of_any_photo_stay_within_its_colors(height: int, width: int, seed: int) -> None:
    image = np.full((height, width, 3), [10, 200, 90], np.uint8)
    crop = random_crop(image, 8, np.random.default_rng(seed))
    assert crop.shape == (8, 8, 3)
    np.testing.assert_allclose(crop, np.broadcast_to(image[:1, :1], crop.shape), atol=1)


@given(st.floats(0.05, 1), st.integers(0, 2**31 - 1))
def test_crops_cover_the_share_of_the_sides_asked_for(least_share: float, seed: int) -> None:
    """In a photo whose red and green tell where a pixel is."""
    rows, columns = np.mgrid[:150, :220]
    photo = np.uint8(np.stack([rows / 149 * 250, columns / 219 * 250, 0 * rows], -1))
    crop = random_crop(photo, 50, np.random.default_rng(seed), least_share).astype(int)
    # Between the centers of the outer pixels lie 49 / 50 of the window.
    height, width = (np.ptp(crop[..., i]) / 250 * 50 / 49 for i in (0, 1))
    assert min(height, width) > least_share / SQUEEZE - 0.03
    assert height / width < SQUEEZE**2 * 1.1 + 0.03 / width
    assert width / height < SQUEEZE**2 * 1.1 + 0.03 / height


def test_targets_are_the_mean_colors_of_the_cells(photos: list[np.ndarray]) -> None:
    rgb = make_batch(photos, 16, 2, 0, 0)
    luminance, ab = luminance_and_targets(jnp.asarray(rgb))
    lab = rgb2lab(rgb)
    np.testing.assert_allclose(luminance[..., 0], lab[..., 0], atol=1e-3)
    for i, j in [(0, 0), (3, 1), (2, 3)]:
        want = lab[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4, 1:].mean((1, 2))
        np.testing.assert_allclose(ab[:, i, j], want, atol=1e-3)


@given(st.integers(0, 2**31 - 1), st.integers(2, 9), st.integers(2, 9))
def test_a_retouched_photo_has_one_tone_curve_and_one_sharpness(seed: int, height: int, width: int) -> None:
    """A flat photo tells the tone; then one pixel of a drawn one tells the sharpening of all its pixels."""
    photo = np.random.default_rng(seed).uniform(40, 60, (1, height, width, 1)).astype(np.float32)
    key = jax.random.key(seed)
    once = jax.jit(retouched)
    flat, got = (np.asarray(once(jnp.asarray(x), key), np.float64) for x in (0 * photo + 50, photo))
    np.testing.assert_allclose(flat, flat.flat[0], rtol=1e-5)
    exponent = np.log(flat.flat[0] / 100) / np.log(0.5)
    assert TONE[0] <= np.log(exponent) <= TONE[1]
    curved = 100 * (photo[0, ..., 0].astype(np.float64) / 100) ** exponent
    detail = np.array(
        [
            [curved[i, j] - curved[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean() for j in range(width)]
            for i in range(height)
        ]
    )
    difference = got[0, ..., 0] - curved
    clearest = np.abs(detail).argmax()
    amount = difference.flat[clearest] / detail.flat[clearest]
    assert SHARPENING[0] - 1e-3 <= amount <= SHARPENING[1] + 1e-3
    np.testing.assert_allclose(got[0, ..., 0], curved + amount * detail, atol=1e-2)


def test_every_photo_of_a_batch_is_retouched_in_its_own_way() -> None:
    photos = jnp.broadcast_to(jnp.linspace(20, 80, 8)[:, None], (4, 8, 8))[..., None]
    got = np.asarray(retouched(photos, jax.random.key(0)))
    assert len({tuple(photo.ravel()) for photo in got}) == 4
    assert got.shape == photos.shape


@pytest.mark.parametrize("uniform_share", [0.5, 1.0])
def test_loss_agrees_with_the_reference_and_gray_crops_do_not_count(uniform_share: float) -> None:
    rng = np.random.default_rng(0)
    logits, ab = rng.normal(0, 2, (3, 2, 2, 313)), rng.uniform(-60, 60, (3, 2, 2, 2))
    ab[1] = rng.uniform(-4.9, 4.9, (2, 2, 2))
    prior = rng.dirichlet(np.full(313, 0.5))
    weights = reference.rebalancing_weights(prior, uniform_share)
    loss = jax.jit(jax.value_and_grad(rebalanced_loss, has_aux=True))
    (got, plain), gradient = loss(jnp.float32(logits), jnp.float32(ab), jnp.float32(weights))
    np.testing.assert_allclose((got, plain), reference.rebalanced_loss(logits, ab, weights), rtol=1e-4)
    assert not np.any(gradient[1])
    assert np.all(np.any(np.array(gradient)[[0, 2]], axis=(1, 2, 3)))
    (got, _), gradient = loss(jnp.float32(logits), jnp.zeros((3, 2, 2, 2)), jnp.float32(weights))
    assert got == 0
    assert not np.any(gradient)


def test_prior_is_a_distribution_over_the_colors_seen_that_rules_nothing_out(photos: list[np.ndarray]) -> None:
    prior = np.array(empirical_prior(photos, crops=1, size=16))
    np.testing.assert_allclose(prior.sum(), 1, rtol=1e-5)
    assert np.all(prior > 0)
    for rgb in ([150, 190, 250], [40, 90, 30]):
        color = rgb2lab(np.array(rgb) / 255)[1:]
        assert prior[np.linalg.norm(ab_bins() - color, axis=1) < 15].sum() > 0.1
    assert prior[np.linalg.norm(ab_bins() - [0, -100], axis=1) < 20].sum() < 1e-2


@pytest.fixture(scope="module")
def compiled(photos: list[np.ndarray]) -> tuple[jax.Array, Callable, Callable]:
    """Prior, step and validation of small photos."""
    prior = empirical_prior(photos, crops=1, size=16)
    step = make_step(CONFIG, CONFIG.class_weights(prior))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "VALIDATION_SIZE", CONFIG.size)
        return prior, step, validation.make_validation(CONFIG, photos, photos, prior)


@pytest.fixture
def compiled_once(monkeypatch: pytest.MonkeyPatch, compiled: tuple[jax.Array, Callable, Callable]) -> None:
    """Runs of one configuration share what they compile, and look at few crops beside their own."""
    prior, step, validate = compiled
    monkeypatch.setattr(loop, "empirical_prior", lambda *_: prior)
    monkeypatch.setattr(loop, "make_step", lambda *_: step)
    monkeypatch.setattr(loop, "make_validation", lambda *_: validate)


def read_log(folder: Path) -> list[dict[str, float]]:
    with (folder / "log.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def assert_same(got: TrainingState, want: TrainingState) -> None:
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(g, w)


@pytest.mark.usefixtures("compiled_once", "ctrl_c")
def test_training_reduces_the_loss_and_goes_on_where_it_stopped(
    tmp_path: Path, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    through = train(CONFIG, photos, photos, tmp_path / "through", validate_every=1, devices=1)
    rows = read_log(tmp_path / "through")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    samples = sorted((tmp_path / "through" / "samples").iterdir())
    assert [path.name for path in samples] == [f"{step:07d}.png" for step in range(1, 7)]
    with Image.open(samples[0]) as sheet:
        assert sheet.size == (len(photos) * CONFIG.size, 3 * CONFIG.size)
    np.testing.assert_allclose(np.load(tmp_path / "through" / "prior.npy").sum(), 1, rtol=1e-5)
    # The finished run has nothing left to do.
    assert_same(train(CONFIG, photos, photos, tmp_path / "through"), through)

    def ctrl_c_in_the_second_step(*args: object) -> Iterator[np.ndarray]:
        for i, batch in enumerate(batches(*args)):  # type: ignore[arg-type]
            if i == 1:
                signal.raise_signal(signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "batches", ctrl_c_in_the_second_step)
        stopped = train(CONFIG, photos, photos, tmp_path / "resumed", validate_every=4)
    assert int(stopped.step) == 2
    assert_same(train(CONFIG, photos, photos, tmp_path / "resumed", validate_every=4), through)
    assert [row["step"] for row in read_log(tmp_path / "resumed")] == [4, 6]
    assert [(phase["from_step"], phase["steps"]) for phase in phases(tmp_path / "resumed")] == [(0, CONFIG.steps)]

    source = {"photos": ["photos"], "phases": [{"commit": "first"}, {"commit": "last"}]}
    net = trained_network(through, CONFIG, photos, "test", source)
    net.save(tmp_path / "net.safetensors")
    loaded = CIC.load(tmp_path / "net.safetensors")
    assert loaded.manifest["training"]["step"] == 6
    assert loaded.manifest["training"]["photos"] == ["photos"]
    assert loaded.manifest["training"]["seed"] == CONFIG.seed
    assert loaded.manifest["training"]["commit"] == "last"
    assert loaded.manifest["jaxcolor"] == jaxcolor.__version__
    prior = np.load(tmp_path / "through" / "prior.npy")
    np.testing.assert_allclose(loaded.manifest["prior"], prior, rtol=1e-4)
    # Had the class weights been in the loss, the network would have learned p w; it gives p in any case.
    luminance = jnp.asarray(photos[0][:32, :32, 0] / 2.55, jnp.float32)
    published = replace(CONFIG, rebalance="loss")
    other = trained_network(through, published, photos, "test", {})
    assert other.manifest["training"]["commit"] == code_commit()
    want = net.predict(luminance, 32).probabilities
    np.testing.assert_allclose(other.rebalanced(other.predict(luminance, 32), 1.0).probabilities, want, rtol=1e-3)


@pytest.mark.usefixtures("compiled_once", "ctrl_c")
@pytest.mark.parametrize("what", ["loss", "weights", "moments", "held out", "interrupted"])
def test_a_run_that_diverges_keeps_its_last_checkpoint(
    tmp_path: Path, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """From step 5 on something is no number; the checkpoints are those of steps 2 and 4."""
    usual, usual_validation = loop.make_step(), loop.make_validation()

    def step(state: TrainingState, *rest: Any) -> tuple[TrainingState, jax.Array]:
        number = int(state.step)
        state, losses = usual(state, *rest)
        if number < 4:
            return state, losses
        if what == "interrupted":
            signal.raise_signal(signal.SIGINT)
        spoiled = {"weights": "params", "interrupted": "average", "moments": "optimiser"}
        if what in spoiled:
            leaves, tree = jax.tree.flatten(getattr(state, spoiled[what]))
            leaves[-1] = leaves[-1] * jnp.inf * 0
            state = state.replace(**{spoiled[what]: jax.tree.unflatten(tree, leaves)})
        return state, losses * jnp.where(what == "loss", jnp.nan, 1)

    def validate(state: TrainingState) -> tuple[dict[str, float], np.ndarray]:
        measures, sheet = usual_validation(state)
        return (measures | {"cross_entropy": np.nan} if what == "held out" and state.step > 4 else measures), sheet

    run = partial(train, CONFIG, photos, photos, tmp_path, validate_every=2, progress="none", devices=1)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_step", lambda *_: step)
        patch.setattr(loop, "make_validation", lambda *_: validate)
        with pytest.raises(InputError, match=r"diverged by step [56].*step 4 is intact.*--learning-rate below 0\.1"):
            run()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]
    assert [row["step"] for row in read_log(tmp_path)] == [2, 4]
    # What is told is done: the same command goes on from there.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run()))
    assert [row["step"] for row in read_log(tmp_path)] == [2, 4, 6]


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("what", ["the run's record", "the log"])
def test_a_full_disk_beside_the_checkpoints_tells_which_is_intact(
    tmp_path: Path, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = partial(train, CONFIG, photos, photos, tmp_path, validate_every=3, progress="none", devices=1)
    stop_after(monkeypatch, 4)
    with pytest.raises(RuntimeError, match="stopped"):
        run()
    monkeypatch.setattr(loop, "batches", batches)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    with monkeypatch.context() as patch:
        patch.setattr(*{"the log": (Image.Image, "save"), "the run's record": (np, "save")}[what], full)
        step = {"the log": 6, "the run's record": 3}[what]
        told = f"cannot write {what} to {tmp_path}: No space left on device; the checkpoint of step {step} is intact"
        with pytest.raises(InputError, match=re.escape(told)):
            run()
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*") if path.name != "log.csv"} == {
        path: content for path, content in before.items() if path.name != "log.csv"
    }
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["0000003.png"]
    assert int(run().step) == CONFIG.steps


def test_a_run_begins_with_given_weights(photos: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    prior = jnp.asarray(rng.dirichlet(np.ones(313)), jnp.float32)
    net = CIC.init(jax.random.key(0), CONFIG.width)
    # Sharper than the network's own logits, and trained with the class weights in the loss.
    sharp, published = replace(net, logit_scale=1.5), replace(CONFIG, rebalance="loss")
    state = state_from(sharp, published, photos, prior)
    begun = CIC(merged({"params": state.params, "batch_stats": state.batch_stats}), width=CONFIG.width)
    luminance = jnp.asarray(photos[0][:32, :32, 0] / 2.55, jnp.float32)
    want = sharp.predict(luminance, 32).reweighted(published.class_weights(prior)).probabilities
    np.testing.assert_allclose(begun.predict(luminance, 32).probabilities, want, rtol=1e-3, atol=1e-7)
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params, state.average))
    wider = replace(published, width=2 * CONFIG.width)
    state = state_from(sharp, wider, photos, prior)
    begun = CIC(merged({"params": state.params, "batch_stats": state.batch_stats}), width=wider.width)
    np.testing.assert_allclose(begun.predict(luminance, 32).probabilities, want, rtol=1e-3, atol=1e-7)
    kernel = merged({"params": state.params, "batch_stats": state.batch_stats})["params"]["model5_2"]["kernel"]
    new = kernel.shape[3] // 2
    assert jnp.abs(kernel[:, :, new:, new:]).max() > 0.1  # the new channels have something to begin with
    np.testing.assert_allclose(kernel[:, :, new:, :new], 0, atol=1e-6)
    with pytest.raises(InputError, match="the width must not be below"):
        state_from(net, replace(CONFIG, width=CONFIG.width / 2), photos, prior)


@pytest.mark.parametrize("tells_prior", [True, False])
@pytest.mark.parametrize("rebalance", ["loss", "prediction"])
def test_a_teacher_teaches_what_the_loss_asks_for(
    photos: list[np.ndarray], tells_prior: bool, rebalance: Literal["loss", "prediction"]
) -> None:
    """With class weights w, which a teacher without a prior has built in: p w where they are in the loss, p if not."""
    prior = np.random.default_rng(0).dirichlet(np.ones(313))
    net = replace(CIC.init(jax.random.key(0), 1 / 16), logit_scale=1.5)
    if tells_prior:
        net = replace(net, manifest=Manifest({"prior": prior.tolist(), "training": {"uniform_share": 0.5}}))
    config = replace(CONFIG, rebalance=rebalance)
    luminance = jnp.asarray(photos[0][:32, :32, 0] / 2.55, jnp.float32)
    given = np.float64(net.predict(luminance, 32).probabilities)
    weights = reference.rebalancing_weights(prior, 0.5)
    want = given * weights ** (int(rebalance == "loss") - int(not tells_prior))
    got = teacher_from(net, config, jnp.float32(prior)).predict(luminance, 32).probabilities
    np.testing.assert_allclose(got, want / want.sum(-1, keepdims=True), rtol=1e-3, atol=1e-7)


@pytest.mark.slow
def test_a_teacher_has_its_share_of_the_loss_and_is_learned_from(photos: list[np.ndarray]) -> None:
    config = replace(CONFIG, teacher_share=0.75, steps=40, warmup=1, decay=1)
    prior, rgb = jnp.full(313, 1 / 313), jnp.asarray(make_batch(photos, CONFIG.size, CONFIG.batch, 0, 0))
    rgb = rgb.at[:3].set(rgb[:3, ..., :1])  # gray crops, of which nothing is learned
    teacher = teacher_from(replace(CIC.init(jax.random.key(5), 1 / 16), logit_scale=3.0), config, prior)
    state = initial_state(config, prior)
    luminance, ab = luminance_and_targets(rgb)
    seen = retouched(luminance, jax.random.fold_in(jax.random.key(config.seed), 0))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    network = CICNetwork(config.width, normalised=True)
    own = log_softmax(np.float64(network.apply(variables, seen, train=True, mutable=["batch_stats"])[0]), axis=-1)
    taught = softmax(np.float64(CICNetwork(1 / 16).apply(teacher.variables, seen)), axis=-1)
    truth, plain = reference.rebalanced_loss(own, np.float64(ab), np.ones(313))
    away = -(taught * own).sum(-1)[3:].mean()
    step = make_step(config, config.class_weights(prior))
    state, losses = step(state, rgb, teacher)
    np.testing.assert_allclose(losses, [0.25 * truth + 0.75 * away, plain], rtol=1e-4)
    first = float(losses[0])
    for _ in range(config.steps - 1):
        state, losses = step(state, rgb, teacher)
    assert float(losses[0]) < first - 0.1


def gradients(config: TrainingConfig, params: dict, rgb: jax.Array) -> tuple[float, dict[str, dict[str, np.ndarray]]]:
    """Loss, and its derivatives by layer and part, of fresh batch statistics."""
    network = CICNetwork(config.width, normalised=True, half=config.half)
    stats = random_variables(jax.random.key(0), config.width, normalised=True)["batch_stats"]

    def loss(params: dict) -> jax.Array:
        luminance, ab = luminance_and_targets(rgb)
        variables = {"params": params, "batch_stats": stats}
        logits, updated = network.apply(variables, luminance, train=True, mutable=["batch_stats"])
        assert {leaf.dtype for leaf in jax.tree.leaves((logits, updated))} == {jnp.dtype("float32")}
        return rebalanced_loss(logits, ab, jnp.ones(313))[0]

    # Nearly all of the time is compilation, so it does not optimise.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    value, gradient = jax.jit(jax.value_and_grad(loss), compiler_options=options)(params)
    return float(value), jax.tree.map(np.float64, gradient)


@pytest.mark.slow
def test_half_precision_changes_gradients_about_as_much_as_rounding_the_kernels(photos: list[np.ndarray]) -> None:
    """Which is much in a random network, so that no fixed tolerance tells what is right."""
    config, half = replace(CONFIG, width=1 / 16), replace(CONFIG, width=1 / 16, precision="bfloat16")
    rgb = jnp.asarray(make_batch(photos, CONFIG.size, CONFIG.batch, 0, 0))
    params = random_variables(jax.random.key(0), config.width, normalised=True)["params"]
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype) if x.ndim == 4 else x, params)
    loss, want = gradients(config, params, rgb)
    _, near = gradients(config, rounded, rgb)
    value, got = gradients(half, params, rgb)
    assert 0 < abs(value - loss) < 1e-3 * loss
    for name in (name for name in want if "kernel" in want[name]):
        off, usual = (np.linalg.norm(g[name]["kernel"] - want[name]["kernel"]) for g in (got, near))
        assert 0 < off < 3 * usual, name
        if name.startswith("model8_"):  # close to the loss, where little has piled up
            assert off < 0.3 * np.linalg.norm(want[name]["kernel"])
    off = np.linalg.norm(got["model8_6"]["kernel"] - want["model8_6"]["kernel"])
    assert off < 0.02 * np.linalg.norm(want["model8_6"]["kernel"])


def test_half_precision_stays_within_the_step() -> None:
    config = replace(CONFIG, precision="bfloat16")
    state = jax.eval_shape(partial(initial_state, config), jnp.full(313, 1 / 313))
    rgb = jax.ShapeDtypeStruct((CONFIG.batch, CONFIG.size, CONFIG.size, 3), jnp.uint8)
    stepped, losses = jax.eval_shape(make_step(config, jnp.ones(313)), state, rgb)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), stepped) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert losses.dtype == jnp.float32


@pytest.mark.slow
def test_a_run_in_half_precision_goes_on_to_the_bit(
    tmp_path: Path, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, precision="bfloat16", steps=4)
    step = make_step(config, jnp.ones(313))
    monkeypatch.setattr(loop, "empirical_prior", lambda *_: jnp.full(313, 1 / 313))
    monkeypatch.setattr(loop, "make_step", lambda *_: step)
    monkeypatch.setattr(loop, "make_validation", lambda *_: lambda _: (dict.fromkeys(MEASURES, 1.0), photos[0]))
    through = train(config, photos, photos, tmp_path / "through", progress="none", devices=1)
    stop_after(monkeypatch, 3)
    with pytest.raises(RuntimeError, match="stopped"):
        train(config, photos, photos, tmp_path / "resumed", validate_every=2, progress="none", devices=1)
    monkeypatch.setattr(loop, "batches", batches)
    resumed = train(config, photos, photos, tmp_path / "resumed", validate_every=2, progress="none", devices=1)
    assert_same(resumed, through)


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Of what a run is given, so many batches only, as if the power failed."""

    def given(*args: Any) -> Iterator[np.ndarray]:
        yield from islice(batches(*args), count)
        raise RuntimeError("stopped")

    monkeypatch.setattr(loop, "batches", given)


def test_adam_is_that_of_the_paper() -> None:
    """β = 0.9 and 0.99, the decay of kernels in the gradient, which is cut to its norm before."""
    config = replace(CONFIG, optimiser="adam", weight_decay=0.3, gradient_norm=2.0, warmup=2, steps=100)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "bias": (4,)}
    params = {"model1_2": {name: rng.normal(size=shape) for name, shape in shapes.items()}}
    optimiser = optimiser_of(config)
    got = jax.tree.map(jnp.float32, params)
    moments = optimiser.init(got)
    first, second = ({name: np.zeros(shape) for name, shape in shapes.items()} for _ in range(2))
    for number in range(1, 4):
        gradient = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        updates, moments = optimiser.update({"model1_2": jax.tree.map(jnp.float32, gradient)}, moments, got)
        got = optax.apply_updates(got, updates)
        length = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        for name, x in params["model1_2"].items():
            g = gradient[name] * min(1, 2.0 / length) + (0.3 * x if name == "kernel" else 0)
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.99 * second[name] + 0.01 * g**2
            mean, square = first[name] / (1 - 0.9**number), second[name] / (1 - 0.99**number)
            x -= config.learning_rate * min(1, number / 2) * mean / (np.sqrt(square) + 1e-8)
    for name, want in params["model1_2"].items():
        np.testing.assert_allclose(got["model1_2"][name], want, rtol=1e-4, atol=1e-6)


def test_class_weights_are_in_the_loss_or_left_to_the_prediction() -> None:
    prior = jnp.linspace(1, 3, 313) / 626
    published = TrainingConfig(rebalance="loss").class_weights(prior)
    np.testing.assert_allclose(published, rebalancing_weights(prior, 0.5))
    np.testing.assert_allclose(TrainingConfig(rebalance="prediction").class_weights(prior), 1, rtol=1e-5)


def learning_rates(config: TrainingConfig) -> Callable[[int], float]:
    return lambda step: float(config.rate(jnp.int32(step)))


def test_learning_rate_rises_stays_and_falls() -> None:
    rate = learning_rates(TrainingConfig(steps=100, warmup=10, decay=20, learning_rate=2.0))
    np.testing.assert_allclose(
        [rate(0), rate(4), rate(9), rate(50), rate(80), rate(90), rate(100)], [0.2, 1, 2, 2, 2, 1, 0]
    )


def test_statistics_of_the_averaged_weights_are_those_of_their_activations(photos: list[np.ndarray]) -> None:
    """Whatever the running statistics are: the network in prediction mode agrees with batch mode on those crops."""
    prior = jnp.full(313, 1 / 313)
    state = initial_state(CONFIG, prior)
    wrong = jax.tree.map(lambda x: x + 100, state.batch_stats)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "STATISTICS_BATCHES", 1)
        variables = validation.make_averaged_variables(CONFIG, photos)(state.replace(batch_stats=wrong))
    luminance, _ = luminance_and_targets(jnp.asarray(make_batch(photos, CONFIG.size, CONFIG.batch, STATISTICS_SEED, 0)))
    network = CICNetwork(CONFIG.width)
    trained, _ = jax.jit(partial(network.apply, train=True, mutable=["batch_stats"]))(variables, luminance)
    np.testing.assert_allclose(jax.jit(network.apply)(variables, luminance), trained, atol=2e-3)
