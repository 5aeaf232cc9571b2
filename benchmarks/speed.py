"""Solver iterations beside their peers: milliseconds per iteration and ratios to the hand-fused bound."""

import argparse
import json
from dataclasses import asdict

from benchmarks.solver import compare
from benchmarks.timing import machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m benchmarks speed``."""
    parser.add_argument("--quick", action="store_true", help="one small image, a few seconds")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], help="side lengths of the image")
    parser.add_argument("--candidates", type=int, default=10, help="candidates per pixel")
    parser.add_argument("--no-peers", action="store_true", help="leave PyTorch and NumPy out")
    parser.add_argument("--json", action="store_true", help="one JSON object per size")


def run(options: argparse.Namespace) -> None:
    """Print one table for every size."""
    about = machine()
    if not options.json:
        print(", ".join(f"{name} {value}" for name, value in about.items()))
    for size in [64] if options.quick else options.sizes:
        steps = max(4, min(200, int(2.5e7 / size**2)))
        timings, compile_time = compare(size, options.candidates, steps, not options.no_peers)
        if options.json:
            rows = {name: asdict(t) for name, t in timings.items()}
            print(json.dumps(about | {"size": size, "seconds": rows, "compile_seconds": compile_time}))
            continue
        print(f"{size}², {options.candidates} candidates, float32; first call {compile_time:.1f} s")
        bound = timings.get("fused C")
        for name, t in timings.items():
            ratio = f"{t.median / bound.median:6.2f}×" if bound else ""
            print(f"  {name:22s} {t.median * 1e3:8.2f} ms [{t.least * 1e3:.2f} … {t.most * 1e3:.2f}] {ratio}")
