"""The speed benchmark: its tables, what it compares with, and how it measures."""

import argparse
import json
from contextlib import nullcontext
from importlib.util import find_spec
from shutil import which

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.compilation_cache import compilation_cache

import jaxcolor.coupled_tv as ctv
from benchmarks import accelerator, bound, energy, machine, optimality, peers, prior, solver, speed, timing
from benchmarks.__main__ import main
from benchmarks.pipeline import local_exponents
from benchmarks.roofline import prior_cost
from benchmarks.speed_figures import draw
from benchmarks.timing import Steps, Table, Timing
from jaxcolor.coupled_tv.simplex import project_simplex
from jaxcolor.deep_prior import PRESETS, Objective, Preset, SkipNetwork
from jaxcolor.deep_prior.steps import draw as drawn
from tests.reference import coupled_tv as reference

# The width is no multiple of what the C loop takes at a time. So large a step of the weights moves their support.
SHAPE = (11, 37)
SOLVER = ctv.PrimalDual(solver.SIGMA, solver.TAU, 10 * solver.RHO)
STEPS = 7
COMPILED = {solver.COMPILED} if find_spec("torch") and which("g++") else set()
# Those that are there without any extra.
PEERS = {"solver": {"NumPy, textbook"} | COMPILED, "projection": {"optax", "by sorting"}, "convolution": {"XLA's own"}}


@pytest.fixture
def one_thread():
    """For PyTorch: two processes run tests, and threads of both would wait for each other's cores."""
    try:
        import torch
    except ImportError:
        yield
    else:
        usual = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(usual)


@pytest.mark.usefixtures("compiled_quickly", "one_thread")
@pytest.mark.parametrize("peers", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["ours", "with peers"])
@pytest.mark.parametrize(
    ("part", "rows"),
    [
        ("solver", {"jaxcolor primal-dual", "jaxcolor inertial", "jaxcolor"}),
        ("energy", {"jaxcolor primal-dual"}),
        ("projection", {"jaxcolor"}),
        ("convolution", {"jaxcolor"}),
        ("networks", {"jaxcolor", "jaxcolor, work of PyTorch's"}),
        ("loading", {"jaxcolor", "one thread"}),
        ("prior", {"jaxcolor"}),
        ("accelerator", set()),
        pytest.param("pipeline", {"first process", "128²", "coupled-tv", "a photo"}, marks=pytest.mark.slow),
    ],
)
def test_every_part_makes_its_tables_and_options_without_a_name_are_those_of_speed(
    part, rows, peers, tmp_path, capsys, monkeypatch
):
    # Programs of an earlier run of the tests will do.
    monkeypatch.setattr(speed, "compiling_anew", nullcontext)
    files = ["--json", str(tmp_path / "all.json"), "--plot", str(tmp_path / "figures")]
    main(["--quick", "--only", part, *files, *([] if peers else ["--no-peers"])])
    made, printed = json.loads((tmp_path / "all.json").read_text()), capsys.readouterr().out
    assert all(table["title"] in printed for table in made["tables"])
    assert rows | (PEERS.get(part, set()) if peers else set()) <= {name for t in made["tables"] for name in t["rows"]}
    assert all(name in table["rows"] for table in made["tables"] for name in table["compile"])
    figures = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert figures == {"solver": {"iteration", "roofline"}, "energy": {"gap", "residual"}}.get(
        part, {"memory", "stages"} if part == "pipeline" else set()
    )
    assert printed.count("none of the tables is what it shows") == 6 - len(figures)


def test_the_command_of_the_package_prints_the_same_tables(run):
    code, out, err = run("bench", "--quick", "--only", "projection", "--no-peers")
    assert (code, err) == (0, [])
    assert "simplex projection, 4096 vectors of 4" in out


def test_the_help_shows_the_options_of_speed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["-h"])
    assert {"--quick", "--only", "--no-peers", "--json", "--plot"} <= set(capsys.readouterr().out.split())


