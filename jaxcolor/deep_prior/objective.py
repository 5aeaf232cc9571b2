"""The loss of the deep image prior regularised by coupled total variation; nothing in this file iterates.

    E(θ, w) = mean_{x in G} Σ_i w_i ‖C(D f_θ(z))(x) - c_i‖²  +  α mean_x (L(f_θ(z)) - Y)²  +  β TV_γ(f_θ(z))
    TV_γ(f) = Σ_x sqrt( ε² + γ|∇L|² + |∇a|² + |∇b|² )

(Agazzotti, Pierre, Sur 2023, where TV_γ has no ε.) f_θ(z) is the network's picture with planes L, C = (a, b); D brings
it to the grid G of the color distribution; w picks one of the palette's colors c_i per cell. With w fixed, the first
term has the gradient of ‖C(D f) - Σ_i w_i c_i‖², so what is kept of w is that *target* color.

Units: the planes of f are L*/100 and (a* / 110 + 1) / 2, all in [0, 1], and so are targets and luminance here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcolor.coupled_tv.checks import check_luminance, check_step
from jaxcolor.coupled_tv.operators import Extent, coupled_total_variation, inside, total
from jaxcolor.errors import InputError
from jaxcolor.resampling import resample, resampling_matrix
from jaxcolor.trees import Number, register

AB_SCALE = 110.0
"""Largest |a*| or |b*| that a picture can hold: the extent of the 313 colors."""
REFERENCE_SIDE = 256
"""Side of the pictures for which the published β is meant."""


def to_unit(chroma: ArrayLike) -> jax.Array:
    """(a*, b*) in Lab units to [0, 1]; gray is 0.5.

    >>> [round(float(value), 3) for value in to_unit(jnp.array([-110.0, 0.0, 110.0]))]
    [0.0, 0.5, 1.0]
    """
    return (jnp.asarray(chroma) + AB_SCALE) / (2 * AB_SCALE)


def from_unit(planes: ArrayLike) -> jax.Array:
    """[0, 1] to (a*, b*) in Lab units: undoes :func:`to_unit`."""
    return (2 * jnp.asarray(planes) - 1) * AB_SCALE


@dataclass(frozen=True)
class Objective:
    """The numbers of the loss, and two choices on which its published forms differ.

    Args:
        fidelity: α ≥ 0, of the luminance term.
        variation: β ≥ 0, of the coupled total variation of 256 x 256 pixels. For other sizes it is multiplied by
            256 / sqrt(H W), because a sum of differences over one picture grows with its side while means do
            not (derived).
        coupling: γ ≥ 0, in the network's units (L*/100 against ab/220 + 1/2).
        smoothing: ε > 0, without which the square root has no derivative in flat places.
        photo_in_variation: the luminance inside TV_γ is the photo's, so constant, instead of the network's.
        coarse_luminance: the first term also compares L(D f) with the photo brought to the grid.

    The norms are means, over cells and over three channels, also where only the two of chroma are compared: so the
    published numbers keep their balance (derived from the first author's program; the paper writes plain sums).
    Raises :class:`InputError` for numbers outside their range.
    """

    fidelity: Number = 1.0
    variation: Number = 5e-7
    coupling: Number = 80.0
    smoothing: Number = 10**-2.5
    photo_in_variation: bool = False
    coarse_luminance: bool = False

    def __post_init__(self) -> None:
        for name in ("fidelity", "variation", "coupling"):
            check_step(name, getattr(self, name))
        check_step("smoothing", self.smoothing, above=0)


register(
    Objective,
    ("fidelity", "variation", "coupling", "smoothing"),
    static=("photo_in_variation", "coarse_luminance"),
)


class Losses(NamedTuple):
    """The three weighted parts of the loss, each a scalar; the loss is their sum."""

    color: jax.Array
    luminance: jax.Array
    variation: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Data:
    """What one photo gives to the loss; a pytree.

    ``luminance`` ``[H, W]`` in [0, 1]; ``rows`` ``[h, H]`` and ``columns`` ``[w, W]``, the operator D;
    ``palette`` ``[Q, 2]`` in [0, 1]; ``extent``: None, or how many rows and columns the photo occupies in the top left
    corner of the planes. The padding outside counts nowhere.
    """

    luminance: jax.Array
    rows: jax.Array
    columns: jax.Array
    palette: jax.Array
    extent: Extent = None

    @classmethod
    def of(
        cls, luminance: ArrayLike, palette: ArrayLike, grid: tuple[int, int], extent: tuple[int, int] | None = None
    ) -> "Data":
        """From L* ``[H, W]`` in [0, 100], the ``palette`` ``[Q, 2]`` in Lab units, and the size of the grid.

        Raises :class:`InputError` for a luminance of another shape or range.

        >>> data = Data.of(jnp.full((8, 8), 50.0), jnp.zeros((3, 2)), (2, 2))
        >>> data.coarse(jnp.ones((8, 8, 3))).shape
        (2, 2, 3)
        """
        plane = check_luminance(luminance)
        size = plane.shape if extent is None else extent
        if not all(1 <= n <= m for n, m in zip(size, plane.shape, strict=True)):
            raise InputError(f"the extent must lie inside the luminance, {list(plane.shape)}; got {list(size)}")
        rows, columns = (
            jnp.asarray(downsampling_matrix(n, cells, padded), plane.dtype)
            for n, cells, padded in zip(size, grid, plane.shape, strict=True)
        )
        sizes = None if extent is None else (jnp.int32(size[0]), jnp.int32(size[1]))
        return cls(plane / 100, rows, columns, to_unit(palette).astype(plane.dtype), sizes)

    def coarse(self, picture: jax.Array) -> jax.Array:
        """D: ``[H, W]`` or ``[H, W, C]`` brought to the grid of the distribution."""
        return resample(picture, self.rows, self.columns)

    def losses(self, picture: jax.Array, target: jax.Array, objective: Objective) -> Losses:
        """The parts of the loss of a ``picture`` ``[H, W, 3]`` against target colors ``[h, w, 2]``."""
        # Planes of an array with its axis moved, not slices of [H, W, 3]: of these XLA:CPU (jax 0.10) compiles the
        # derivative of the total variation wrongly when it is fused with the network's last layer. The moved axis is
        # what mends the case that is tested; the barrier is there for cases that are not.
        light, a, b = jax.lax.optimization_barrier(jnp.moveaxis(picture, -1, 0))
        cells = target.shape[0] * target.shape[1]
        image, side = inside(light.shape, self.extent), jnp.sqrt(self.pixels())
        small = self.coarse(picture)
        color = jnp.sum((small[..., 1:] - target) ** 2)
        if objective.coarse_luminance:
            color += jnp.sum((small[..., 0] - self.coarse(self.luminance)) ** 2)
        error = total(jnp.where(image, (light - self.luminance) ** 2, 0)) / self.pixels()
        guide = self.luminance if objective.photo_in_variation else light
        variation = coupled_total_variation(guide, (a, b), objective.coupling, objective.smoothing, self.extent)
        scale = objective.variation * REFERENCE_SIDE / side
        return Losses(color / (3 * cells), objective.fidelity * error, scale * variation)

    def nearest(self, picture: jax.Array) -> jax.Array:
        """The minimum over w: the palette color nearest to C(D f) in every cell, ``[h, w, 2]``."""
        small = self.coarse(picture)[..., 1:]
        # |c|² - 2 <u, c> orders the colors as |u - c|² does, without an array [h, w, Q, 2].
        product = jnp.einsum("hwk,qk->hwq", small - 0.5, self.palette - 0.5, precision="highest")
        return self.palette[jnp.argmin(((self.palette - 0.5) ** 2).sum(-1) - 2 * product, axis=-1)]

    def pixels(self) -> jax.Array:
        """Number of pixels of the photo, without padding."""
        height, width = self.luminance.shape if self.extent is None else self.extent
        return jnp.asarray(height, self.luminance.dtype) * width


def downsampling_matrix(size: int, cells: int, padded: int | None = None) -> np.ndarray:
    """One axis of D, ``[cells, padded or size]``: Lanczos kernel of two lobes as wide as the cell, the border repeated.

    For whole ratios size / cells it is the down-sampling of Ulyanov et al. 2018 (``lanczos2``, phase one half); any
    other ratio follows by the same formula, and with more cells than pixels it interpolates.

    >>> [round(float(weight), 3) for weight in downsampling_matrix(8, 2)[1]]
    [-0.031, -0.015, 0.025, 0.099, 0.183, 0.24, 0.24, 0.26]
    """
    return resampling_matrix(size, cells, "lanczos", padded, border="repeat")
