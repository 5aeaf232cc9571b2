"""The fit: Adam against PyTorch, alternation, seeds, continuation, and every way in which it can end."""

import signal
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import jaxcolor as jc
from jaxcolor.color.palette import ab_bins
from jaxcolor.coupled_tv import Status
from jaxcolor.deep_prior import PRESETS, Objective, PlateauRule, Preset, SkipNetwork, fit_deep_prior
from jaxcolor.deep_prior import steps as steps_of_fit
from jaxcolor.deep_prior.objective import Data, downsampling_matrix, to_unit
from jaxcolor.deep_prior.steps import unravel
from jaxcolor.settings import PRESETS as NAMES

# One shape and one network throughout, because each compiles anew.
SHAPE, GRID = (9, 12), (3, 4)
TINY = Preset(network=SkipNetwork(channels=4, scales=1), steps=6, assign_from=4, assign_every=2)


def luminance(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    row, column = np.mgrid[: shape[0], : shape[1]]
    return np.where(column > shape[1] // 2, 70, 30).astype(np.float32) + row


def distribution() -> jc.ColorDistribution:
    rng = np.random.default_rng(0)
    return jc.ColorDistribution(
        jnp.asarray(rng.dirichlet(np.full(313, 0.05), GRID), jnp.float32), jnp.asarray(ab_bins(), jnp.float32)
    )


@pytest.fixture(scope="module")
def fit() -> jc.DeepPriorFit:
    return fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2)


def test_what_comes_back(fit: jc.DeepPriorFit):
    assert fit.picture.shape == (*SHAPE, 3)
    assert fit.chroma.shape == (*SHAPE, 2)
    assert fit.picture.dtype == np.float32
    assert (fit.picture[..., 0] >= 0).all()
    assert (fit.picture[..., 0] <= 100).all()
    assert np.abs(fit.chroma).max() <= 110
    assert fit.histories.shape == (2, 6, 3)
    assert (fit.status, fit.steps, fit.message()) == (Status.OUT_OF_STEPS, 6, "all steps were taken")
    assert fit.seed == np.argmin(fit.losses)
    assert np.isfinite(fit.histories).all()
    assert (fit.history.sum(1)[:4] > 0).all()
    assert fit.history.sum(1)[3] < fit.history.sum(1)[0]
    # The last assignment, after step 4, took colors of the palette.
    assert (np.abs(fit.target[:, :, None] - ab_bins()).max(-1).min(-1) < 1e-3).all()


def test_the_losses_are_those_of_the_picture(fit: jc.DeepPriorFit):
    data = Data.of(luminance(), ab_bins(), GRID)
    planes = jnp.concatenate([fit.picture[..., :1] / 100, to_unit(fit.chroma)], -1)
    parts = data.losses(planes, to_unit(fit.target), TINY.objective)
    np.testing.assert_allclose(sum(parts), fit.losses[fit.seed], rtol=1e-4)


def test_same_key_same_picture_other_key_other_picture(fit: jc.DeepPriorFit):
    again = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, key=jax.random.key(0))
    np.testing.assert_array_equal(fit.picture, again.picture)
    other = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, key=jax.random.key(1))
    assert np.abs(fit.picture - other.picture).max() > 0.1


def test_a_fit_continues_where_it_ended(fit: jc.DeepPriorFit):
    half = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, steps=3)
    whole = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, steps=3, init=half)
    np.testing.assert_array_equal(whole.histories, fit.histories)
    np.testing.assert_array_equal(whole.picture, fit.picture)
    assert whole.steps == 6
    # The half is untouched, and there again for another continuation.
    again = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, steps=3, init=half)
    np.testing.assert_array_equal(whole.picture, again.picture)


def test_seeds_side_by_side_equal_seeds_one_by_one(fit: jc.DeepPriorFit, monkeypatch: pytest.MonkeyPatch):
    """As on an accelerator."""
    monkeypatch.setattr("jaxcolor.deep_prior.steps.seeds_apart", lambda: False)
    both = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, steps=3)
    np.testing.assert_allclose(both.histories, fit.histories[:, :3], rtol=1e-3)
    assert both.picture.shape == fit.picture.shape