def test_figures_have_a_folder_of_their_own_and_an_unusable_one_is_missed_at_the_start(tmp_path, monkeypatch):
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    assert parser.parse_args(["--plot"]).plot == speed.FIGURES
    assert parser.parse_args([]).plot is None
    (tmp_path / "file").touch()
    monkeypatch.setattr(speed, "tables", lambda *_: pytest.fail("something was measured"))
    for options in (["--plot", str(tmp_path / "file")], ["--json", str(tmp_path / "absent" / "all.json")]):
        with pytest.raises(SystemExit, match="cannot"):
            main(["--quick", *options])


def test_programs_are_compiled_anew(tmp_path):
    def kept(number: float) -> bool:
        before = len(list(tmp_path.iterdir()))
        jax.jit(lambda x: x + number)(jnp.ones(3)).block_until_ready()
        return len(list(tmp_path.iterdir())) > before

    usual = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        with speed.compiling_anew():
            assert not kept(1)
        assert kept(2)
    finally:
        jax.config.update("jax_compilation_cache_dir", usual)
        compilation_cache.reset_cache()


def test_the_machine_says_what_changes_its_speed(monkeypatch):
    for name in machine.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    usual = machine.machine()
    assert {"date", "cores", "jax", "jaxlib", "commit"} <= set(usual)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert machine.machine() == usual | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "OMP_NUM_THREADS": "1"}


