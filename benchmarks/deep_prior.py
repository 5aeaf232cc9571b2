"""What the deep prior costs and what it gives, on color photos that the network has not seen.

    python -m benchmarks.deep_prior --photos FOLDER [--number 8] [--size 256] [--presets fast paper] [--prior-steps N]

Three tables. The time of a step beside the same step in PyTorch. The loss against time of every preset, on the first
photo. And for every photo and method, from one distribution: how far the colors bleed, beside how saturated they are,
since gray does not bleed.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcolor as jc
from benchmarks.timing import machine, measure
from benchmarks.truth import photo, photo_files
from jaxcolor.color.spaces import srgb_to_lab
from jaxcolor.deep_prior import PRESETS, Preset, fit_deep_prior

MEASURES = ("away from edges", "alignment", "ΔE near edges", "ΔE elsewhere", "saturation", "colorfulness")
COUPLING = 240.0


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--number", type=int, default=8, help="photos, evenly spread over the folder")
    parser.add_argument("--size", type=int, default=256, help="side of the square photos")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=["fast"])
    parser.add_argument("--prior-steps", type=int, help="of Adam; default: the preset's")
    parser.add_argument("--weights")
    parser.add_argument("--no-steps", action="store_true", help="leave the first table out")
    args = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    chosen = photo_files(args.photos, args.number)
    net = jc.CIC.load(args.weights)
    for name in () if args.no_steps else args.presets:
        print_step(name, PRESETS[name], args.size)
    print_curves(photo(chosen[0], args.size), net, args.presets, args.prior_steps)
    print_quality(chosen, net, args)


def print_step(name: str, preset: Preset, size: int) -> None:
    """Seconds per step of Adam, here and in PyTorch."""
    gray, distribution = np.full((size, size), 50, np.float32), _flat(size)
    first = fit_deep_prior(gray, distribution, preset=preset, steps=1)
    fewer, more = (
        measure(lambda n=n: fit_deep_prior(gray, distribution, preset=preset, steps=n, init=first), 3).median
        for n in (1, 4)
    )
    ours = (more - fewer) / 3
    theirs = _torch_step(preset, size)
    print(f"{name}: {size}², {preset.network.channels} channels, {preset.network.scales} scales, float32")
    print(f"  JAX      {ours:8.3f} s per step")
    if theirs is not None:
        print(f"  PyTorch  {theirs:8.3f} s per step, forward and backward pass without the loss", flush=True)


def _torch_step(preset: Preset, size: int) -> float | None:
    """Of the twin network; the loss, which is small beside it, is left out in favor of PyTorch."""
    try:
        import torch

        from tests.skip_twin import Twin
    except ImportError:
        return None
    twin = Twin(preset.network.channels, preset.network.scales)
    noise, optimiser = torch.randn(1, 32, size, size), torch.optim.Adam(twin.parameters(), lr=preset.learning_rate)

    def step() -> None:
        optimiser.zero_grad()
        twin(noise).square().mean().backward()
        optimiser.step()

    return measure(step, 3).median


def _flat(size: int) -> jc.ColorDistribution:
    cells = max(1, size // 4)
    return jc.ColorDistribution(jnp.ones((cells, cells, 1)), jnp.array([[40.0, -20.0]]))


def print_curves(lab: np.ndarray, net: jc.CIC, presets: list[str], steps: int | None) -> None:
    """The loss and its parts against seconds, compilation apart."""
    distribution = net.rebalanced(net.predict(lab[..., 0]))
    for name in presets:
        preset = PRESETS[name] if steps is None else replace(PRESETS[name], steps=steps)
        guide = _guide(lab, distribution) if preset.guided else None
        begin = fit_deep_prior(lab[..., 0], distribution, preset=preset, guide=guide, steps=1)
        marks, start = [], time.perf_counter()

        def note(done: int, *parts: float, marks: list[Any] = marks, start: float = start) -> None:
            marks.append((done, time.perf_counter() - start, *parts))

        fit_deep_prior(
            lab[..., 0], distribution, preset=preset, guide=guide, init=begin, steps=preset.steps - 1, progress=note
        )
        print(f"{name}: loss against time\n{'step':>6}{'seconds':>10}{'loss':>12}", end="")
        print(f"{'color':>12}{'luminance':>12}{'variation':>12}")
        for done, seconds, *parts in marks[:: max(1, len(marks) // 20)] + marks[-1:]:
            print(
                f"{done:6d}{seconds:10.1f}{sum(parts):12.3e}" + "".join(f"{part:12.3e}" for part in parts), flush=True
            )


def _guide(lab: np.ndarray, distribution: jc.ColorDistribution) -> jax.Array:
    problem = jc.CoupledTVProblem.from_distribution(lab[..., 0], distribution)
    return jc.solve_in_chunks(problem, jc.PrimalDual()).chroma


def print_quality(paths: list[Path], net: jc.CIC, args: argparse.Namespace) -> None:
    """One row for every photo and method, then the means, and on how many photos a method bleeds less than another."""
    rows: dict[str, list[list[float]]] = {}
    print(f"{'photo':<22}{'method':<18}" + "".join(f"{name:>16}" for name in MEASURES))
    for path in paths:
        lab = photo(path, args.size)
        gray = jc.GrayImage(np.clip(np.asarray(lab[..., 0]), 0, 100))
        distribution = net.rebalanced(net.predict(gray.luminance))
        settings: dict[str, dict[str, Any]] = {"cic": {"method": "cic"}, "coupled-tv": {"method": "coupled-tv"}}
        for name in args.presets:
            settings[f"deep-prior {name}"] = {
                "method": "deep-prior",
                "preset": name,
                "prior_steps": args.prior_steps,
                "working_side": args.size,
            }
        for name, chosen in settings.items():
            values = bleeding(jc.read_out(gray, distribution, **chosen), lab)
            rows.setdefault(name, []).append(values)
            print(f"{path.stem[:20]:<22}{name:<18}" + "".join(f"{value:16.3f}" for value in values), flush=True)
    for name, values in rows.items():
        print(f"{'mean':<22}{name:<18}" + "".join(f"{value:16.3f}" for value in np.mean(values, 0)))
    for name in rows:
        for peer in ("cic", "coupled-tv"):
            if name.startswith("deep-prior"):
                away, aligned = np.array(rows[name])[:, :2].T, np.array(rows[peer])[:, :2].T
                less, more = (away[0] < aligned[0]).sum(), (away[1] > aligned[1]).sum()
                print(
                    f"{name} against {peer}: less away from edges on {less}, better aligned on {more} of {len(paths)}"
                )


def bleeding(rgb: np.ndarray, truth: np.ndarray) -> list[float]:
    """The measures above of one picture; ``truth`` is in Lab."""
    lab, shown = srgb_to_lab(jnp.asarray(rgb)), jnp.asarray(rgb)
    error = jc.metrics.band_error(lab, jnp.asarray(truth))
    return [
        float(jc.metrics.variation_away_from_edges(lab[..., 0], lab[..., 1:])),
        float(jc.metrics.alignment_gain(lab[..., 0], lab[..., 1:], COUPLING)),
        float(error.near),
        float(error.elsewhere),
        float(jc.metrics.saturation(shown)),
        float(jc.metrics.colorfulness(shown)),
    ]


if __name__ == "__main__":
    main()