def test_steps_of_zero_and_other_noise(fit: jc.DeepPriorFit):
    start = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, steps=0)
    assert (start.steps, start.history.shape) == (0, (0, 3))
    sample = fit.sample(jax.random.key(7))
    assert sample.shape == fit.picture.shape
    assert np.abs(sample - fit.picture).max() > 0.1
    np.testing.assert_array_equal(sample, fit.sample(jax.random.key(7)))


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("steps", [4, 10])
def test_an_interrupt_keeps_the_state(steps: int):
    seen = []

    def interrupt(done: int, *parts: float) -> None:
        seen.append((done, parts))
        signal.raise_signal(signal.SIGINT)

    fit = fit_deep_prior(luminance(), distribution(), preset=TINY, steps=steps, seeds=2, progress=interrupt)
    # The first chunk ends at the first assignment, or is the last.
    assert (fit.status, fit.steps) == (Status.INTERRUPTED, 4)
    assert [done for done, _ in seen] == [4]
    assert len(seen[0][1]) == 3
    assert np.isfinite(fit.picture).all()
    assert "so far" in fit.message()


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_is_heard_between_two_steps(fit: jc.DeepPriorFit, monkeypatch: pytest.MonkeyPatch):
    """Where a step takes seconds nobody waits for the end of a chunk; both seeds have taken equally many."""
    calls, step = [], steps_of_fit._step_of_one

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 3:  # the second step of the first seed
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(steps_of_fit, "_step_of_one", interrupted)
    cut = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2)
    assert (cut.status, cut.steps) == (Status.INTERRUPTED, 2)
    np.testing.assert_array_equal(cut.histories, fit.histories[:, :2])
    monkeypatch.undo()
    whole = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, steps=4, init=cut)
    np.testing.assert_array_equal(whole.picture, fit.picture)


def test_other_numbers_compile_nothing_anew(fit: jc.DeepPriorFit):
    def programs():
        return sum(steps_of_fit._compiled_step(blocks)._cache_size() for blocks in (False, True))

    before = programs()
    other = replace(TINY, objective=Objective(variation=1e-3, coupling=5.0), learning_rate=1e-3, steps=7)
    changed = fit_deep_prior(luminance(), distribution(), preset=other, seeds=2)
    assert np.abs(changed.picture - fit.picture).max() > 0.1
    assert programs() == before


def test_too_large_a_photo_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jaxcolor.memory.bytes_available", lambda: 1_605_000_000)
    with pytest.raises(jc.InputError, match=r"4 channels to 200×100 pixels needs about 1.6 GB .* fit 100² pixels at"):
        fit_deep_prior(np.full((100, 200), 50.0), distribution(), preset=TINY)


def test_a_loss_that_is_not_finite_keeps_the_best_state(fit: jc.DeepPriorFit):
    wild = replace(TINY, learning_rate=1e30)
    broken = fit_deep_prior(luminance(), distribution(), preset=wild, seeds=2)
    assert broken.status == Status.NON_FINITE
    assert "lower the learning rate" in broken.message()
    assert np.isfinite(broken.picture).all()
    assert np.isfinite(broken.losses).all()
    # As the message says, it goes on with a lower one.
    again = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, init=broken, steps=3)
    assert again.status == Status.OUT_OF_STEPS
    assert np.isfinite(again.history[-3:]).all()
    # That the last step went wrong shows in the picture only.
    last = fit_deep_prior(luminance(), distribution(), preset=wild, seeds=2, steps=1)
    assert last.status == Status.NON_FINITE
    assert np.isfinite(last.picture).all()


def test_time_limit_and_plateau():
    ended = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, time_limit=0)
    assert (ended.status, ended.steps) == (Status.TIME_LIMIT, 0)
    # Nothing moves at so small a learning rate.
    still = replace(TINY, learning_rate=1e-12)
    rested = fit_deep_prior(luminance(), distribution(), preset=still, seeds=2, stop=PlateauRule(0.5, window=1))
    assert (rested.status, rested.steps) == (Status.CONVERGED, 4)
    rule = PlateauRule(tolerance=0.1, window=2)
    assert not rule.met(np.array([[9.0, 4.0, 4.0]]))
    assert not rule.met(np.array([[1.0, 1.0, 1.0, 1.0], [4.0, 4.0, 2.0, 2.0]]))
    assert rule.met(np.array([[1.0, 1.0, 1.0, 1.0], [4.0, np.nan, np.nan, np.nan]]))
    assert not rule.met(np.array([[1.0, 1.0, 2.0, 2.0]]))  # a loss that rises has not come to rest


def test_photos_smaller_than_the_network_allows():
    small = fit_deep_prior(luminance((2, 5)), distribution(), preset=TINY, steps=2)
    assert small.chroma.shape == (2, 5, 2)
    assert np.isfinite(small.chroma).all()
    assert small.inputs.shape[1:3] == (3, 5)


