"""Picture files: every mode and format against Pillow, pypng, tifffile and scikit-image; bad input; writing."""

import io
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import imagecodecs
import jax.numpy as jnp
import numpy as np
import png
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps
from skimage.color import rgb2lab

from jaxcolor.color import spaces
from jaxcolor.errors import InputError
from jaxcolor.images import (
    MAX_PIXELS,
    OUTPUT_SUFFIXES,
    GrayImage,
    check_output,
    read_gray,
    reading,
    write_image,
    writing,
)
from jaxcolor.images import luminance as luminance_module
from jaxcolor.images.profiles import ProfileKind, from_srgb, profile_kind

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ADOBE = imagecodecs.cms_profile("adobergb")
GRAY_GAMMA = imagecodecs.cms_profile("gray", gamma=1.8)
LOSSLESS = [".png", ".tif", ".webp"]


def lstar(rgb: np.ndarray) -> np.ndarray:
    """L* by scikit-image of sRGB in [0, 1], gray or color."""
    rgb = np.asarray(rgb, float)
    return rgb2lab(rgb if rgb.ndim == 3 else np.stack([rgb] * 3, axis=-1))[..., 0]


def picture(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return generator.random(shape).astype(dtype)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def colors(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((*shape, 3)).astype(np.float32)


def fails(path: str | Path, *words: str) -> str:
    """The one-line message that reading a path fails with."""
    with pytest.raises(InputError) as caught:
        read_gray(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in (str(path), "expected", *words)), message
    return message


def write_deep_png(path: Path, pixels: np.ndarray) -> None:
    """16-bit PNG by pypng, which shares no code with what is tested."""
    planes = pixels.shape[2] if pixels.ndim == 3 else 1
    writer = png.Writer(
        pixels.shape[1], pixels.shape[0], bitdepth=16, greyscale=planes < 3, alpha=planes in (2, 4), compression=1
    )
    with path.open("wb") as handle:
        writer.write(handle, pixels.reshape(len(pixels), -1).tolist())


# --- L* ---------------------------------------------------------------------------------------------------------


def test_the_constants_are_those_of_the_color_package() -> None:
    assert spaces.RGB_TO_XYZ[1] == luminance_module.LUMINANCE_WEIGHTS


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays_become_the_lstar_that_scikit_image_computes(dtype: str, channels: int | None) -> None:
    array = picture(9, 7, *([] if channels is None else [channels]), dtype=dtype)
    gray = GrayImage.from_array(array)
    unit = array / (1.0 if dtype.startswith("float") else np.iinfo(dtype).max)
    color = unit[..., :3] if channels in (3, 4) else unit if channels is None else unit[..., 0]
    np.testing.assert_allclose(gray.luminance, lstar(color), atol=1e-3)
    assert gray.luminance.dtype == np.float32
    assert gray.bit_depth == (16 if dtype == "uint16" else 8)
    if channels in (2, 4):
        np.testing.assert_allclose(gray.alpha, unit[..., -1], atol=1e-6)
    else:
        assert gray.alpha is None


def test_all_gray_levels_are_exact() -> None:
    for dtype in ("uint8", "uint16"):
        levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)[None]
        result = GrayImage.from_array(levels).luminance
        np.testing.assert_allclose(result, lstar(levels / levels.max()), atol=1e-4)
        assert result[0, 0] == 0
        assert result[0, -1] == 100
    assert GrayImage.from_array(np.array([[True, False]])).luminance.tolist() == [[100, 0]]


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 3, 4]), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_strip_of_rows_never_shows(height: int, width: int, channels: int, deep: bool, seed: int) -> None:
    array = picture(height, width, channels, dtype="uint16" if deep else "uint8", seed=seed)
    whole = GrayImage.from_array(array)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(luminance_module, "STRIP_PIXELS", 30)
        np.testing.assert_array_equal(GrayImage.from_array(array).luminance, whole.luminance)


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.zeros((2, 2, 5), np.uint8), "shape"),
        (np.zeros((0, 2), np.uint8), "empty"),
        (np.zeros(3, np.uint8), "shape"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.full((2, 2), 200.0), "[0, 1]"),
        (np.array([[0.5, np.nan]]), "1 of 2"),
        (np.array([[np.inf, -np.inf]]), "2 of 2"),
    ],
)
def test_arrays_of_another_kind_are_refused(array: np.ndarray, word: str) -> None:
    with pytest.raises(InputError, match="expected") as caught:
        GrayImage.from_array(array)
    assert word in str(caught.value)


