"""Importing the package is instant and starts nothing; its names are there when they are asked for."""

import json
import subprocess
import sys

import pytest

import jaxcolor

HEAVY = ("jax", "flax", "optax", "orbax", "numpy", "scipy", "PIL", "imageio", "torch", "requests")
PROBE = f"""
import json, sys
import jaxcolor
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


def test_importing_the_package_loads_nothing_heavy() -> None:
    command = [sys.executable, "-W", "error", "-c", PROBE]
    loaded = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert loaded == []


@pytest.mark.parametrize("name", jaxcolor.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(jaxcolor, name) is not None
    assert name in dir(jaxcolor)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="no attribute 'colourise'"):
        jaxcolor.colourise  # noqa: B018


def test_global_settings_of_jax_are_untouched() -> None:
    code = (
        "import jax; before = dict(jax.config.values); import jaxcolor; "
        "[getattr(jaxcolor, name) for name in jaxcolor.__all__]; "
        "changed = {k for k, v in jax.config.values.items() if before.get(k, v) != v}; assert not changed, changed"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