def test_guided_preset_takes_a_guide():
    guided = replace(TINY, guided=True)
    guide = np.stack([luminance(), -luminance()], -1)
    led, mean, free = (
        fit_deep_prior(luminance(), distribution(), preset=preset, seeds=2, steps=2, guide=given)
        for preset, given in ((guided, guide), (guided, None), (TINY, guide))
    )
    np.testing.assert_allclose(led.inputs[0, ..., 0], (luminance() / 100 - 0.5) * 4, rtol=1e-5)
    np.testing.assert_allclose(led.inputs[1, ..., 2], (1 - luminance() / 110) * 4 - 4, atol=1e-5)
    np.testing.assert_array_equal(led.inputs[..., 3:], free.inputs[..., 3:])
    assert np.abs(led.inputs - mean.inputs).max() > 0.1
    assert np.abs(led.picture - free.picture).max() > 0.1
    # Without a guide it is the mean over the photo's extent, not over its padding.
    extent = (SHAPE[0] - 3, SHAPE[1] - 2)
    padded = fit_deep_prior(luminance(), distribution(), preset=guided, steps=0, extent=extent).inputs[0, ..., 1:3]
    cut = fit_deep_prior(luminance()[: extent[0], : extent[1]], distribution(), preset=guided, steps=0).inputs[0]
    np.testing.assert_allclose(padded[: extent[0], : extent[1]], cut[..., 1:3], atol=1e-5)
    # Other noise, but the same guide.
    assert led.sample(jax.random.key(1)).shape == led.picture.shape


def test_the_guide_as_first_target_and_no_assignment():
    preset = replace(TINY, guided=True, start="guide", assign_from=None)
    guide = np.stack([luminance(), -luminance()], -1)
    fit = fit_deep_prior(luminance(), distribution(), preset=preset, seeds=2, guide=guide)
    rows, columns = (downsampling_matrix(n, cells) for n, cells in zip(SHAPE, GRID, strict=True))
    np.testing.assert_allclose(fit.target, np.einsum("ij,jkc,lk->ilc", rows, guide, columns), atol=1e-3)
    # Where nothing is guided, the mean.
    free = fit_deep_prior(luminance(), distribution(), preset=replace(preset, guided=False), seeds=2, steps=0)
    np.testing.assert_allclose(free.target, distribution().mean(), atol=1e-3)


def test_one_step_is_the_step_of_torch(fit: jc.DeepPriorFit):
    """A step of Adam on the whole loss, written once more in PyTorch."""
    torch = pytest.importorskip("torch", reason="compares with a step in PyTorch")
    from tests.skip_twin import Twin

    start = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, steps=0)
    one = fit_deep_prior(luminance(), distribution(), preset=TINY, seeds=2, steps=1)
    data = Data.of(luminance(), ab_bins(), GRID)
    rows, columns, y = (torch.from_numpy(np.array(x)) for x in (data.rows, data.columns, data.luminance))
    target = torch.from_numpy(np.array(start.state.target[0]))
    twin, o = Twin(4, 1), Objective()
    tree = unravel(TINY.network, 32)(start.state.parameters[0])["params"]
    with torch.no_grad():
        for name, layer in twin.layers().items():
            weight = np.array(tree[name]["kernel" if "kernel" in tree[name] else "scale"])
            layer.weight.copy_(torch.from_numpy(weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight))
            layer.bias.copy_(torch.from_numpy(np.array(tree[name]["bias"])))
    picture = twin(torch.from_numpy(np.array(start.inputs[0])).permute(2, 0, 1)[None])[0]
    color = ((torch.einsum("ij,cjk,lk->ilc", rows, picture[1:], columns) - target) ** 2).sum() / (
        3 * target[..., 0].numel()
    )
    squares = torch.full(SHAPE, o.smoothing**2)
    for plane, weight in zip(picture, (o.coupling, 1, 1), strict=True):
        down = torch.nn.functional.pad(plane[1:] - plane[:-1], (0, 0, 0, 1))
        across = torch.nn.functional.pad(plane[:, 1:] - plane[:, :-1], (0, 1))
        squares = squares + weight * (down**2 + across**2)
    variation = o.variation * 256 / np.sqrt(SHAPE[0] * SHAPE[1]) * squares.sqrt().sum()
    parts = torch.stack([color, o.fidelity * ((picture[0] - y) ** 2).mean(), variation])
    np.testing.assert_allclose(one.histories[0, 0], parts.detach().numpy(), rtol=1e-4)

    parts.sum().backward()
    want, _ = ravel_pytree(twin.arrays(gradients=True))
    # Adam's first mean of gradients is a tenth of the gradient, and its first step goes by the whole rate.
    np.testing.assert_allclose(10 * one.state.moments.mu[0], want, atol=2e-4 * np.abs(want).max())
    clear = np.abs(want) > 1e-2 * np.abs(want).max()
    change = np.asarray(one.state.parameters[0] - start.state.parameters[0])
    np.testing.assert_allclose(change[clear], -TINY.learning_rate * np.sign(want)[clear], rtol=1e-3)