def test_gray_image_checks_its_fields() -> None:
    assert GrayImage(np.full((2, 3), 100.00001)).luminance.max() == 100
    for fields in (
        {"luminance": np.zeros((2, 2, 1))},
        {"luminance": np.full((2, 2), 200.0)},
        {"luminance": np.full((2, 2), np.nan)},
        {"luminance": np.zeros((2, 2)), "alpha": np.zeros((2, 3))},
        {"luminance": np.zeros((2, 2)), "alpha": np.full((2, 2), 255.0)},
        {"luminance": np.zeros((2, 2)), "bit_depth": 12},
    ):
        with pytest.raises(InputError):
            GrayImage(**fields)


def test_reading_starts_no_jax(tmp_path: Path) -> None:
    Image.fromarray(picture(3, 3)).save(tmp_path / "a.png")
    code = "import sys, jaxcolor; jaxcolor.read_gray(sys.argv[1]); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)


# --- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".gif"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_and_formats(tmp_path: Path, mode: str, suffix: str) -> None:
    file = tmp_path / f"picture{suffix}"
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    try:
        Image.fromarray(picture(11, 13, 4)).convert(mode).save(file, **options)
    except (OSError, ValueError):
        pytest.skip("not a mode of this format")
    with Image.open(file) as stored:
        has_alpha = "A" in stored.mode or "transparency" in stored.info
        expected = np.asarray(stored.convert("RGBA" if has_alpha else "RGB")) / 255
    gray = read_gray(file)
    np.testing.assert_allclose(gray.luminance, lstar(expected[..., :3]), atol=0.5 if mode == "CMYK" else 1e-3)
    assert (gray.alpha is not None) == has_alpha
    if has_alpha:
        np.testing.assert_allclose(gray.alpha, expected[..., 3], atol=1e-6)
    assert (gray.bit_depth, gray.icc, gray.source, gray.notes) == (8, None, file, ())


def test_palette_with_transparency(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    image = Image.frombytes("P", (3, 2), indices.tobytes())
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "one.png", transparency=1)
    image.save(tmp_path / "each.png", transparency=bytes([0, 128, 255]))
    table = np.eye(3)
    for name, alphas in (("one", [1, 0, 1]), ("each", [0, 128 / 255, 1])):
        gray = read_gray(tmp_path / f"{name}.png")
        np.testing.assert_allclose(gray.luminance, lstar(table[indices]), atol=1e-3)
        np.testing.assert_allclose(gray.alpha, np.array(alphas)[indices], atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_color_becomes_alpha(tmp_path: Path, mode: str) -> None:
    array = np.array([[10, 20], [10, 30]], np.uint8)
    image = Image.fromarray(array).convert(mode)
    image.save(tmp_path / "a.png", transparency=10 if mode == "L" else (10, 10, 10))
    assert read_gray(tmp_path / "a.png").alpha.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_all_bits(tmp_path: Path, channels: int) -> None:
    pixels = picture(6, 5, channels, dtype="uint16")
    write_deep_png(tmp_path / "deep.png", pixels)
    gray = read_gray(tmp_path / "deep.png")
    unit = pixels / 65535
    np.testing.assert_allclose(gray.luminance, lstar(unit[..., :3] if channels > 2 else unit[..., 0]), atol=1e-3)
    assert gray.bit_depth == 16
    if channels in (2, 4):
        np.testing.assert_allclose(gray.alpha, unit[..., -1], atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["gray", "white is zero", "rgb", "rgba", "planar rgb", "gray deflate"])
def test_deep_tiff(tmp_path: Path, dtype: str, kind: str) -> None:
    pixels = picture(8, 9, *({"rgb": [3], "rgba": [4], "planar rgb": [3]}.get(kind, [])), dtype=dtype)
    options: dict[str, Any] = {"photometric": "rgb" if "rgb" in kind else "minisblack"}
    stored = pixels
    if kind == "white is zero":
        options["photometric"] = "miniswhite"
    if kind == "rgba":
        options["extrasamples"] = ["unassalpha"]
    if kind == "planar rgb":
        options["planarconfig"], stored = "separate", np.moveaxis(pixels, -1, 0)
    if kind == "gray deflate" and dtype != "float16":
        options |= {"compression": "zlib", "predictor": True}
    tifffile.imwrite(tmp_path / "deep.tif", stored, **options)
    unit = pixels.astype(float) / (1 if dtype.startswith("float") else np.iinfo(dtype).max)
    color = 1 - unit if kind == "white is zero" else unit[..., :3] if "rgb" in kind else unit
    gray = read_gray(tmp_path / "deep.tif")
    np.testing.assert_allclose(gray.luminance, lstar(color), atol=2e-3)
    assert gray.bit_depth == 16
    assert gray.notes == ()
    if kind == "rgba":
        np.testing.assert_allclose(gray.alpha, unit[..., 3], atol=1e-5)


@pytest.mark.parametrize(("bits", "dtype"), [(10, "uint16"), (12, "uint16"), (14, "uint16"), (24, "uint32")])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_tiff_of_fewer_bits_than_its_pixels_hold(tmp_path: Path, bits: int, dtype: str, photometric: str) -> None:
    top = 2**bits - 1
    levels = np.linspace(0, top, 63).astype(dtype).reshape(7, 9)
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric=photometric, bitspersample=bits)
    unit = levels / top
    gray = read_gray(tmp_path / "a.tif")
    np.testing.assert_allclose(gray.luminance, lstar(unit if photometric == "minisblack" else 1 - unit), atol=2e-3)


