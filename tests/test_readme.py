"""The README's commands are understood, and its Python runs."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcolor.cli.main import build_parser

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.splitlines()
    if line.startswith("jaxcolor ")
]
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command):
    assert callable(build_parser().parse_args(shlex.split(command)[1:]).run)


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize("program", PROGRAMS)
def test_program_runs(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gray = np.tile(np.linspace(0, 255, 48, dtype=np.uint8), (40, 1))
    Image.fromarray(gray).save("old.jpg")
    exec(compile(program, str(README), "exec"), {})


def test_local_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("http")]
    assert len(local) > 5
    assert [link for link in local if not (README.parent / link).exists()] == []


def test_there_is_something_to_test():
    assert len(COMMANDS) > 5
    assert len(PROGRAMS) == 4
