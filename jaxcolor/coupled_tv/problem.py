"""The coupled-TV problem: data, parameters and energy; nothing in this file iterates.

    min over u, w of  TV_γ(Y, u) + λ/2 Σ_x Σ_i w_i(x) ‖u(x) - c_i(x)‖² + χ_R(u) + χ_Δ(w)
    TV_γ(Y, u) = Σ_x sqrt( γ|∇Y|² + |∇U|² + |∇V|² )

(Mouzon, Pierre, Berger 2019, equations 2, 6 and 7.) Convex in u and linear in w, not jointly convex: the result
depends on the initial weights, by intention.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxcolor.color.gamut import project_yuv, scale_chroma
from jaxcolor.color.guidance import Guidance, strongest_by_luminance
from jaxcolor.color.spaces import lab_to_srgb, srgb_to_yuv
from jaxcolor.coupled_tv.checks import check_arrays, check_luminance, check_number, check_space
from jaxcolor.coupled_tv.operators import Extent, Pair, computed_once, coupled_total_variation, cut, inside, total
from jaxcolor.coupled_tv.weights import join, split, spread, weighted_mean
from jaxcolor.errors import InputError
from jaxcolor.trees import Number, Plane, Planes, make, register

if TYPE_CHECKING:
    from jaxcolor.color.distribution import ColorDistribution

# Found on four 256² photos of a training set, k = 10, 500 primal-dual steps, without guidance; the true 64×64
# distribution (5 nearest bins, σ = 5) blurred by 1.2 and shifted by 0.7 cells; ΔE2000 within 4 pixels of color edges /
# everywhere:
#     bicubic mean                    4.566 / 2.644
#     γ = 240, ρ = 1.8e-4   λ 0.0045  4.461 / 2.651     λ 0.01  4.443 / 2.590     λ 0.02   4.459 / 2.566
#     λ = 0.01, γ = 240     ρ 1.8e-5  4.493 / 2.632     ρ 1e-4  4.455 / 2.598     ρ 1.8e-3 4.556 / 2.825
#     λ = 0.0045            γ 25      4.619 / 2.840     γ 800   4.459 / 2.612
# On the two-region image the default leaves 0.000 % of pixels on the wrong color (bicubic 1.13 %) with a mean error of
# 0.62 (bicubic 1.93). Four photos show a direction, not a third digit. With guidance λ was tried again; see there.
DEFAULT_FIDELITY = {"lab": 0.01, "yuv": 0.01}
"""λ when none is given, by color space; that of YUV is taken over from Lab, not measured."""
GUIDED_FIDELITY = 0.02
"""λ when none is given and guidance is: colors that luminance has led already may be believed more."""
# ``python -m benchmarks parameters FOLDER --number 16 --cell 4`` on training photos (192², 48×48 cells); ΔE2000 within
# 4 pixels of color edges / everywhere, of those chosen on; all axes are in notebook 9:
#                          clean          degraded       the network's own
#     bicubic              2.143 / 1.284  5.878 / 3.754  11.171 / 10.435
#     defaults             2.784 / 1.736  4.645 / 3.032  11.592 / 10.332
#     λ = 0.01             2.868 / 1.800  4.685 / 3.049  11.540 / 10.268
#     λ = 0.04             2.785 / 1.776  4.656 / 3.062  11.629 / 10.390
#     γ = 60               2.878 / 1.814  4.668 / 3.044  11.565 / 10.301
#     γ = 1000             2.753 / 1.700  4.655 / 3.040  11.616 / 10.354
# Of the other half the defaults have 2.781 / 1.892, 4.476 / 3.067, 17.213 / 17.561, and no best of an axis is better by
# more than 5 % anywhere. So these numbers lie on a plateau, and what the network's colors need is not here. Two of the
# eight clean photos are moved by registration, by 0.6 cells.
DEFAULT_COUPLING = {"lab": 240.0, "yuv": 37.0}
"""γ when none is given. The luma of YUV spans 255 instead of 100, so γ is smaller by 2.55²."""
# No palette color and no sRGB color is farther from gray; wider than paper A's range, and never active.
_SAFETY_BOX = 160.0


class CoupledTVProblem:
    """A gray image with k weighted candidate colors at every pixel.

    Args:
        luminance: ``[H, W]``. Space "lab": L* in [0, 100]; space "yuv": Y in [0, 255].
        candidates: ``[H, W, k, 2]``, the colors c_i: (a*, b*) as they are, or (U, V) in units of Y.
        weights: ``[H, W, k]``, the initial w: nonnegative, sum 1 over the last axis.
        fidelity: λ > 0, a number. Larger keeps closer to the candidates, smaller is smoother. None: the default.
        coupling: γ ≥ 0, a number. Larger moves color edges onto luminance edges. None: the default.
        space: "lab" or "yuv": it decides the set R of allowed colors, see :meth:`project`.

    Raises:
        InputError: wrong shapes, values that are not finite, weights that are no distribution, λ ≤ 0, γ < 0.
        Values are checked where they are known, so not inside ``jit``, ``vmap`` and ``grad``.

    All arrays are brought to one floating dtype, float32 unless some input is float64. A pytree: arrays and
    numbers are leaves, so ``jit`` never recompiles for a new λ. Holds ``4 (1 + 3k)`` bytes a pixel in float32.

    >>> problem = CoupledTVProblem(jnp.full((2, 3), 50.0), jnp.zeros((2, 3, 4, 2)), jnp.full((2, 3, 4), 0.25))
    >>> problem.shape, problem.count, float(problem.energy(problem.mean(), problem.weights))
    ((2, 3), 4, 0.0)
    """

    luminance: Plane
    candidate_planes: tuple[Planes, Planes]
    weight_planes: Planes
    fidelity: Array
    coupling: Array
    extent: Extent
    fixed: tuple[Plane, Plane, Plane] | None
    space: str

    def __init__(
        self,
        luminance: ArrayLike,
        candidates: ArrayLike,
        weights: ArrayLike,
        fidelity: ArrayLike | None = None,
        coupling: ArrayLike | None = None,
        space: str = "lab",
    ) -> None:
        y, colors, shares = check_arrays(luminance, candidates, weights, space)
        planes, share_planes = _cut(colors, shares)
        _fill(self, y, planes, share_planes, fidelity, coupling, space)

    @classmethod
    def from_distribution(
        cls,
        luminance: ArrayLike,
        dist: "ColorDistribution",
        candidates: int = 10,
        fidelity: ArrayLike | None = None,
        coupling: ArrayLike | None = None,
        space: str = "lab",
        extent: tuple[int, int] | None = None,
        guidance: Guidance | None = None,
    ) -> "CoupledTVProblem":
        """The problem of a gray image and a distribution on a coarser grid.

        The probabilities are up-sampled bilinearly to the size of ``luminance`` and the ``candidates`` most
        probable colors of every pixel are kept, with renormalised probabilities as weights (Mouzon et al. 2019,
        section 3, keep 10). With ``guidance`` candidates and weights are those of
        :func:`jaxcolor.color.guidance.strongest_by_luminance`: luminance edges lead the up-sampling, and colors that
        are dropped leave their probability to the nearest that are kept (:meth:`ColorDistribution.concentrated`;
        both derived).

        ``luminance`` is L* in [0, 100] in either space. For "yuv" the problem's luminance becomes the luma Y in
        [0, 255] of that gray, and its candidates the (U, V) of the palette's colors at the pixel's L*, brought into
        what is displayable at Y (derived). With ``extent`` = (rows, columns) the image occupies the top left corner of
        ``luminance`` only and the rest is padding, as after :meth:`padded_to`; images padded to one shape share one
        compiled program. Raises :class:`InputError` for a count outside 1 ... palette size.
        """
        size = dist.palette.shape[0]
        if not 1 <= candidates <= size:
            raise InputError(f"candidates must be between 1 and {size}, the size of the palette; got {candidates}")
        check_space(space)
        lightness = check_luminance(luminance)
        if fidelity is None and guidance is not None:
            fidelity = GUIDED_FIDELITY
        sizes = None if extent is None else (jnp.int32(extent[0]), jnp.int32(extent[1]))
        y, colors, weights = _strongest_planes(lightness, dist, sizes, guidance, candidates, space)
        return _fill(object.__new__(cls), y, colors, weights, fidelity, coupling, space, sizes)

    @property
    def candidates(self) -> Array:
        """The candidate colors ``[H, W, k, 2]``, assembled on each access."""
        return jnp.stack([join(planes) for planes in self.candidate_planes], -1)

    @property
    def weights(self) -> Array:
        """The initial weights ``[H, W, k]``, assembled on each access."""
        return join(self.weight_planes)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, padding included."""
        height, width = self.luminance.shape[-2:]
        return height, width

    @property
    def count(self) -> int:
        """Number k of candidates."""
        return self.weight_planes.shape[-2]

    def mean(self) -> Array:
        """``Σ_i w_i c_i`` ``[H, W, 2]`` of the initial weights."""
        return jnp.stack(weighted_mean(self.weight_planes, self.candidate_planes), -1)

    def start(self) -> Pair:
        """:meth:`mean` in R: where every solver starts, two planes."""
        # Kept: the first energy looks at every pixel of it seven times.
        mean = computed_once(weighted_mean, self.weight_planes, self.candidate_planes)
        return self.project(mean)

    def energy(self, chroma: ArrayLike, weights: ArrayLike, smoothing: Number = 0.0) -> Array:
        """The functional above at u = ``chroma`` ``[H, W, 2]`` and w = ``weights`` ``[H, W, k]``, a scalar.

        For feasible u and w: the indicators χ are left out. ``smoothing`` is ε of the smoothed total variation.
        Padding does not count.
        """
        chroma, weights = jnp.asarray(chroma), jnp.asarray(weights)
        height, width, count = *self.shape, self.count
        if chroma.shape != (height, width, 2) or weights.shape != (height, width, count):
            raise InputError(
                f"energy needs chroma [{height}, {width}, 2] and weights [{height}, {width}, {count}], "
                f"got {list(chroma.shape)} and {list(weights.shape)}"
            )
        return self.energy_of_planes((chroma[..., 0], chroma[..., 1]), split(weights), smoothing)

    def energy_of_planes(self, chroma: Pair, weights: Planes, smoothing: Number = 0.0) -> Array:
        """:meth:`energy` of a solver's state, without assembling arrays."""
        tv = coupled_total_variation(self.luminance, chroma, self.coupling, smoothing, self.extent)
        image = inside(self.shape, self.extent)
        data = total(jnp.where(image, spread(chroma, weights, self.candidate_planes), 0))
        return tv + self.fidelity / 2 * data

    def pixels(self) -> Array:
        """Number of pixels of the image, without padding."""
        height, width = self.shape if self.extent is None else self.extent
        return jnp.asarray(height, self.luminance.dtype) * width

    def project(self, chroma: Pair) -> Pair:
        """The nearest colors in R.

        "yuv": what is displayable at the pixel's luma, a polygon; exact. "lab": a box that contains all palettes.
        The same convex R at every pixel that contains the candidates never acts: projecting u onto it increases
        neither the total variation (projections are 1-Lipschitz) nor the data term. The box only catches
        extrapolated points; colors outside sRGB are handled once, after the solver, without changing L*.
        """
        if self.space == "yuv":
            u, v = project_yuv(chroma[0], chroma[1], self.luminance)
        else:
            u, v = (jnp.clip(plane, -_SAFETY_BOX, _SAFETY_BOX) for plane in chroma)
        if self.fixed is None:
            return u, v
        held, fixed_u, fixed_v = self.fixed
        return jnp.where(held, fixed_u, u), jnp.where(held, fixed_v, v)

    @jax.jit
    def with_hints(self, colors: ArrayLike, held: ArrayLike, share: ArrayLike) -> "CoupledTVProblem":
        """The same problem with colors that are known at some pixels and likely around them.

        Args:
            colors: ``[H, W, 2]``, the hinted colors, in the problem's space; for "yuv" the nearest displayable ones.
            held: ``[H, W]`` bool. There R(x) is the one color of ``colors``: every iterate has it exactly.
            share: ``[H, W]`` in [0, 1], what the hinted color weighs as an additional candidate (1 where held).

        Raises :class:`InputError` for wrong shapes. Derived: R(x) stays convex, so every prox stays exact.

        >>> problem = CoupledTVProblem(jnp.zeros((1, 2)), jnp.zeros((1, 2, 1, 2)), jnp.ones((1, 2, 1)))
        >>> hinted = problem.with_hints(jnp.full((1, 2, 2), 9.0), jnp.array([[True, False]]), jnp.zeros((1, 2)))
        >>> hinted.count, [plane.tolist() for plane in hinted.project((jnp.ones((1, 2)), jnp.ones((1, 2))))]
        (2, [[[9.0, 1.0]], [[9.0, 1.0]]])
        """
        shape, dtype = self.shape, self.luminance.dtype
        colors, held, share = jnp.asarray(colors, dtype), jnp.asarray(held, bool), jnp.asarray(share, dtype)
        if colors.shape != (*shape, 2) or held.shape != shape or share.shape != shape:
            raise InputError(
                f"hints need colors {[*shape, 2]}, held {list(shape)} and share {list(shape)}, "
                f"got {list(colors.shape)}, {list(held.shape)} and {list(share.shape)}"
            )
        unhinted = make(CoupledTVProblem, **(vars(self) | {"fixed": None}))
        u, v = unhinted.project((colors[..., 0], colors[..., 1]))
        share = jnp.where(held, 1, share)[:, None]
        added = {
            "candidate_planes": tuple(
                jnp.concatenate([planes, plane[:, None]], 1)
                for planes, plane in zip(self.candidate_planes, (u, v), strict=True)
            ),
            "weight_planes": jnp.concatenate([(1 - share) * self.weight_planes, share], 1),
            "fixed": (held, u, v),
        }
        return make(CoupledTVProblem, **(vars(self) | added))

    def with_candidate(self, color: ArrayLike) -> "CoupledTVProblem":
        """A copy whose first candidate is ``color`` ``[H, W, 2]``."""
        color = jnp.asarray(color, self.luminance.dtype)
        planes = tuple(c.at[:, 0].set(color[..., i]) for i, c in enumerate(self.candidate_planes))
        return make(CoupledTVProblem, **(vars(self) | {"candidate_planes": planes}))

    def with_mean_alone(self, weights: Planes) -> "CoupledTVProblem":
        """A copy with one candidate, the mean under weights ``[H, k, W]``: the same problem for those who keep them."""
        mean = weighted_mean(weights, self.candidate_planes)
        planes = tuple(plane[..., None, :] for plane in mean)
        return make(
            CoupledTVProblem, **(vars(self) | {"candidate_planes": planes, "weight_planes": jnp.ones_like(planes[0])})
        )

    def hinted(self, chroma: Pair) -> Pair:
        """``chroma`` with the last candidate blended in by its weight: what hints alone would make of it."""
        share = self.weight_planes[:, -1]
        u, v = (plane + share * (c[:, -1] - plane) for plane, c in zip(chroma, self.candidate_planes, strict=True))
        return self.project((u, v))

    def replace(self, **changes: Any) -> "CoupledTVProblem":
        """A copy with another ``fidelity`` or ``coupling``.

        >>> problem = CoupledTVProblem(jnp.zeros((1, 1)), jnp.zeros((1, 1, 1, 2)), jnp.ones((1, 1, 1)))
        >>> round(float(problem.replace(fidelity=0.25).fidelity), 2)
        0.25
        """
        if unknown := set(changes) - {"fidelity", "coupling"}:
            raise InputError(f"replace takes fidelity and coupling, not {', '.join(sorted(unknown))}")
        dtype = self.luminance.dtype
        numbers = {name: check_number(name, value, dtype) for name, value in changes.items()}
        return make(CoupledTVProblem, **(vars(self) | numbers))

    def padded_to(self, shape: tuple[int, int]) -> "CoupledTVProblem":
        """The same problem in the top left corner of larger planes, with exactly the same solution there.

        Problems of different sizes that are padded to one shape share one compiled solver: the size of the image is
        a traced pair of integers. Crop the solution with ``solution.cropped(*size)``. A solver spends time on
        padding too. Raises :class:`InputError` if ``shape`` is smaller than the problem.
        """
        height, width = self.shape
        if shape[0] < height or shape[1] < width:
            raise InputError(f"cannot pad {height}×{width} pixels to the smaller {shape[0]}×{shape[1]}")
        rows, columns = (0, shape[0] - height), (0, shape[1] - width)

        def pad(planes: Array, value: float = 0.0) -> Array:
            return jnp.pad(planes, (rows, (0, 0), columns), constant_values=value)

        # All candidates gray and all weights equal: nothing ever moves in the padding.
        extent = (jnp.int32(height), jnp.int32(width)) if self.extent is None else self.extent
        return make(
            CoupledTVProblem,
            **vars(self)
            | {
                "luminance": jnp.pad(self.luminance, (rows, columns)),
                "candidate_planes": jax.tree.map(pad, self.candidate_planes),
                "weight_planes": pad(self.weight_planes, 1 / self.count),
                "fixed": jax.tree.map(lambda plane: jnp.pad(plane, (rows, columns)), self.fixed),
                "extent": extent,
            },
        )

    def window(self, corner: tuple[Array | int, Array | int], shape: tuple[int, int]) -> "CoupledTVProblem":
        """The problem of a part of the image alone: of ``shape``, from the row and column of ``corner`` on, which it
        must contain.

        >>> luminance = jnp.arange(6.0).reshape(2, 3)
        >>> problem = CoupledTVProblem(luminance, jnp.zeros((2, 3, 1, 2)), jnp.ones((2, 3, 1)))
        >>> problem.window((0, 1), (2, 2)).luminance.tolist()
        [[1.0, 2.0], [4.0, 5.0]]
        """
        extent = self.extent
        if extent is not None:
            ends = zip(extent, corner, shape, strict=True)
            extent = tuple(jnp.clip(jnp.asarray(end) - begin, 0, size) for end, begin, size in ends)  # type: ignore[assignment]
        planes = {name: getattr(self, name) for name in ("luminance", "candidate_planes", "weight_planes", "fixed")}
        parts = jax.tree.map(lambda p: cut(p, corner, shape), planes)
        return make(CoupledTVProblem, **(vars(self) | parts | {"extent": extent}))

    def __repr__(self) -> str:
        height, width = self.shape
        return f"CoupledTVProblem({height}×{width}, {self.count} candidates, {self.space})"


