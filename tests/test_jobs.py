"""Many photos one after the other: reading and writing beside the work, and what fails."""

import argparse
import threading
from pathlib import Path
from typing import Any

import pytest

from jaxcolor.cli.jobs import Job, Tell, Write, do_all

JOBS = [Job(Path(name), Path(f"{name}-color"), None) for name in ("a", "b", "c", "d")]
ARGS, LOUD = (argparse.Namespace(report=None, quiet=quiet) for quiet in (True, False))
SECONDS = 20


def report(job: Job) -> dict[str, Any]:
    return {"input": str(job.source)}


def test_the_next_photo_is_read_and_the_last_one_written_and_told_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    began, told = ({job.source.name: threading.Event() for job in JOBS} for _ in range(2))
    monkeypatch.setattr("jaxcolor.cli.jobs._summary", lambda of: told[of["input"]].set() or of["input"])

    def read(job: Job) -> str:
        began[job.source.name].set()
        return job.source.name.upper()

    def work(job: Job, photo: str, tell: Tell) -> Write:
        number = JOBS.index(job)
        assert photo == job.source.name.upper()
        assert threading.current_thread() is threading.main_thread()
        for event in [*list(told.values())[:number], *list(began.values())[: number + 2]]:
            assert event.wait(SECONDS)
        return lambda: report(job)

    assert do_all(JOBS, {}, LOUD, "done", read, work) == 0


def test_an_output_that_was_closed_is_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(of: dict[str, Any]) -> str:
        raise BrokenPipeError

    monkeypatch.setattr("jaxcolor.cli.jobs._summary", closed)
    with pytest.raises(BrokenPipeError):
        do_all(JOBS[:1], {}, LOUD, "done", lambda job: job, lambda job, *_: lambda: report(job))


def test_a_slow_disk_is_waited_for() -> None:
    """One result is written while the next is computed; the one after that waits for it."""
    started: list[str] = []
    third = threading.Event()

    def work(job: Job, photo: Job, tell: Tell) -> Write:
        started.append(job.source.name)
        if job is JOBS[2]:
            third.set()

        def write() -> dict[str, Any]:
            if job is JOBS[0]:
                assert not third.wait(0.5)
            return report(job)

        return write

    assert do_all(JOBS, {}, ARGS, "done", lambda job: job, work) == 0
    assert started == ["a", "b", "c", "d"]


@pytest.mark.parametrize("stage", ["read", "work", "write"])
def test_one_that_fails_at_any_stage_is_reported_in_its_place(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(job: Job, where: str) -> None:
        if job is JOBS[1] and where == stage:
            raise OSError("no luck")

    def read(job: Job) -> None:
        fail(job, "read")

    def work(job: Job, photo: None, tell: Tell) -> Write:
        fail(job, "work")

        def write() -> dict[str, Any]:
            fail(job, "write")
            return {
                **report(job),
                **dict.fromkeys(("width", "height", "colorfulness", "saturation", "out_of_gamut_share"), 1),
                "output": "o",
                "method": "m",
                "seconds": {},
                "notes": [],
            }

        return write

    failed: dict[str, str] = {}
    assert do_all(JOBS, failed, LOUD, "done", read, work) == 1
    assert failed == {"b": "no luck"}
    out, err = capsys.readouterr()
    assert [line[0] for line in out.splitlines()] == ["a", "c", "d"]
    assert err.splitlines() == ["jaxcolor: error: no luck", "3 of 4 photos done, 1 failed"]


def test_ctrl_c_keeps_what_is_being_written(tmp_path: Path) -> None:
    reported = tmp_path / "report.json"
    interrupted = threading.Event()

    def work(job: Job, photo: Job, tell: Tell) -> Write:
        if job is JOBS[1]:
            interrupted.set()
            raise KeyboardInterrupt

        def write() -> dict[str, Any]:
            assert interrupted.wait(SECONDS)
            return report(job)

        return write

    args = argparse.Namespace(report=reported, quiet=True, force=False)
    with pytest.raises(KeyboardInterrupt):
        do_all(JOBS, {}, args, "done", lambda job: job, work)
    assert '"input": "a"' in reported.read_text()
    assert '"input": "b"' not in reported.read_text()
