"""The speed benchmark: its tables, and the bounds that it compares with."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcolor.coupled_tv as ctv
from benchmarks import energy
from benchmarks.__main__ import main
from benchmarks.drawings import draw
from benchmarks.timing import Table, Timing, machine


def test_options_without_a_name_are_those_of_speed(tmp_path, capsys):
    main(["--quick", "--only", "projection", "--json", str(tmp_path / "all.json")])
    made = json.loads((tmp_path / "all.json").read_text())
    assert made["tables"][0]["title"] in capsys.readouterr().out
    assert list(made["tables"][0]["rows"]) == ["jaxcolor", "optax", "by sorting"]
    assert made["machine"]["cores"]


def test_the_machine_says_how_memory_is_taken(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    usual = machine()
    assert "GLIBC_TUNABLES" not in usual
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert machine() == usual | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def test_the_command_of_the_package_prints_the_same_tables(run):
    code, out, err = run("bench", "--quick", "--only", "projection", "--no-peers")
    assert (code, err) == (0, [])
    assert "simplex projection, 4096 vectors of 4" in out


def test_ratios_are_to_the_reference_and_left_out_without_it():
    rows = {name: Timing(seconds, seconds, seconds) for name, seconds in {"ours": 0.002, "bound": 0.001}.items()}
    table = Table("title", rows, "bound", notes=["a note"], values={"ours": {"steps": 7}})
    assert "2.00×   steps 7" in str(table)
    assert str(table).endswith("  a note")
    assert "×" not in str(Table("title", rows, "another"))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_dual_energy_is_a_lower_bound(seed):
    random = np.random.default_rng(seed)
    problem, _, mean = energy.convex_problem(12)
    dual = tuple(random.normal(0, 1, (12, 12)) for _ in range(5))
    assert energy.dual_energy(problem, dual) <= energy.energy_of(problem, mean + random.normal(0, 3, mean.shape))


def test_the_optimum_is_certified_and_its_energy_is_the_problems():
    problem, *_ = energy.convex_problem(12)
    optimum, gap = energy.certified_optimum(problem, 2000)
    assert -1e-6 < gap < 1e-5
    chroma = ctv.solve(problem, ctv.PrimalDual(weight_step=0.0), 2000).chroma
    assert optimum == pytest.approx(float(problem.energy(chroma, problem.weights)), rel=1e-5)


def test_solvers_that_do_not_arrive_are_named():
    first, last = energy.to_optimum(12, 40, peers=False)
    assert set(last.rows) <= set(first.rows)
    assert len(last.rows) + len(last.notes) == 1 + len(energy.solvers(0.0))


def test_figures_are_drawn_of_the_iterations(tmp_path):
    pytest.importorskip("matplotlib")
    rows = {"jaxcolor primal-dual": Timing(0.1, 0.1, 0.1)}
    tables = [Table(f"iteration, {size}², 10 candidates", rows, "", size) for size in (8, 16)]
    assert [path.name for path in draw(tables, tmp_path)] == ["iteration.svg", "traffic.svg"]
    assert draw([], tmp_path) == []