class Clock:
    """A clock that only what is timed moves."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def passes(self, seconds):
        self.now += seconds


def test_the_start_of_a_run_is_not_in_the_time_of_a_step(monkeypatch):
    clock = Clock(monkeypatch)
    ways = {each: Steps(lambda n, each=each: clock.passes(5 + each * n), 1, 4) for each in (2, 3)}
    rows = timing.measure_steps(ways, 6)
    assert {each: (row.median, row.repetitions) for each, row in rows.items()} == {2: (2, 6), 3: (3, 6)}


def test_as_many_steps_as_fit_and_repetitions_within_a_limit(monkeypatch):
    clock = Clock(monkeypatch)
    assert Steps.within(lambda n: clock.passes(n), 7.5).many == 1 + 7
    assert Steps.within(lambda n: clock.passes(n), 0.1).many == 1 + 2
    run = lambda: timing.seconds(clock.passes, 3)  # noqa: E731
    assert [timing.measure_within(run, limit).repetitions for limit in (0, 10, 100)] == [1, 3, 5]
    took = iter((9.0, 2.0))
    assert timing.compile_seconds(lambda: clock.passes(next(took))) == 7


def test_ratios_are_to_the_reference_and_left_out_without_it():
    rows = {"ours": Timing.of([0.002] * 5), "bound": Timing.of([0.001]), "few": Timing.of([0.001, 0.003])}
    table = Table("title", rows, "bound", notes=["a note"], values={"ours": {"steps": 7}}, compile={"ours": 1.5})
    ours, other, few, note = str(table).splitlines()[1:]
    assert ours.endswith("2.00×   compile  1.50 s   steps 7")
    assert "once" in other
    assert "[1.00 … 3.00] of 2" in few
    assert note == "  a note"
    assert "×" not in str(Table("title", rows, "another"))


def test_exponents_are_local():
    np.testing.assert_allclose(local_exponents([1, 4, 16], [1, 4, 32]), [1, 1.5])


def test_the_power_with_which_a_solve_grows_is_that_of_its_seconds(monkeypatch):
    times = iter([1.0, 8.0, 64.0])  # of 64, 256 and 1024 pixels
    monkeypatch.setattr(solver, "measure", lambda *_: Timing.of([next(times)]))
    table = solver.growth((8, 16, 32), 1)
    assert list(table.rows) == ["8²", "16²", "32²"]
    assert any("to the power 1.500" in note for note in table.notes)


def iteration_of(count):
    arrays = solver.instance(SHAPE, count)
    problem = ctv.CoupledTVProblem(*arrays, solver.LAM, solver.GAMMA)
    return arrays, problem, ctv.solve(problem, SOLVER, STEPS)


def check(chroma, weights, solution):
    np.testing.assert_allclose(chroma, solution.chroma, atol=1e-3)
    np.testing.assert_allclose(weights, solution.weights, atol=1e-5)


def by_compiler(torch, *about):
    return peers.compiled(torch, peers.planes(torch, *about))


@pytest.mark.parametrize("count", [4, 10])
@pytest.mark.parametrize("written", [peers.textbook, peers.planes, pytest.param(by_compiler, marks=pytest.mark.slow)])
def test_peers_in_torch_take_the_step_that_ours_takes(count, written):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    arrays, problem, solution = iteration_of(count)
    way = peers.without_gradients(torch, written(torch, arrays, problem, SOLVER))
    state = way.run(STEPS)
    check(way.chroma(state), way.weights(state), solution)


@pytest.mark.parametrize("count", [4, 10])
def test_the_peer_in_numpy_takes_the_step_that_ours_takes_in_float32(count):
    arrays, problem, solution = iteration_of(count)
    way = peers.textbook(np, arrays, problem, SOLVER)
    state = way.run(STEPS)
    check(way.chroma(state), way.weights(state), solution)
    assert {part.dtype for part in state} == {np.dtype("float32")}


@pytest.mark.parametrize("compiled", [False, True])
def test_scico_takes_the_step_that_ours_takes(compiled):
    pytest.importorskip("scico", reason="compares with scico")
    problem, fixed = solver.convex_problem(SHAPE), ctv.PrimalDual(solver.SIGMA, solver.TAU, 0.0)
    way = energy.scico(problem, fixed, compiled)
    state = way.advance(way.advance(way.begin(), 3), STEPS - 3)
    # A step of scico's begins with u, and its first leaves u where it starts.
    np.testing.assert_allclose(way.look(state).chroma, ctv.solve(problem, fixed, STEPS - 1).chroma, atol=1e-3)
    ours = ctv.solve(problem, fixed, STEPS).state.dual
    for theirs, plane in zip(way.look(state).dual, ours, strict=True):
        np.testing.assert_allclose(theirs, plane, atol=1e-5)
    np.testing.assert_array_equal(way.look(way.begin()).chroma, problem.mean().clip(-160, 160))


@pytest.mark.skipif(machine.compiler() is None, reason="needs a C compiler")
@pytest.mark.parametrize("count", [4, 10])
@pytest.mark.parametrize("layout", bound.LAYOUTS)
def test_every_build_in_c_takes_the_step_that_ours_takes(count, layout):
    _, problem, solution = iteration_of(count)
    names = bound.FusedC(problem, SOLVER, layout).builds
    assert len(names) == len(bound.LANES) * len(bound.THRESHOLDS) * 2
    for name in names:
        loop = bound.FusedC(problem, SOLVER, layout)
        loop.build = name
        loop(3)
        loop(STEPS - 3, turning=True)
        check(np.stack(loop.planes["chroma"], -1), np.stack(loop.planes["weights"], -1), solution)
    # Libraries linked with -ffast-math flush such numbers to 0, in the whole process.
    assert np.float64(1e-310) * np.float64(1.0) > 0


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Puts a shell script in the place of the C compiler."""

    def replace(script: str) -> None:
        (tmp_path / "cc").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "cc").chmod(0o755)
        monkeypatch.setattr(bound, "compiler", lambda: str(tmp_path / "cc"))

    bound.compiled.cache_clear()
    yield replace
    bound.compiled.cache_clear()


def test_a_compiler_that_fails_is_quoted_and_none_is_said(compiler, monkeypatch):
    compiler("echo first words >&2; echo more >&2; exit 1")
    with pytest.raises(bound.NoCompiler, match=r"the C compiler failed: first words$"):
        bound.compiled(4)
    monkeypatch.setattr(bound, "compiler", lambda: None)
    with pytest.raises(bound.NoCompiler, match="there is no C compiler"):
        bound.compiled(4)
    table = solver.iteration(16, 4, peers=False)
    assert "there is no C compiler: the C loop and the ratios to it are left out" in table.notes
    assert set(table.rows) == {"jaxcolor primal-dual", "jaxcolor inertial"}


