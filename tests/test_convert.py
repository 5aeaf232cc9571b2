"""The released PyTorch checkpoint as weights: parity, strictness, safety."""

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxcolor import convolution
from jaxcolor.cic.convert import convert_checkpoint, read_state_dict, variables_from_state_dict
from jaxcolor.cic.network import CICNetwork
from jaxcolor.cic.weights import load_weights
from jaxcolor.cli import weights as command
from jaxcolor.errors import InputError

torch = pytest.importorskip("torch", reason="the checkpoint converter needs torch")

from tests import cic_twin  # noqa: E402  (after the skip: it imports torch)

SMALL = 1 / 16
# 3x3 convolutions at full width without a stride, of 128 channels or more on both sides: two in block 3, three in each
# of the blocks 4 to 7, two in block 8.
WITH_MANY_CHANNELS = 16


@pytest.mark.parametrize(
    ("width", "shape", "winograd"),
    [
        pytest.param(SMALL, (2, 24, 104), False, id="small"),
        pytest.param(1.0, (1, 72, 96), False, id="full width", marks=pytest.mark.slow),
        pytest.param(1.0, (1, 72, 96), True, id="full width, Winograd"),
    ],
)
def test_converted_network_agrees_with_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: float, shape: tuple[int, int, int], winograd: bool
) -> None:
    """By Winograd's way too, which smaller pictures than this are not worth in the network that is used."""
    made: list[tuple[int, ...]] = []

    def counted(x: jax.Array, kernel: jax.Array, **how: Any) -> jax.Array:
        made.append(kernel.shape)
        return winograds_way(x, kernel, **how)

    winograds_way = convolution.winograd
    monkeypatch.setattr(convolution, "winograd", counted)
    monkeypatch.setattr(convolution, "_MULTIPLICATIONS_FOR_WINOGRAD", 0 if winograd else math.inf)
    twin = cic_twin.Twin(width)
    torch.save(twin.state_dict(), tmp_path / "twin.pth")
    manifest = convert_checkpoint(tmp_path / "twin.pth", tmp_path / "twin.safetensors", width=width)
    variables, _ = load_weights(tmp_path / "twin.safetensors")
    if width == 1:
        assert manifest["parameters"] == 32_236_011

    luminance = np.random.default_rng(0).uniform(0, 100, shape).astype(np.float32)
    with torch.no_grad():
        want = twin(torch.from_numpy(luminance[:, None])).numpy().transpose(0, 2, 3, 1)
    # A function of its own: of an equal network that was traced before, JAX would take the program.
    logits = jax.jit(lambda *at: CICNetwork(width=width).apply(*at))(variables, luminance[..., None])
    assert len(made) == (WITH_MANY_CHANNELS if winograd else 0)
    got = jax.nn.softmax(logits, axis=-1)
    np.testing.assert_allclose(got, want, atol=1e-5)
    # The distributions are far from uniform and differ between pixels, or agreement would mean little.
    assert want.max() > 0.03
    assert want.std(axis=(1, 2)).max() > 1e-3


def test_old_checkpoint_format_and_half_precision_are_read(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in cic_twin.Twin(SMALL).state_dict().items()}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    arrays = variables_from_state_dict(read_state_dict(tmp_path / "old.pth"), width=SMALL)
    assert jax.tree.map(np.shape, arrays["params"]["model8_0"])["kernel"] == (4, 4, 32, 16)
    assert {a.dtype for a in jax.tree.leaves(arrays)} == {np.dtype("float32")}


def test_every_mismatch_is_listed_in_one_line(tmp_path: Path) -> None:
    path = cic_twin.save(
        tmp_path / "bad.pth",
        model1__0__weight=None,
        model3__6__running_var=None,
        model5__2__bias=torch.zeros(3),
        extra=torch.zeros(1),
    )
    with pytest.raises(InputError) as caught:
        convert_checkpoint(path, tmp_path / "out.safetensors", width=SMALL)
    message = str(caught.value)
    assert "missing: model1.0.weight, model3.6.running_var;" in message
    assert "unexpected: extra;" in message
    assert "wrong shape: model5.2.bias (3,) instead of (32,)" in message
    assert "\n" not in message
    assert not (tmp_path / "out.safetensors").exists()


def test_another_palette_or_not_a_number_is_refused(tmp_path: Path) -> None:
    flipped = torch.from_numpy(np.ascontiguousarray(cic_twin.ab_bins()[::-1].T[:, :, None, None])) / 110
    source = cic_twin.save(tmp_path / "p.pth", model_out__weight=flipped)
    with pytest.raises(InputError, match="another palette"):
        convert_checkpoint(source, tmp_path / "out.safetensors", width=SMALL)
    with pytest.raises(InputError, match=r"not finite real numbers: model4\.2\.bias$"):
        variables_from_state_dict(
            read_state_dict(cic_twin.save(tmp_path / "n.pth", model4__2__bias=torch.full((32,), torch.nan))),
            width=SMALL,
        )


class Dangerous:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("dangerous",)


def test_unsafe_damaged_and_foreign_files_give_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model1.0.weight": Dangerous()}, "unsafe.pth")
    good = cic_twin.save(tmp_path / "good.pth").read_bytes()
    Path("truncated.pth").write_bytes(good[: len(good) // 2])
    Path("empty.pth").touch()
    Path("text.pth").write_text("not a checkpoint")
    torch.save([torch.zeros(3)], "list.pth")
    Path("folder.pth").mkdir()
    for name in ("unsafe", "truncated", "empty", "text", "list", "folder", "absent"):
        with pytest.raises(InputError, match=f"{name}.pth") as caught:
            read_state_dict(f"{name}.pth")
        assert "\n" not in str(caught.value)
    assert not Path("dangerous").exists()


def test_missing_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"pip install 'jaxcolor\[torch\]'.*download\.pytorch\.org/whl/cpu"):
        read_state_dict("any.pth")


def test_convert_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    source = cic_twin.save(tmp_path / "twin.pth")
    args = parser.parse_args(["weights", "convert", str(source), "--width", str(SMALL)])
    assert args.run(args) == 0
    _, manifest = load_weights(tmp_path / "twin.safetensors")
    assert str(tmp_path / "twin.safetensors") in capsys.readouterr().out
    assert manifest["source"] == "twin.pth"
    with pytest.raises(InputError, match="exists"):
        args.run(args)
    args = parser.parse_args(["weights", "convert", str(source), "--force"])
    with pytest.raises(InputError, match=r"not the CIC network of width 1: wrong shape: model1\.0\.bias"):
        args.run(args)
    load_weights(tmp_path / "twin.safetensors")
    args = parser.parse_args(["weights", "convert", str(source), "--width", "nan", "--force"])
    with pytest.raises(InputError, match="width"):
        args.run(args)