def _fill(
    problem: CoupledTVProblem,
    luminance: Array,
    candidates: tuple[Planes, Planes],
    weights: Planes,
    fidelity: ArrayLike | None,
    coupling: ArrayLike | None,
    space: str,
    extent: Extent = None,
) -> CoupledTVProblem:
    """Set the attributes from what was checked."""
    dtype = luminance.dtype
    problem.luminance, problem.space, problem.extent = luminance, space, extent
    problem.fixed = None
    problem.candidate_planes, problem.weight_planes = candidates, weights
    problem.fidelity = check_number("fidelity", DEFAULT_FIDELITY[space] if fidelity is None else fidelity, dtype)
    problem.coupling = check_number("coupling", DEFAULT_COUPLING[space] if coupling is None else coupling, dtype)
    return problem


@jax.jit
def _cut(candidates: Array, weights: Array) -> tuple[tuple[Planes, Planes], Planes]:
    """Planes of the arrays; compiled, so that no copy of the candidates is left between the two axes moved."""
    return (split(candidates[..., 0]), split(candidates[..., 1])), split(weights)


@partial(jax.jit, static_argnums=(4, 5))
def _strongest_planes(
    lightness: Array, dist: "ColorDistribution", extent: Extent, guidance: Guidance | None, count: int, space: str
) -> tuple[Array, tuple[Planes, Planes], Planes]:
    """Luminance, candidates and weights of :meth:`CoupledTVProblem.from_distribution`; only the planes are kept."""
    padded = (lightness.shape[0], lightness.shape[1])
    if guidance is None:
        colors, weights = dist.strongest(padded if extent is None else extent, count, padded=padded)  # type: ignore[arg-type]
    else:
        colors, weights = strongest_by_luminance(dist.concentrated(count), lightness, count, guidance, extent)
    colors, weights = colors.astype(lightness.dtype), weights.astype(lightness.dtype)
    if space == "lab":
        return lightness, *_cut(colors, weights)
    gray = jnp.stack([lightness, jnp.zeros_like(lightness), jnp.zeros_like(lightness)], -1)
    luma = 255 * jnp.clip(srgb_to_yuv(lab_to_srgb(gray))[..., 0], 0, 1)
    level = jnp.broadcast_to(lightness[..., None], colors.shape[:-1])
    shown, _ = scale_chroma(jnp.concatenate([level[..., None], colors], -1))
    yuv = 255 * srgb_to_yuv(jnp.clip(lab_to_srgb(shown), 0, 1))
    u, v = project_yuv(yuv[..., 1], yuv[..., 2], luma[..., None])
    return luma, (split(u), split(v)), split(weights)


register(
    CoupledTVProblem,
    ("luminance", "candidate_planes", "weight_planes", "fidelity", "coupling", "extent", "fixed"),
    static=("space",),
)