@pytest.mark.skipif(machine.compiler() is None, reason="needs a C compiler")
def test_a_compiler_without_openmp_is_named_and_flags_are_those_of_the_processor(compiler, monkeypatch, tmp_path):
    asked = tmp_path / "asked"
    compiler(f'echo " $@ " >> {asked}\ncase " $* " in *" -fopenmp "*) exit 1;; esac\nexec {machine.compiler()} "$@"')
    _, problem, solution = iteration_of(4)
    loop = bound.FusedC(problem, SOLVER)
    assert loop.notes == ("the C compiler has no OpenMP: fused C uses one core",)
    loop(STEPS)
    check(np.stack(loop.planes["chroma"], -1), np.stack(loop.planes["weights"], -1), solution)
    fast = {" -shared " in line: " -ffast-math " in line for line in asked.read_text().splitlines()}
    assert fast == {True: False, False: True}
    monkeypatch.setattr(bound.platform, "machine", lambda: "aarch64")
    assert not any(flag.startswith("-m") and "vector" in flag for flag in bound._of_this_processor())


@pytest.mark.parametrize("objective", [Objective(), Objective(photo_in_variation=True, coarse_luminance=True)])
def test_the_deep_priors_peer_computes_the_loss_that_ours_computes(objective):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from jax.flatten_util import ravel_pytree

    from tests.skip_twin import Twin

    network = SkipNetwork(channels=4, scales=2, residual=objective.photo_in_variation)
    preset = Preset(objective=objective, network=network, guided=network.residual)
    data, state, inputs = prior.start(preset, 24)
    twin = Twin(4, 2, residual=network.residual)
    picture = drawn(network, ravel_pytree(twin.arrays())[0][None], inputs)[0]
    want = sum(data.losses(picture, state.target[0], objective))
    theirs = prior.torch_loss(torch, data, np.asarray(state.target[0]), objective)
    with torch.no_grad():
        got = theirs(twin(torch.from_numpy(np.array(inputs)).permute(0, 3, 1, 2)))
    assert float(got) == pytest.approx(float(want), rel=1e-4)


def test_the_operations_of_the_deep_prior_are_those_that_torch_counts():
    torch = pytest.importorskip("torch", reason="counts with PyTorch")
    from torch.utils.flop_counter import FlopCounterMode

    from tests.skip_twin import Twin

    with FlopCounterMode(display=False) as counter:
        Twin(8, 3)(torch.zeros(1, 32, 40, 40))
    assert prior_cost(SkipNetwork(channels=8, scales=3), 40).operations == 3 * counter.get_total_flops()


def test_an_accelerator_is_measured_where_there_is_one(monkeypatch):
    (absent,) = accelerator.tables(True, True)
    assert [note.split("; ")[0] for note in absent.notes] == [
        f"{what}: not measured (no GPU)" for what in (accelerator.SOLVER, accelerator.PRIOR)
    ]
    tiny = Preset(network=SkipNetwork(channels=4, scales=1))
    monkeypatch.setitem(PRESETS, "paper", tiny)
    rows, compiled = accelerator.measured(16, 3, 2)
    assert list(rows) == list(compiled) == ["3 primal-dual steps, 16²", "2 deep-prior steps, 16²"]
    monkeypatch.setattr(accelerator, "measured", lambda *_: (rows, compiled))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (present,) = accelerator.tables(True, True)
    assert present.rows == rows
    assert "not measured" not in str(present)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_dual_energy_is_a_lower_bound(seed):
    random = np.random.default_rng(seed)
    problem = solver.problem_of(12, 3)
    dual = [random.normal(0, 1, (12, 12)) for _ in range(5)]
    chroma = np.asarray(problem.mean()) + random.normal(0, 3, (12, 12, 2))
    assert optimality.dual_energy(problem, dual) <= optimality.energy(problem, chroma, np.asarray(problem.weights))