def test_a_preview_is_not_taken_for_the_picture(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "raw.tif") as file:
        file.write(picture(8, 9), subfiletype=1, subifds=1)
        file.write(picture(80, 90))
    fails(tmp_path / "raw.tif", "preview")
    dng = (50706, "B", 4, b"\1\4\0\0", True)
    tifffile.imwrite(tmp_path / "camera.dng", picture(8, 9), extratags=[dng])
    fails(tmp_path / "camera.dng", "camera's raw file")


def test_premultiplied_alpha_is_divided_out(tmp_path: Path) -> None:
    color, alpha = np.full((4, 4, 3), 0.5), np.tile([0.0, 0.25, 0.5, 1.0], (4, 1))[..., None]
    stored = np.concatenate([color * alpha, alpha], axis=-1)
    for dtype, top in (("float32", 1), ("uint16", 65535)):
        pixels = (stored * top).round() if top > 1 else stored
        file = tmp_path / f"{dtype}.tif"
        tifffile.imwrite(file, pixels.astype(dtype), photometric="rgb", extrasamples=["assocalpha"])
        gray = read_gray(file)
        np.testing.assert_allclose(gray.luminance[:, 1:], lstar(color)[:, 1:], atol=0.01)
        np.testing.assert_allclose(gray.alpha, alpha[..., 0], atol=1e-4)


def test_color_tiff_that_was_stored_as_pages_of_rows(tmp_path: Path) -> None:
    pixels = colors(6, 5)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    np.testing.assert_allclose(read_gray(tmp_path / "a.tif").luminance, lstar(pixels), atol=1e-3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", "16.png", "16.tif"])
def test_orientation_is_applied_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    file = tmp_path / f"turned{suffix}"
    pixels = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if suffix == "16.tif":
        tag = (274, "H", 1, orientation, True)
        tifffile.imwrite(file, pixels.astype(np.uint16) * 257, photometric="minisblack", extratags=[tag])
    elif suffix == "16.png":
        Image.fromarray(pixels.astype(np.uint16) * 257).save(file, exif=exif)
    else:
        image.save(file, exif=exif, **({"lossless": True} if suffix == ".webp" else {"quality": 100}))
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image))
    gray = read_gray(file)
    np.testing.assert_allclose(gray.luminance, lstar(upright / 255), atol=1.5 if suffix == ".jpg" else 1e-3)
    for output in OUTPUT_SUFFIXES:
        write_image(tmp_path / f"out{output}", np.stack([upright / 255.0] * 3, axis=-1), like=gray)
        with Image.open(tmp_path / f"out{output}") as written:
            assert written.getexif().get(0x0112, 1) == 1
            assert written.size == upright.shape[::-1]


