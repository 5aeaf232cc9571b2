"""Every example in a docstring runs as it is printed."""

import doctest
import importlib
import pkgutil

import pytest

import jaxcolor

MODULES = [jaxcolor.__name__] + [
    module.name
    for module in pkgutil.walk_packages(jaxcolor.__path__, "jaxcolor.")
    if not module.name.endswith(".__main__")
]


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module)
    assert failed == 0, "see the captured output"


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [test for name in MODULES for test in finder.find(importlib.import_module(name))]
    assert sum(bool(test.examples) for test in tests) > 20