def test_energy_and_residuals_are_those_of_the_package():
    problem = solver.problem_of((9, 13), 4)
    random = np.random.default_rng(0)
    chroma = np.float32(np.asarray(problem.mean()) + random.normal(0, 3, (9, 13, 2)))
    weights = np.float32(random.dirichlet(np.ones(4), (9, 13)))
    got = optimality.energy(problem, chroma, weights, 0.5)
    assert got == pytest.approx(float(problem.energy(chroma, weights, 0.5)), rel=1e-5)
    slope_u, slope_w = jax.grad(lambda *at: problem.energy(*at, 0.5), (0, 1))(chroma, weights)
    step = 0.02
    moved = jax.vmap(jax.vmap(project_simplex))(weights - step * slope_w)
    want = [np.sqrt((np.square(d)).sum(-1).mean()) for d in (slope_u, weights - moved)]
    np.testing.assert_allclose(optimality.residuals(problem, chroma, weights, 0.5, step), want, rtol=1e-3)


def test_the_optimum_is_that_of_the_reference_and_certified():
    problem = solver.convex_problem(12)
    optimum, lower = energy.certified_optimum(problem, 2000)
    assert -1e-6 < (optimum - lower) / optimum < 1e-5
    arrays = (np.asarray(v, float) for v in (problem.luminance, problem.candidates, problem.weights))
    data = reference.Data(*arrays, solver.LAM, solver.GAMMA)
    chroma, _ = reference.primal_dual(data, 2000, 1 / 8, 1.0, 0.0)
    assert optimum == pytest.approx(reference.energy(data, chroma, data.weights), rel=1e-5)


def test_a_solver_is_followed_until_its_value_is_enough(monkeypatch):
    taken = []

    def advance(state, steps):
        taken.append(steps)
        return state + steps

    way = energy.Way(lambda: 0, advance, lambda state: energy.Point(state, state, None))
    course = energy.follow(way, 100, lambda point: 1 / point.chroma, 0.1)
    assert course.steps == [5, 6, 7, 8, 9, 10]
    assert course.values == [1 / steps for steps in course.steps]
    assert taken == [5, 1, 1, 1, 1, 1] * (1 + energy.REPETITIONS)
    assert all(len(times) == energy.REPETITIONS for times in course.times)
    assert [value for _, value in course.curve()] == course.values
    rows, points, notes = energy.arrivals({"soon": course, "never": energy.follow(way, 8, lambda _: 1.0, 0.0)}, 0.15)
    assert list(rows) == ["soon"]
    assert rows["soon"].repetitions == energy.REPETITIONS
    # Every run in one go, and before each one that does not count.
    assert taken[-2 * energy.REPETITIONS :] == [7] * (2 * energy.REPETITIONS)
    assert points["soon"].chroma == 7
    assert notes[0].startswith("never came to 1.0e+00 in 8 steps")


def test_our_solvers_are_followed_step_by_step():
    problem = solver.convex_problem(12)
    for name, fixed in energy.solvers(0.0).items():
        way = energy.ours(problem, fixed)
        state = way.advance(way.advance(way.begin(), 4), 5)
        solution = ctv.solve(problem, fixed, 9)
        np.testing.assert_allclose(way.look(state).chroma, solution.chroma, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(way.look(state).weights, solution.weights, atol=1e-6, err_msg=name)


def test_figures_are_drawn_of_what_there_is(tmp_path):
    pytest.importorskip("matplotlib")
    rows = {"jaxcolor primal-dual": Timing.of([0.1])}
    tables = [Table(f"{size}², 10 candidates", rows, "", size, kind="iteration") for size in (8, 16)]
    lines = list(draw(tables, tmp_path))
    assert lines[:2] == [str(tmp_path / name) for name in ("iteration.svg", "roofline.svg")]
    assert lines[2].startswith("no gap: ")
    assert len(list(tmp_path.iterdir())) == 2