def test_nonsense_orientation_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    Image.fromarray(picture(4, 6)).save(tmp_path / "a.png", exif=exif)
    assert read_gray(tmp_path / "a.png").shape == (4, 6)


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png"])
def test_of_several_pages_the_first_is_read(tmp_path: Path, suffix: str) -> None:
    pages = [Image.fromarray(np.full((4, 5), level, np.uint8)) for level in (0, 128, 255)]
    pages[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=pages[1:])
    gray = read_gray(tmp_path / f"a{suffix}")
    assert not gray.luminance.any()
    assert gray.notes == ("the first of 3 pages or frames was read",)


def test_deep_pages_too(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 8, 9), np.uint16), photometric="minisblack")
    assert read_gray(tmp_path / "a.tif").notes == ("the first of 3 pages or frames was read",)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (10, 30000)])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_unusual_shapes_work(tmp_path: Path, shape: tuple[int, int], suffix: str) -> None:
    pixels = picture(*shape)
    Image.fromarray(pixels).save(tmp_path / f"in{suffix}")
    gray = read_gray(tmp_path / f"in{suffix}")
    assert gray.shape == shape
    write_image(tmp_path / f"out{suffix}", np.full((*shape, 3), 0.25), like=gray)
    with Image.open(tmp_path / f"out{suffix}") as written:
        assert written.size == shape[::-1]
        np.testing.assert_allclose(np.asarray(written), 64, atol=1)