def test_names_of_presets_are_known_without_jax():
    assert set(NAMES) == set(PRESETS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"preset": "quick"}, "preset must be one of paper, author, fast"),
        ({"steps": -1}, "steps must be a whole number, at least 0"),
        ({"seeds": 0}, "seeds must be a whole number, at least 1"),
        ({"guide": np.zeros((9, 12)), "preset": replace(TINY, guided=True)}, r"guide must have shape \[9, 12, 2\]"),
        ({"luminance": np.zeros((9, 12, 1))}, r"luminance must have shape \[H, W\]"),
        ({"luminance": np.zeros((9, 12, 1)), "preset": "fast"}, r"luminance must have shape \[H, W\]"),
        ({"luminance": np.full(SHAPE, np.nan)}, "NaN"),
        ({"extent": (99, 12), "preset": replace(TINY, guided=True)}, "extent must lie inside"),
        ({"seeds": 1, "init": True}, "init does not fit"),
        ({"preset": "paper", "seeds": 2, "init": True}, "another network"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"seeds": 1.5}, "seeds must be a whole number"),
        ({"key": 0}, "key must be a key of JAX"),
        ({"preset": None}, "preset must be one of"),
        ({"guide": np.full((*SHAPE, 2), np.nan), "preset": replace(TINY, guided=True)}, "guide contains NaN"),
        ({"guide": np.zeros((3, 3, 2))}, "guide must have shape"),
        ({"distribution": np.zeros((3, 4, 313))}, "distribution must be a ColorDistribution; got ndarray"),
        ({"distribution": replace(distribution(), probabilities=jnp.full((*GRID, 313), np.nan))}, "distribution cont"),
    ],
)
def test_bad_input_is_one_line(fit: jc.DeepPriorFit, change: dict, words: str):
    given = {"luminance": luminance(), "distribution": distribution(), "preset": TINY} | change
    if "init" in given:
        given["init"] = fit
    with pytest.raises(jc.InputError, match=words) as caught:
        fit_deep_prior(given.pop("luminance"), given.pop("distribution"), **given)
    assert "\n" not in str(caught.value)


def test_a_residual_network_starts_with_the_picture_that_it_is_given() -> None:
    """And smooths it; without a picture there is nothing to start with."""
    tiny = replace(PRESETS["fast"], network=SkipNetwork(channels=4, scales=1, residual=True), steps=20, decay=0)
    light = luminance()
    guide = np.stack([40 * np.sin(light / 9), -30 * np.cos(light / 7)], -1)
    # What there is to smooth.
    guide = np.float32(guide + np.random.default_rng(0).normal(0, 20, guide.shape))
    first = fit_deep_prior(light, distribution(), preset=tiny, guide=guide, steps=0)
    np.testing.assert_allclose(first.picture[..., 0], np.clip(light, 1, 99), atol=1e-3)
    np.testing.assert_allclose(first.chroma, guide, atol=1e-2)
    fit = fit_deep_prior(light, distribution(), preset=tiny, guide=guide, init=first)
    assert fit.history[-1].sum() < fit.history[0].sum()
    with pytest.raises(jc.InputError, match="needs a preset that is guided"):
        replace(tiny, guided=False)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1))
@example(0, 0.01)
@settings(max_examples=5)
def test_the_fast_preset_lowers_the_loss_of_its_guide(seed: int, noise: float) -> None:
    """Even of a picture that is nearly smooth already, as the coupled-TV solution is."""
    random = np.random.default_rng(seed)
    below, right = (np.arange(48) > random.integers(8, 40, (2, 1))).astype(int)
    regions = below[:, None] + right
    guide = np.array([[-30.0, 10.0], [5.0, 20.0], [30.0, -20.0]])[regions] + random.normal(0, noise, (48, 48, 2))
    fit = fit_deep_prior(30.0 + 20 * regions, distribution(), preset="fast", guide=np.float32(guide))
    loss = fit.history.astype(float).sum(1)
    assert loss[-1] < loss[0]


def test_single_precision_where_double_is_allowed() -> None:
    with jax.enable_x64(True):
        light = jnp.asarray(luminance(), jnp.float32)
        fit = fit_deep_prior(light, distribution(), preset=TINY, steps=2)
    assert fit.picture.dtype == np.float32
    assert np.isfinite(fit.picture).all()
