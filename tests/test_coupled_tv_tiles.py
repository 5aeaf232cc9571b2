"""Steps taken tile after tile: the float64 reference's, and those of the whole image, whatever is done with them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxcolor.coupled_tv import InertialForwardBackward, PrimalDual, StopRule, solve, solve_in_chunks, tiles
from jaxcolor.coupled_tv.operators import cut
from jaxcolor.coupled_tv.solve import _chunk, _solve
from jaxcolor.coupled_tv.tiles import Tiles, _advance_in_tiles, advance
from jaxcolor.trees import register
from tests.coupled_tv_data import data, float64, problem
from tests.reference import coupled_tv as reference

SHAPE, COUNT = (50, 90), 3
PRIMAL_DUAL = PrimalDual(dual_step=0.05, primal_step=2.5, weight_step=0.05)
INERTIAL = InertialForwardBackward(smoothing=0.5, inertia=0.9, weight_inertia=0.3, weight_step=0.05)
FIXED = PrimalDual(0.05, 2.5, weight_step=0.0, smoothing=0.5)
EACH = pytest.mark.parametrize("solver", [PRIMAL_DUAL, INERTIAL, FIXED], ids=["primal-dual", "inertial", "fixed"])


@pytest.fixture
def small_caches(monkeypatch):
    """Caches into which a window of 26² pixels fits, and rounds of three steps."""
    monkeypatch.setattr(tiles, "_STEPS_TOGETHER", 3)
    monkeypatch.setattr(tiles, "_PIXELS_OF_A_VECTOR", 4)
    monkeypatch.setattr(tiles, "_PIXELS_TO_BEGIN_A_ROW", 0)
    monkeypatch.setattr(tiles, "_pixels", lambda problem, state: 700)
    for program in (_solve, _chunk):
        program.clear_cache()
    yield
    for program in (_solve, _chunk):
        program.clear_cache()


def whole(p, solver, state, steps):
    step = jax.jit(lambda p, state: solver.step(p, state))
    for _ in range(steps):
        state = step(p, state)
    return state


def same(a, b):
    # Up to the rounding of two programs.
    for x, y in zip(jax.tree.leaves((a.chroma, a.weights)), jax.tree.leaves((b.chroma, b.weights)), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-4)


def divided(p, solver):
    found = tiles._tiles(p, solver, solver.init(p))
    assert found is not None
    return found.grid


@EACH
@pytest.mark.usefixtures("small_caches")
def test_agrees_with_the_whole_image_and_with_reference(solver):
    d, steps = data(SHAPE, COUNT), 50
    with float64():
        p = problem(d, np.float64)
        assert min(divided(p, solver)) > 1
        state = whole(p, solver, solver.init(p), steps)
        for solution in (solve(p, solver, steps), solve_in_chunks(p, solver, steps, chunk=7)):
            np.testing.assert_allclose(solution.state.weights, state.weights, atol=1e-12)
            for plane, expected in zip(solution.state.chroma, state.chroma, strict=True):
                np.testing.assert_allclose(plane, expected, atol=1e-10)
        if solver is PRIMAL_DUAL:
            u, w = reference.primal_dual(d, steps, solver.dual_step, solver.primal_step, solver.weight_step, 0.0)
            np.testing.assert_allclose(solution.chroma, u, atol=1e-8)
            np.testing.assert_allclose(solution.weights, w, atol=1e-9)


@EACH
@pytest.mark.usefixtures("small_caches")
def test_every_number_of_steps(solver):
    p = problem(data(SHAPE, COUNT))
    state = solver.init(p)
    some = jax.jit(lambda count: advance(p, solver, state, count))
    for count in range(9):
        same(some(jnp.int32(count)), whole(p, solver, state, count))
    same(jax.jit(lambda: advance(p, solver, state, 7))(), whole(p, solver, state, 7))


@pytest.mark.usefixtures("small_caches")
def test_padding_hints_and_the_gamut_of_yuv_go_with_the_tiles():
    d = data(SHAPE, COUNT)
    rng = np.random.default_rng(3)
    held = rng.random(SHAPE) < 0.05
    hinted = problem(d).with_hints(20 * rng.normal(size=(*SHAPE, 2)), held, rng.random(SHAPE))
    yuv = problem(dataclasses.replace(d, luminance=2.5 * d.luminance), space="yuv")
    for p in (hinted, yuv, hinted.padded_to((60, 94)), yuv.padded_to((51, 110))):
        assert min(divided(p, PRIMAL_DUAL)) > 1
        same(solve(p, PRIMAL_DUAL, 11).state, whole(p, PRIMAL_DUAL, PRIMAL_DUAL.init(p), 11))


@pytest.mark.parametrize("pixels", [700, 20_000], ids=["divided", "whole, one after another"])
@pytest.mark.usefixtures("small_caches")
def test_a_batch_with_a_stopping_rule_is_the_same_as_a_loop(monkeypatch, pixels):
    monkeypatch.setattr(tiles, "_pixels", lambda problem, state: pixels)
    problems = [problem(data(SHAPE, COUNT, seed=s, fidelity=f)) for s, f in ((0, 0.02), (1, 0.2))]

    def run(p):
        return solve(p, PRIMAL_DUAL, 60, stop=StopRule(0.3, every=7))

    batch = jax.vmap(run)(jax.tree.map(lambda *x: jnp.stack(x), *problems))
    for i, p in enumerate(problems):
        alone = run(p)
        same(jax.tree.map(lambda x, i=i: x[i], batch), alone)
        assert batch.steps[i] == alone.steps
    assert batch.steps[0] != batch.steps[1]


@pytest.mark.usefixtures("small_caches")
def test_a_batch_is_solved_one_after_another_unless_its_problems_are_small(monkeypatch):
    p = problem(data(SHAPE, COUNT))
    batch = jax.tree.map(lambda x: jnp.stack([x] * 5), p)

    def loops_with_all_problems(pixels):
        """For every loop of the compiled program, whether it carries the weights of all five."""
        monkeypatch.setattr(tiles, "_pixels", lambda problem, state: pixels)
        _solve.clear_cache()
        run = jax.jit(jax.vmap(lambda p: solve(p, PRIMAL_DUAL, 4).chroma))
        loops = [line for line in run.lower(batch).compile().as_text().splitlines() if " while(" in line]
        return [f"f32[5,{SHAPE[0]},{COUNT}," in line for line in loops]

    assert set(loops_with_all_problems(100_000)) == {True}
    # The loop over the batch, and that over the steps of one problem.
    assert set(loops_with_all_problems(20_000)) == {True, False}


@pytest.mark.usefixtures("small_caches")
def test_a_gradient_through_a_batch_is_that_of_every_problem(monkeypatch):
    monkeypatch.setattr(tiles, "_pixels", lambda problem, state: 20_000)
    problems = [problem(data(SHAPE, COUNT, seed=s)) for s in (0, 1)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *problems)

    def loss(fidelity, p):
        return jnp.square(solve(p.replace(fidelity=fidelity), PRIMAL_DUAL, 6).chroma).mean()

    slopes = [jax.grad(loss)(0.02, p) for p in problems]
    together = jax.grad(lambda fidelity: jax.vmap(loss, (None, 0))(fidelity, batch).sum())(0.02)
    np.testing.assert_allclose(together, sum(slopes), rtol=1e-3)


@pytest.mark.parametrize("solver", [PRIMAL_DUAL, pytest.param(FIXED, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("small_caches")
def test_derivatives_are_those_of_finite_differences(solver):
    d = data(SHAPE, COUNT)
    weights = 0.5 * d.weights + 0.5 / COUNT
    with float64():
        p = problem(dataclasses.replace(d, weights=weights), np.float64).padded_to((52, 97))
        assert min(divided(p, solver)) > 1
        probe = jnp.asarray(np.random.default_rng(6).normal(size=(52, 97, 2)))

        def loss(fidelity, stop=None):
            return (solve(p.replace(fidelity=fidelity), solver, 8, stop=stop).chroma * probe).sum()

        value, slope = jax.jit(jax.value_and_grad(loss))(0.02)
        np.testing.assert_allclose(value, loss(0.02), rtol=1e-9)
        difference = (loss(0.02 + 1e-7) - loss(0.02 - 1e-7)) / 2e-7
        np.testing.assert_allclose(slope, difference, rtol=1e-4)
        np.testing.assert_allclose(jax.jacfwd(loss)(0.02), slope, rtol=1e-9)
        rule = StopRule(tolerance=1e-9)
        np.testing.assert_allclose(jax.jacfwd(loss)(0.02, rule), slope, rtol=1e-9)


@dataclasses.dataclass(frozen=True)
class FarSeeing:
    """A step that looks at the opposite corner, and does not say that it looks no farther than the next pixel."""

    amount: float = 0.5

    def init(self, p, start=None):
        return PRIMAL_DUAL.init(p, start)

    def step(self, p, state):
        u, v = state.chroma
        return dataclasses.replace(state, chroma=(u + self.amount * u[::-1, ::-1], v))

    def energy(self, p, state):
        return p.energy_of_planes(state.chroma, state.weights)

    def change(self, state):
        return state.chroma


register(FarSeeing, ("amount",))


@pytest.mark.usefixtures("small_caches")
def test_a_solver_that_does_not_say_how_far_it_reaches_sees_the_whole_image():
    p, solver = problem(data(SHAPE, COUNT)), FarSeeing()
    assert tiles._tiles(p, solver, solver.init(p)) is None
    same(solve(p, solver, 5).state, whole(p, solver, solver.init(p), 5))


@dataclasses.dataclass(frozen=True)
class Field:
    """A problem that is one plane, and a solver whose step adds it to a sum over neighbours, each with its own factor.

    Whole numbers, so that sums are exact.
    """

    plane: jax.Array

    def window(self, corner, shape):
        return Field(cut(self.plane, corner, shape))

    @staticmethod
    def step(p, state):
        return (sum_around(state, jnp) + p.plane) % 997


def sum_around(plane, library):
    padded, (height, width) = library.pad(plane, 1), plane.shape
    factors = {(1, 1): 2, (0, 1): 3, (1, 0): 5, (2, 1): 7, (1, 2): 11}
    return sum(factor * padded[i : i + height, j : j + width] for (i, j), factor in factors.items())


register(Field, ("plane",))


@settings(deadline=None, max_examples=20)
@given(
    image=st.tuples(st.integers(12, 60), st.integers(12, 60)),
    margin=st.integers(1, 4),
    share=st.floats(0.1, 0.5),
    count=st.integers(0, 20),
)
def test_nothing_is_written_before_it_was_read(image, margin, share, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_PIXELS_TO_BEGIN_A_ROW", 0)
        patch.setattr(tiles, "_STEPS_TOGETHER", margin)
        found = Tiles.of(image, margin, share * math.prod(image))
        assume(found is not None)
        plane, state = np.random.default_rng(0).integers(0, 997, (2, *image))
        field, begin = Field(jnp.asarray(plane, jnp.float32)), jnp.asarray(state, jnp.float32)
        end = jax.jit(lambda count: _advance_in_tiles(found, field, field, begin, count))(jnp.int32(count))
    for _ in range(count):
        state = (sum_around(state, np) + plane) % 997
    np.testing.assert_array_equal(end, state)


@settings(deadline=None, max_examples=300)
@given(
    image=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    margin=st.integers(1, 20),
    pixels=st.integers(1, 40_000),
)
def test_every_pixel_is_in_a_tile_and_its_surroundings_in_the_window(image, margin, pixels):
    found = Tiles.of(image, margin, pixels)
    if found is None:
        return
    assert np.prod(found.window) <= pixels < np.prod(image)
    assert found.window[1] % 16 == 0 or found.window[1] == image[1]
    covered = np.zeros(image, bool)
    for number in range(np.prod(found.grid)):
        tile, window = ([int(i) for i in corner] for corner in found.corners(jnp.int32(number)))
        for t, w, size, around, end in zip(tile, window, found.shape, found.window, image, strict=True):
            assert 0 <= w <= max(t - margin, 0)
            assert min(t + size + margin, end) <= w + around <= end
        covered[tile[0] : tile[0] + found.shape[0], tile[1] : tile[1] + found.shape[1]] = True
    assert covered.all()


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_what_is_divided(monkeypatch, cores):
    monkeypatch.setattr(tiles, "usable_cores", lambda: cores)

    def tiles_of(size, count):
        p = jax.eval_shape(lambda: problem(data((2, 2), count)))
        p = jax.tree.map(lambda x: jax.ShapeDtypeStruct(tuple(size if n == 2 else n for n in x.shape), x.dtype), p)
        return tiles._tiles(p, PRIMAL_DUAL, jax.eval_shape(PRIMAL_DUAL.init, p))

    assert tiles_of(120, 10) is None
    for count in (4, 10):
        found = tiles_of(2048, count)
        assert found.work() < 1.8 * 2048**2
        # State, candidates and luminance; the weights of the problem are those at the start only.
        assert np.prod(found.window) * 4 * (10 + 3 * count + 1) <= cores * 5e6