def test_large_pictures_are_read_and_pillow_keeps_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture(40, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow itself would now refuse 2000 pixels
    assert read_gray(tmp_path / "a.png").shape == (40, 50)
    assert Image.MAX_IMAGE_PIXELS == 100
    threads = [threading.Thread(target=read_gray, args=[tmp_path / "a.png"]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(reading, "MAX_PIXELS", 1000)
    # Told before anything is decoded.
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    fails(tmp_path / "a.png", "million pixels")
    assert MAX_PIXELS == 500_000_000


# --- bad files --------------------------------------------------------------------------------------------------


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    fails(tmp_path / "missing.png", "no such file")
    fails(tmp_path, "folder")
    (tmp_path / "text.png").write_text("I am text")
    fails(tmp_path / "text.png", "not a picture")
    for name in ("empty.png", "empty.tif", "empty.jpg", "empty"):
        (tmp_path / name).touch()
        fails(tmp_path / name, "empty (0 bytes)")
    os.mkfifo(tmp_path / "pipe.png")
    fails(tmp_path / "pipe.png", "no regular file")


def test_running_out_of_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    Image.fromarray(picture(3, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(reading, "_read", exhausted)
    with pytest.raises(InputError, match="does not fit into memory"):
        read_gray(tmp_path / "a.png")


def test_an_unreadable_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", denied)
    fails(tmp_path / "a.png", "Permission denied")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".gif", "16.png", "16.tif", "lzw.tif"])
@pytest.mark.parametrize("kept", [0.97, 0.5, 0.02])
def test_truncated_files_are_refused(
    tmp_path: Path, suffix: str, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels = picture(64, 64)
    file = tmp_path / f"a{suffix}"
    if suffix == "16.tif":
        tifffile.imwrite(file, pixels.astype(np.uint16), photometric="minisblack")
    elif suffix == "16.png":
        write_deep_png(file, pixels.astype(np.uint16))
    else:
        Image.fromarray(pixels).save(file, **({"compression": "tiff_lzw"} if "lzw" in suffix else {}))
    data = file.read_bytes()
    file.write_bytes(data[: max(12, int(len(data) * kept))])
    fails(file, "damaged or truncated")
    assert capfd.readouterr() == ("", "")


@given(st.sampled_from([".png", ".jpg", ".tif", ".webp", ".bmp", ".gif", "16.tif"]), st.data())
def test_damaged_files_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    file = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    if suffix == "16.tif":
        tifffile.imwrite(file, picture(9, 9, dtype="uint16"), photometric="minisblack")
    else:
        Image.fromarray(picture(9, 9)).save(file)
    content = bytearray(file.read_bytes())
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    message = ""
    try:
        read_gray(file)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 400


def test_float_tiff_with_bad_values(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    pixels = picture(5, 5, dtype="float32")
    pixels[1, 2], pixels[3, 3] = np.nan, np.inf
    tifffile.imwrite(file, pixels, photometric="minisblack")
    fails(file, "2 of 25", "NaN")
    tifffile.imwrite(file, np.full((5, 5), 255.0, np.float32), photometric="minisblack")
    fails(file, "range from 255 to 255", "[0, 1]", "divide")
    tifffile.imwrite(file, np.full((5, 5), 1.0005, np.float32), photometric="minisblack")
    assert (read_gray(file).luminance == 100).all()
    tifffile.imwrite(file, np.zeros((5, 5), np.int16), photometric="minisblack")
    fails(file, "int16")
    tifffile.imwrite(file, np.zeros((5, 5), np.complex64), photometric="minisblack")
    fails(file, "complex64")


# --- writing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", OUTPUT_SUFFIXES)
def test_colors_come_back(tmp_path: Path, suffix: str) -> None:
    smooth = np.stack(np.meshgrid(np.linspace(0, 1, 24), np.linspace(0, 1, 16)), axis=-1)
    rgb = np.concatenate([smooth, 1 - smooth[..., :1]], axis=-1)
    write_image(tmp_path / f"a{suffix}", rgb)
    with Image.open(tmp_path / f"a{suffix}") as written:
        assert (written.mode, written.size) == ("RGB", (24, 16))
        error = np.abs(np.asarray(written) - 255 * rgb).max()
    assert error <= (6 if suffix in (".jpg", ".jpeg") else 0.501)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_jax_arrays_are_accepted(tmp_path: Path, dtype: str) -> None:
    half = jnp.full((2, 3, 3), 0.5, dtype)
    write_image(tmp_path / "a.png", half)
    np.testing.assert_allclose(read_gray(tmp_path / "a.png").luminance, lstar(np.full((2, 3), 128 / 255)), atol=1e-3)
    np.testing.assert_allclose(GrayImage.from_array(half).luminance, lstar(np.full((2, 3), 0.5)), atol=1e-3)


def test_jpeg_keeps_chroma_at_full_resolution(tmp_path: Path) -> None:
    rgb = np.zeros((16, 16, 3))
    rgb[:, ::2, 0] = rgb[:, 1::2, 2] = 1.0
    write_image(tmp_path / "a.jpg", rgb)
    with Image.open(tmp_path / "a.jpg") as written:
        assert np.abs(np.asarray(written) / 255.0 - rgb).max() < 0.1  # 4:2:0 would mix the columns


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_16_bit_output_has_16_bits(tmp_path: Path, suffix: str, with_alpha: bool) -> None:
    rgb, alpha = colors(7, 9).astype(np.float64), picture(7, 9, dtype="float32") if with_alpha else None
    like = GrayImage(np.zeros((7, 9)), alpha, bit_depth=16, icc=SRGB)
    write_image(tmp_path / f"a{suffix}", rgb, like=like)
    if suffix == ".png":
        width, height, rows, info = png.Reader(bytes=(tmp_path / "a.png").read_bytes()).read()
        stored = np.array(list(rows)).reshape(height, width, -1)
        assert info["bitdepth"] == 16
        with Image.open(tmp_path / "a.png") as written:
            assert written.info["icc_profile"] == SRGB
    else:
        with tifffile.TiffFile(tmp_path / "a.tif") as tif:
            stored, page = tif.asarray(), tif.pages[0].aspage()
            assert page.iccprofile == SRGB
            assert [int(kind) for kind in page.extrasamples] == ([2] if with_alpha else [])
    expected = rgb if alpha is None else np.concatenate([rgb, alpha[..., None]], axis=-1)
    np.testing.assert_allclose(stored / 65535, expected, atol=0.51 / 65535)


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("depth", [8, 16])
def test_a_gray_picture_makes_the_round_trip(tmp_path: Path, suffix: str, depth: int) -> None:
    levels = picture(16, 16, 2, dtype=f"uint{depth}")
    if depth == 16:
        write_deep_png(tmp_path / "in.png", levels)
    else:
        Image.fromarray(levels).save(tmp_path / "in.png", icc_profile=SRGB)
    gray = read_gray(tmp_path / "in.png")
    unit = levels[..., :1] / np.iinfo(levels.dtype).max
    write_image(tmp_path / f"out{suffix}", np.repeat(unit, 3, axis=-1), like=gray)
    back = read_gray(tmp_path / f"out{suffix}")
    stays_deep = depth == 16 and suffix != ".webp"
    assert back.bit_depth == (16 if stays_deep else 8)
    assert back.icc == gray.icc == (None if depth == 16 else SRGB)
    np.testing.assert_allclose(back.luminance, gray.luminance, atol=0.3 if depth == 16 and not stays_deep else 1e-3)
    np.testing.assert_allclose(back.alpha, gray.alpha, atol=1e-6 if depth == 8 or stays_deep else 0.002)


@given(
    st.sampled_from([".png", ".tif", ".webp"]), st.integers(1, 24), st.integers(1, 24), st.booleans(), st.booleans(),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_picture_is_written_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, height: int, width: int, deep: bool, alpha: bool, seed: int
) -> None:
    file = tmp_path_factory.getbasetemp() / f"any{suffix}"
    rgb, opacity = colors(height, width, seed=seed), picture(height, width, dtype="float32", seed=seed)
    like = GrayImage(np.zeros((height, width)), opacity if alpha else None, bit_depth=16 if deep else 8)
    write_image(file, rgb, like=like, overwrite=True)
    back = read_gray(file)
    top = 65535 if deep and suffix != ".webp" else 255
    np.testing.assert_allclose(back.luminance, lstar(np.floor(rgb * top + 0.5) / top), atol=0.02)
    assert (back.alpha is not None) == alpha
    if alpha:
        np.testing.assert_allclose(back.alpha, opacity, atol=0.51 / top)


def test_hidden_colors_of_transparent_pixels_stay(tmp_path: Path) -> None:
    rgb, like = colors(5, 5), GrayImage(np.zeros((5, 5)), np.zeros((5, 5)))
    for suffix in LOSSLESS:
        write_image(tmp_path / f"a{suffix}", rgb, like=like)
        with Image.open(tmp_path / f"a{suffix}") as written:
            np.testing.assert_allclose(np.asarray(written)[..., :3] / 255, rgb, atol=0.51 / 255)


# --- color profiles ---------------------------------------------------------------------------------------------


def test_kinds_of_profiles() -> None:
    assert profile_kind(SRGB) is profile_kind(imagecodecs.cms_profile("srgb")) is ProfileKind.SRGB
    assert profile_kind(ADOBE) is ProfileKind.RGB
    assert profile_kind(GRAY_GAMMA) is ProfileKind.GRAY
    assert profile_kind(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()) is ProfileKind.OTHER
    for damaged in (b"", b"profile", bytes(400), ADOBE[:300]):
        assert profile_kind(damaged) is ProfileKind.UNREADABLE


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_srgb_profile_is_carried_and_changes_nothing(tmp_path: Path, suffix: str, mode: str) -> None:
    image = Image.fromarray(picture(8, 8, 3)).convert(mode)
    image.save(tmp_path / f"with{suffix}", icc_profile=SRGB)
    image.save(tmp_path / f"without{suffix}")
    tagged, plain = read_gray(tmp_path / f"with{suffix}"), read_gray(tmp_path / f"without{suffix}")
    np.testing.assert_array_equal(tagged.luminance, plain.luminance)
    assert (tagged.icc, plain.icc, tagged.notes) == (SRGB, None, ())
    write_image(tmp_path / f"out{suffix}", colors(8, 8), like=tagged)
    with Image.open(tmp_path / f"out{suffix}") as written:
        assert written.info["icc_profile"] == SRGB


@pytest.mark.parametrize("depth", [8, 16])
def test_a_wide_profile_is_read_and_written_as_it_looks(tmp_path: Path, depth: int) -> None:
    rgb = 0.2 + 0.6 * colors(9, 8)
    encoded = from_srgb(rgb, ADOBE, np.uint8 if depth == 8 else np.uint16)
    options: dict[str, Any] = {"photometric": "rgb", "iccprofile": ADOBE}
    tifffile.imwrite(tmp_path / "in.tif", encoded, **options)
    gray = read_gray(tmp_path / "in.tif")
    assert gray.icc == ADOBE
    np.testing.assert_allclose(gray.luminance, lstar(rgb), atol=0.3 if depth == 8 else 0.02)
    for suffix in (".tif", ".png"):
        write_image(tmp_path / f"out{suffix}", rgb, like=gray)
        again = read_gray(tmp_path / f"out{suffix}")
        assert (again.icc, again.bit_depth) == (ADOBE, depth)
        np.testing.assert_allclose(again.luminance, lstar(rgb), atol=0.3 if depth == 8 else 0.02)
    # What a color-managed viewer shows, by Pillow's own Little CMS:
    write_image(tmp_path / "view.png", rgb, like=GrayImage(gray.luminance, icc=ADOBE))
    with Image.open(tmp_path / "view.png") as written:
        source = ImageCms.ImageCmsProfile(io.BytesIO(written.info["icc_profile"]))
        shown = ImageCms.profileToProfile(written, source, ImageCms.createProfile("sRGB"), renderingIntent=1)
    np.testing.assert_allclose(np.asarray(shown) / 255.0, rgb, atol=2.5 / 255)


def test_gray_levels_keep_their_luminance_through_a_wide_profile(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "in.png", icc_profile=ADOBE)
    gray = read_gray(tmp_path / "in.png")
    expected = 116 * np.cbrt((levels / 255.0) ** 2.19921875) - 16  # Adobe RGB's transfer function
    np.testing.assert_allclose(gray.luminance[2:], expected[2:], atol=0.01)
    assert gray.icc == ADOBE


def test_a_gray_profile_counts_for_the_luminance_and_is_not_carried(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "in.png", icc_profile=GRAY_GAMMA)
    gray = read_gray(tmp_path / "in.png")
    expected = 116 * np.cbrt((levels / 255.0) ** 1.8) - 16
    np.testing.assert_allclose(gray.luminance[2:], expected[2:], atol=0.02)
    assert gray.icc is None
    assert len(gray.notes) == 1
    assert "GRAY" in gray.notes[0]
    write_image(tmp_path / "out.png", colors(16, 16), like=GrayImage(gray.luminance, icc=GRAY_GAMMA))
    with Image.open(tmp_path / "out.png") as written:
        assert "icc_profile" not in written.info


def test_profiles_that_do_not_fit_are_ignored_and_noted(tmp_path: Path) -> None:
    rgb = Image.fromarray(picture(5, 5, 3))
    rgb.save(tmp_path / "plain.png")
    rgb.save(tmp_path / "gray.png", icc_profile=GRAY_GAMMA)
    rgb.convert("CMYK").save(tmp_path / "inks.tif", icc_profile=ADOBE)
    plain, misfit = read_gray(tmp_path / "plain.png"), read_gray(tmp_path / "gray.png")
    np.testing.assert_array_equal(plain.luminance, misfit.luminance)
    assert misfit.icc is None
    assert "does not fit" in misfit.notes[0]
    assert read_gray(tmp_path / "inks.tif").icc is None


def test_an_unreadable_profile_is_carried_unchanged(tmp_path: Path) -> None:
    Image.fromarray(picture(5, 5)).save(tmp_path / "in.png", icc_profile=b"no profile")
    gray = read_gray(tmp_path / "in.png")
    assert gray.icc == b"no profile"
    assert "unreadable" in gray.notes[0]
    write_image(tmp_path / "out.png", colors(5, 5), like=gray)
    with Image.open(tmp_path / "out.png") as written:
        assert written.info["icc_profile"] == b"no profile"


# --- refusals and atomic writing --------------------------------------------------------------------------------


def refuses(path: Path, *words: str, rgb: Any = None, **options: Any) -> None:
    with pytest.raises(InputError) as caught:
        write_image(path, colors(2, 2) if rgb is None else rgb, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in (str(path), *words)), message


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "there.png").write_bytes(b"precious")
    refuses(tmp_path / "there.png", "exists already")
    assert (tmp_path / "there.png").read_bytes() == b"precious"
    refuses(tmp_path, "is a folder")
    (tmp_path / "folder.png").mkdir()
    refuses(tmp_path / "folder.png", "is a folder")
    refuses(tmp_path / "missing" / "a.png", "does not exist")
    refuses(tmp_path / "a.xyz", ".png")
    refuses(tmp_path / "none", "without suffix")
    refuses(tmp_path / "there.png" / "a.png", "does not exist")
    refuses(tmp_path / "a.png", "shape", rgb=np.zeros((2, 2)))
    refuses(tmp_path / "a.png", "size", like=GrayImage(np.zeros((2, 3))))
    refuses(tmp_path / "a.png", "uint8", rgb=np.zeros((2, 2, 3), np.uint8))
    refuses(tmp_path / "a.png", "[0, 1]", rgb=np.full((2, 2, 3), 2.0))
    refuses(tmp_path / "a.png", "finite", rgb=np.full((2, 2, 3), np.nan))
    refuses(tmp_path / "a.webp", "too long", rgb=np.zeros((1, 16384, 3), np.float32))
    refuses(tmp_path / "a.jpg", "too long", rgb=np.zeros((65501, 1, 3), np.float32))
    assert sorted(os.listdir(tmp_path)) == ["folder.png", "there.png"]


def test_overwriting_is_allowed_when_asked_but_never_the_input(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((2, 2, 3)))
    write_image(tmp_path / "a.png", np.ones((2, 2, 3)), overwrite=True)
    gray = read_gray(tmp_path / "a.png")
    assert (gray.luminance == 100).all()
    refuses(tmp_path / "a.png", "input itself", like=gray, overwrite=True)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    refuses(tmp_path / "link.png", "input itself", like=gray, overwrite=True)
    write_image(tmp_path / "link.png", np.zeros((2, 2, 3)), overwrite=True)
    assert (tmp_path / "link.png").is_symlink()
    assert not read_gray(tmp_path / "a.png").luminance.any()
    assert check_output(tmp_path / "new.png") == tmp_path / "new.png"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")
def test_an_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses(Path("/proc/a.png"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    refuses(tmp_path / "a.png", "not writable")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_nothing_is_left_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, step: str
) -> None:
    def failing(*_: object) -> None:
        raise error

    write_image(tmp_path / "a.png", np.zeros((2, 2, 3)))
    before = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(writing.os, step, failing)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_image(tmp_path / "a.png", np.ones((2, 2, 3)), overwrite=True)
    assert os.listdir(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_the_file_mode_follows_the_umask(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        previous = os.umask(mask)
        try:
            write_image(tmp_path / f"{mask}.png", colors(2, 2))
        finally:
            os.umask(previous)
        assert stat.S_IMODE((tmp_path / f"{mask}.png").stat().st_mode) == mode


@pytest.mark.slow
def test_24_megapixels_need_less_than_40_bytes_a_pixel(tmp_path: Path) -> None:
    pixels = np.add.outer(np.arange(4000), np.arange(6000)).astype(np.uint16) * 13
    (tmp_path / "in.png").write_bytes(imagecodecs.png_encode(np.stack([pixels] * 4, axis=-1), level=1))
    code = """
import resource, sys
import numpy as np
from jaxcolor.images import read_gray, write_image
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
gray = read_gray(sys.argv[1] + "/in.png")
rgb = np.broadcast_to(np.float32(0.3), (*gray.shape, 3))
write_image(sys.argv[1] + "/out.tif", rgb, like=gray)
assert (peak() - before) / gray.luminance.size < 40
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_a_picture_is_encoded_comes_after_it(tmp_path, monkeypatch):
    """Cut off half-way, imageio's writer would print a traceback when it is collected."""
    encoded = []

    def encode(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        encoded.append(True)
        return b""

    monkeypatch.setattr("jaxcolor.images.writing.iio.imwrite", encode)
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.float32))
    assert encoded
    assert not list(tmp_path.iterdir())
