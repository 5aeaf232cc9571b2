"""Several steps of a solver: of the whole image one after another, or on CPU tile after tile.

A step passes through all planes several times, and where they are larger than the caches it waits for memory. A tile
with a margin around it can take a few steps while it stays in the caches: what the margin lacks of the image beyond it
spoils one more row and column with every step, and not the tile (overlapped tiling). The margins are computed twice;
results are the same. For the same reason the problems of a batch are solved one after another, unless they are small.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap

from jaxcolor.cores import usable_cores
from jaxcolor.coupled_tv.operators import computed_once, cut, paste

# Measured on two cores with 32 MB of shared cache, k = 10 (leads, by a script that was not kept; ``python -m benchmarks
# speed --only solver`` times the steps).
# Four rounds for the 50 steps that ``solve_in_chunks`` takes between two looks at the clock, one for the 10 of a usual
# ``StopRule``. With 7 at 1024² a step took longer by a tenth, with 10 as long.
_STEPS_TOGETHER = 13
# Of state and problem in a tile with its margin, for every core. With 4 million a step took longer by a fifth at 512²
# and a tenth at 1024²; with 6 one of the inertial solver by a fifth at 1024². Up to twice that an image is not divided:
# tiles were slower at 256² and gained nothing at 320², a quarter at 384² and a half at 1024².
_BYTES_PER_CORE = 5_000_000
# A problem that takes more of what caches hold is not solved beside others. A step of one of sixteen problems of ten
# candidates, all at once and one after another: 0.04 and 0.06 ms at 64², 0.18 and 0.10 at 96², 0.49 and 0.16 at 128²,
# 2.1 and 0.6 at 256²; of two problems 0.14 and 0.16 at 128² (leads).
_SHARE_OF_A_BATCH = 1 / 10
# Rows of whole vectors of 512 bits: with 319 pixels a step took longer by a tenth for each pixel than with 320.
_PIXELS_OF_A_VECTOR = 16
# The first pixels of a row take longer: 231 × 197 took a tenth longer than 154 × 282.
_PIXELS_TO_BEGIN_A_ROW = 32


def advance(problem: Any, solver: Any, state: Any, count: Array | int) -> Any:
    """``count`` steps of a solver; on CPU in tiles where ``solver.reach`` allows it and the image is large enough.

    Differentiable in both modes with an integer as ``count``, with a traced one forward only: then all steps are of the
    whole image. Under ``vmap`` problems that would drive each other out of the caches are solved one after another.
    """
    if getattr(solver, "weight_step", 0) is not None:
        return _advance(problem, solver, state, count)
    # Weights that stay and their candidates count by their mean only, which are fewer planes to go through.
    alone = problem.with_mean_alone(state.weights)
    end = _advance(alone, solver, state.with_weights(alone.weight_planes), count)
    return end.with_weights(state.weights)


def _advance(problem: Any, solver: Any, state: Any, count: Array | int) -> Any:
    def whole(problem: Any, solver: Any, state: Any, limit: Array | int) -> Any:
        # The integer where it is known, as reverse mode needs it.
        return _repeat(partial(solver.step, problem), state, limit if isinstance(count, Array) else count)

    tiles, pixels = _tiles(problem, solver, state), math.prod(problem.shape)
    if tiles is None and pixels <= _SHARE_OF_A_BATCH * _pixels(problem, state):
        return whole(problem, solver, state, count)
    one_by_one = sequential_vmap(whole if tiles is None else partial(_advance_in_tiles, tiles))

    @jax.custom_jvp
    def either(*operands: Any) -> Any:
        return lax.platform_dependent(*operands, cpu=one_by_one, default=whole)

    @either.defjvp
    def _(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        return jax.jvp(whole, primals, tangents)

    return either(problem, solver, state, jnp.asarray(count, jnp.int32))


@dataclass(frozen=True)
class Tiles:
    """How an image is divided: ``grid`` rows and columns of tiles of one ``shape``, which overlap where they must.

    ``window`` is the shape of a tile with its ``margin``, or of the image where that is smaller.
    """

    image: tuple[int, int]
    grid: tuple[int, int]
    shape: tuple[int, int]
    window: tuple[int, int]
    margin: int

    @classmethod
    def of(cls, image: tuple[int, int], margin: int, pixels: float) -> "Tiles | None":
        """The division of least work whose windows have at most so many pixels; None if none is worth its margins."""
        if math.prod(image) <= 2 * pixels:
            return None
        divisions = (cls._with_rows(image, margin, pixels, rows) for rows in range(1, image[0] + 1))
        best = min((tiles for tiles in divisions if tiles is not None), key=cls.work, default=None)
        return best if best is not None and best.work() < 2 * math.prod(image) else None

    @classmethod
    def _with_rows(cls, image: tuple[int, int], margin: int, pixels: float, rows: int) -> "Tiles | None":
        height, width = image
        tile = math.ceil(height / rows)
        window = min(tile + 2 * margin, height)
        widest = math.floor(pixels / window)
        if widest >= width:
            return cls(image, (rows, 1), (tile, width), (window, width), margin)
        widest -= widest % _PIXELS_OF_A_VECTOR
        if widest <= 2 * margin:
            return None
        columns = math.ceil(width / (widest - 2 * margin))
        across = math.ceil(width / columns) + 2 * margin
        across += -across % _PIXELS_OF_A_VECTOR
        return cls(image, (rows, columns), (tile, across - 2 * margin), (window, across), margin)

    def work(self) -> int:
        """Pixels of all windows, and what the beginnings of their rows are worth."""
        return math.prod(self.grid) * self.window[0] * (self.window[1] + _PIXELS_TO_BEGIN_A_ROW)

    def corners(self, number: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Row and column where the tile of this number begins, and where its window does."""
        places = (number // self.grid[1], number % self.grid[1])
        tile = tuple(jnp.minimum(i * n, size - n) for i, n, size in zip(places, self.shape, self.image, strict=True))
        window = tuple(
            jnp.clip(t - self.margin, 0, size - n) for t, n, size in zip(tile, self.window, self.image, strict=True)
        )
        return tile, window


def _tiles(problem: Any, solver: Any, state: Any) -> Tiles | None:
    """The tiles for a solver that says how far a step reaches."""
    reach = getattr(solver, "reach", None)
    if reach is None:
        return None
    return Tiles.of(problem.shape, reach * _STEPS_TOGETHER, _pixels(problem, state))


def _pixels(problem: Any, state: Any) -> float:
    """How many pixels of state and problem the caches hold; weights are only in the state once steps are taken."""
    planes = jax.tree.leaves((state, problem.luminance, problem.candidate_planes))
    bytes_per_pixel = sum(x.size * x.dtype.itemsize for x in planes) / math.prod(problem.shape)
    return _BYTES_PER_CORE * usable_cores() / bytes_per_pixel


def _advance_in_tiles(tiles: Tiles, problem: Any, solver: Any, state: Any, count: Array) -> Any:
    """``count`` steps in rounds of about equally many, each over all tiles.

    In one copy of the state, with rows to spare: a round writes all planes a window higher than it reads them, from the
    first tile to the last, and the next one a window lower, from the last to the first, so that what is written was
    read by all who need it.
    """
    number, spare = math.prod(tiles.grid), tiles.window[0]
    rounds = (count + _STEPS_TOGETHER - 1) // _STEPS_TOGETHER

    def advance_tile(i: Array, planes: Any) -> Any:
        turn, place = i // number, i % number
        upward = turn % 2 == 0
        (row, column), (top, left) = tiles.corners(jnp.where(upward, place, number - 1 - place))
        local = computed_once(lambda p, *corner: p.window(corner, tiles.window), problem, top, left)
        source, target = jnp.where(upward, spare, 0), jnp.where(upward, 0, spare)
        begin = jax.tree.map(lambda p: cut(p, (source + top, left), tiles.window), planes)
        steps = count // rounds + (turn < count % rounds)
        end = lax.fori_loop(0, steps, lambda _, s: solver.step(local, s), begin)
        parts = jax.tree.map(lambda p: cut(p, (row - top, column - left), tiles.shape), end)
        return jax.tree.map(lambda p, part: paste(p, part, (target + row, column)), planes, parts)

    roomy = jax.tree.map(lambda p: jnp.pad(p, ((spare, 0), *[(0, 0)] * (p.ndim - 1))), state)
    roomy = lax.fori_loop(0, rounds * number, advance_tile, roomy)
    return jax.tree.map(lambda p: cut(p, (jnp.where(rounds % 2 == 0, spare, 0), 0), tiles.image), roomy)


def _repeat(step: Callable[[Any], Any], state: Any, steps: Array | int) -> Any:
    """``steps`` steps; an integer as two nested, checkpointed scans: reverse mode holds 2 sqrt(steps) states."""
    if isinstance(steps, Array):
        return lax.fori_loop(0, steps, lambda _, s: step(s), state)

    def scanned(state: Any, length: int) -> Any:
        once = jax.checkpoint(lambda s, _: (step(s), None), prevent_cse=False)
        return lax.scan(once, state, None, length=length)[0]

    inner = _block_length(steps)
    outer, rest = divmod(steps, inner)
    if outer > 1:
        block = jax.checkpoint(lambda s, _: (scanned(s, inner), None), prevent_cse=False)
        state = lax.scan(block, state, None, length=outer)[0]
    else:
        rest = steps
    return scanned(state, rest) if rest else state


def _block_length(steps: int) -> int:
    """Near sqrt(steps), and a divisor if there is one: a remainder would compile the step a second time."""
    root = max(math.isqrt(steps), 1)
    divisors = [n for n in range(max(root // 2, 1), 2 * root + 1) if steps % n == 0]
    return min(divisors, key=lambda n: abs(n - root), default=root)
