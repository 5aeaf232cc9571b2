"""Hints: exact in every solver and space, spread up to the edge; their files; palettes of one's own."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import lil_matrix
from scipy.sparse.csgraph import dijkstra
from skimage.color import lab2rgb, rgb2lab

import jaxcolor as jc
from jaxcolor.color.palette import ab_bins
from jaxcolor.coupled_tv.spreading import spread_hints
from jaxcolor.palettes import read_palette

RED = (0.8, 0.3, 0.25)


def regions(size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """L* and which pixels are right of a curved edge."""
    row, column = np.mgrid[:size, :size]
    right = column > size / 2 + 5 * np.sin(row / 6)
    return np.where(right, 65, 40).astype(np.float32), right


@pytest.mark.parametrize("space", ["lab", "yuv"])
@pytest.mark.parametrize("solver", [jc.PrimalDual(), jc.InertialForwardBackward()])
def test_hinted_pixels_are_exact(space, solver) -> None:
    rng = np.random.default_rng(0)
    luminance = rng.uniform(40, 60, (9, 10)).astype(np.float32) * (2.0 if space == "yuv" else 1.0)
    problem = jc.CoupledTVProblem(luminance, rng.normal(0, 9, (9, 10, 2, 2)), np.full((9, 10, 2), 0.5), space=space)
    held = np.zeros((9, 10), bool)
    held[4, 3:5] = True
    hinted = problem.with_hints(np.full((9, 10, 2), 12.0), held, np.zeros((9, 10)))
    solution = jc.solve(hinted.padded_to((12, 12)), solver, steps=5).cropped(9, 10)
    np.testing.assert_array_equal(np.asarray(solution.chroma)[held], 12.0)
    assert np.abs(np.asarray(solution.chroma)[~held] - 12).min() > 1e-3


def test_hints_in_yuv_stay_displayable() -> None:
    problem = jc.CoupledTVProblem(np.full((4, 4), 30.0), np.zeros((4, 4, 1, 2)), np.ones((4, 4, 1)), space="yuv")
    held = np.eye(4, dtype=bool)
    hinted = problem.with_hints(np.full((4, 4, 2), 400.0), held, np.zeros((4, 4)))
    u, v = hinted.project((jnp.zeros((4, 4)), jnp.zeros((4, 4))))
    rgb = 30 + np.stack([1.13983 * v, -0.39465 * u - 0.5806 * v, 2.03211 * u], -1)
    assert rgb.min() > -1e-3
    assert rgb.max() < 255 + 1e-3


def test_one_point_recolors_its_region_and_nothing_else() -> None:
    luminance, right = regions()
    wrong = np.broadcast_to(lab2rgb([[[50, -20, 20]]]), (48, 48, 3)).astype(np.float32)
    hints = jc.Hints([jc.Hint(40, 24, 0, RED)])
    after = rgb2lab(np.asarray(jc.refine(luminance, wrong, hints=hints)))[..., 1:]
    hint, before = rgb2lab([[RED]])[0, 0, 1:], np.array([-20.0, 20.0])
    recolored = np.linalg.norm(after - hint, axis=-1) < np.linalg.norm(after - before, axis=-1)
    assert (recolored != right).mean() < 0.005
    # Away from the border both colors are kept as they are.
    inner = np.abs(np.arange(48) - 24) > 10
    np.testing.assert_allclose(after[:, inner & (np.arange(48) > 24)], np.broadcast_to(hint, (48, 13, 2)), atol=0.5)


def test_spreading_agrees_with_shortest_paths() -> None:
    luminance = np.random.default_rng(2).uniform(30, 60, (12, 13)).astype(np.float32)

    held = np.zeros((12, 13), bool)
    held[3, 4] = held[9, 9] = True
    graph = lil_matrix((luminance.size, luminance.size))
    number = np.arange(luminance.size).reshape(luminance.shape)
    for y, x in np.ndindex(luminance.shape):
        for other in number[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].ravel():
            step = abs(float(luminance.ravel()[other]) - float(luminance[y, x]))
            graph[number[y, x], other] = step * step / (step + 2)
    distance = dijkstra(graph.tocsr(), indices=np.flatnonzero(held)).min(0).reshape(luminance.shape)
    _, share = spread_hints(jnp.asarray(luminance), jnp.zeros((12, 13, 2)), jnp.asarray(held))
    np.testing.assert_allclose(share, np.exp(-((distance / 5) ** 2)), atol=1e-5)


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_the_three_kinds_of_files_agree(tmp_path: Path) -> None:
    luminance = np.full((8, 9), 50.0, np.float32)
    strokes = np.zeros((8, 9, 4), np.uint8)
    strokes[3, 5] = (200, 80, 60, 255)
    Image.fromarray(strokes).save(tmp_path / "a.png")
    points = [{"x": 5, "y": 3, "radius": 0, "color": [200, 80, 60]}]
    files = [
        tmp_path / "a.png",
        write(tmp_path / "a.csv", "x,y,radius,color\n5,3,0,#c8503c\n"),
        write(tmp_path / "a.json", json.dumps(points)),
    ]
    drawn = [jc.Hints.read(file).drawn(luminance) for file in files]
    for colors, held, notes in drawn:
        np.testing.assert_array_equal(np.argwhere(held), [[3, 5]])
        np.testing.assert_allclose(colors[3, 5], rgb2lab([[[200 / 255, 80 / 255, 60 / 255]]])[0, 0, 1:], atol=1e-2)
        assert notes == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y\n1,2\n", "hint 1 is incomplete"),
        ("a.csv", "x,y,radius,color\n1,2,3,reddish\n", "hint 1 is not understood"),
        ("a.csv", "x,y,radius,color\n1,2,-3,red\n", "radius of at least 0"),
        ("a.json", "{", "is no JSON"),
        ("a.json", "[]", "holds no hints"),
        ("a.txt", "", "hints are a .png, .csv or .json file"),
    ],
)
def test_bad_files_of_hints(tmp_path, name, content, message) -> None:
    with pytest.raises(jc.InputError, match=message):
        jc.Hints.read(write(tmp_path / name, content))


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ([jc.Hint(90, 2, 1, RED)], r"hint 1 at \(90, 2\) lies outside the photo, 9×8"),
        ([jc.Hint(3, 3, 2, RED), jc.Hint(4, 3, 1, (0.0, 0.0, 1.0))], "hint 2 .* contradicts one before it"),
    ],
)
def test_hints_that_do_not_fit_the_photo(hints, message) -> None:
    with pytest.raises(jc.InputError, match=message):
        jc.Hints(hints).drawn(np.full((8, 9), 50.0, np.float32))


def test_hints_that_are_none() -> None:
    for place in ((np.nan, 1, 1), (1, np.inf, 1), (1, 1, -1)):
        with pytest.raises(jc.InputError, match="finite numbers and a radius of at least 0"):
            jc.Hint(*place, RED)
    with pytest.raises(jc.InputError, match=r"three numbers in \[0, 1\]"):
        jc.Hint(1, 1, 1, (120, 110, 110))
    with pytest.raises(jc.InputError, match="strokes must be RGBA"):
        jc.Hints(strokes=np.zeros((4, 4, 3), np.float32))


@given(x=st.floats(-3, 12), y=st.floats(-3, 9), radius=st.one_of(st.just(0.0), st.floats(0, 15)))
def test_discs_are_those_pixels_whose_centers_they_hold(x: float, y: float, radius: float) -> None:
    expected = np.zeros((6, 9), bool)
    for row, column in np.ndindex(6, 9):
        own = (row, column) == (np.floor(y + 0.5), np.floor(x + 0.5))
        expected[row, column] = own or (column - x) ** 2 + (row - y) ** 2 <= radius**2
    hints = jc.Hints([jc.Hint(x, y, radius, (0.6, 0.5, 0.5))])
    if not expected.any():
        with pytest.raises(jc.InputError, match="outside the photo"):
            hints.drawn(np.full((6, 9), 50, np.float32))
        return
    chroma, held, _ = hints.drawn(np.full((6, 9), 50, np.float32))
    np.testing.assert_array_equal(held, expected)
    assert (np.abs(chroma).max(-1) > 0).tolist() == expected.tolist()


def test_colors_that_no_screen_shows_are_noted() -> None:
    *_, notes = jc.Hints([jc.Hint(1, 1, 0, (0.0, 0.0, 1.0))]).drawn(np.full((4, 4), 90.0, np.float32))
    assert notes == ["hints cannot be displayed at the lightness of 1 pixels and were moved toward gray"]


def test_colorize_keeps_hints_and_uses_only_the_palette() -> None:
    row, column = np.mgrid[:40, :60]
    photo = (128 + 90 * np.sin(column / 9) * np.cos(row / 7)).astype(np.uint8)
    own = np.array([[30.0, 10.0], [10.0, 30.0]])
    net = jc.CIC.init(jax.random.key(0), width=1 / 16)
    settings = {"weights": net, "resolution": 32, "steps": 3, "refinement_steps": 2, "candidates": 3}
    hints = jc.Hints([jc.Hint(20, 20, 1, (0.45, 0.5, 0.6))])
    result = jc.colorize(photo, hints=hints, palette=own, **settings)
    colors, held, _ = hints.drawn(jc.GrayImage.from_array(photo).luminance)
    np.testing.assert_array_equal(result.chroma[held], colors[held])
    assert result.report["candidates"] == 3  # two of the palette, and the hint
    np.testing.assert_array_equal(result.distribution.palette, own)
    with pytest.raises(jc.InputError, match="hints need the method coupled-tv"):
        jc.colorize(photo, method="cic", hints=hints)


def test_palettes_of_files(tmp_path: Path) -> None:
    gimp = write(tmp_path / "a.gpl", "GIMP Palette\nName: x\n#\n255 0 0\tRed\n  0   0 255 Blue\n")
    listed = write(tmp_path / "a.json", '["#ff0000", [0, 0, 255]]')
    Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)).save(tmp_path / "a.png")
    expected = rgb2lab(np.array([[[0, 0, 1.0], [1.0, 0, 0]]]))[0, :, 1:]
    for file in (gimp, listed, tmp_path / "a.png"):
        np.testing.assert_allclose(read_palette(file), expected, atol=1e-2)
    for content in ("GIMP Palette\n", "Palette\n1 2 3\n", "GIMP Palette\n999 0 0\n"):
        with pytest.raises(jc.InputError):
            read_palette(write(tmp_path / "b.gpl", content))


def test_a_distribution_is_carried_to_a_palette() -> None:
    rng = np.random.default_rng(3)
    palette = jnp.asarray(ab_bins())
    dist = jc.ColorDistribution(jnp.asarray(rng.dirichlet(np.full(313, 0.1), (2, 3)), jnp.float32), palette)
    own = jnp.array([[77.0, 60.0], [-80.0, 60.0], [0.0, -110.0]])
    carried = dist.carried_to(own).probabilities
    np.testing.assert_allclose(carried.sum(-1), 1, atol=1e-5)
    # These colors lie far apart and no bin halfway, so that nearly all goes to the nearest.
    nearest = ((ab_bins()[:, None] - np.asarray(own)) ** 2).sum(-1).argmin(1)
    brute = np.stack([np.asarray(dist.probabilities)[..., nearest == i].sum(-1) for i in range(3)], -1)
    np.testing.assert_allclose(carried, brute, atol=0.03)
