"""CIC: the network with its weights, from luminance to a distribution of colors."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcolor.cic.network import AB_UNIT, CICNetwork, random_variables
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.palette import rebalancing_weights
from jaxcolor.constants import INPUT_MULTIPLE, REBALANCING, RESOLUTION
from jaxcolor.errors import InputError
from jaxcolor.resampling import resample, resampling_matrix

# Key of the manifest, see CIC.with_calibration.
CALIBRATION = "calibration"


class Manifest(dict[str, Any]):
    """Where weights come from, as JSON values; hashable, so that it can travel in a compiled function's arguments."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True, default=str))

    def run(self) -> Mapping[str, Any]:
        """Settings of the run of :mod:`jaxcolor.cic.training` that made the weights; empty for weights of others.

        >>> Manifest(training="by its authors").run()
        {}
        """
        training = self.get("training")
        return training if isinstance(training, Mapping) else {}


@partial(jax.tree_util.register_dataclass, data_fields=["variables", "logit_scale"], meta_fields=["width", "manifest"])
@dataclass(frozen=True)
class CIC:
    """A :class:`~jaxcolor.cic.network.CICNetwork` with weights.

    ``variables`` is the Flax tree ``{"params": …, "batch_stats": …}``; ``logit_scale`` multiplies the logits before
    the softmax: it is 1/T of the distribution. A pytree, so gradients with respect to the weights are
    ``jax.grad(lambda net: …)(net)``.

    >>> net = CIC.init(jax.random.key(0), width=1 / 16)
    >>> net.predict(jnp.full((30, 50), 60.0), resolution=64).probabilities.shape
    (16, 16, 313)
    """

    variables: Mapping[str, Any]
    logit_scale: float | jax.Array = 1.0
    width: float = 1.0
    manifest: Manifest = field(default_factory=Manifest)

    @classmethod
    def init(cls, key: jax.Array, width: float = 1.0) -> "CIC":
        """Random weights, for training or tests."""
        return cls(random_variables(key, width), width=width)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str] | None = None, *, logit_scale: float | None = None) -> "CIC":
        """The embedded compact weights, ``"zhang2016"`` for the released ones once fetched, or a file.

        ``logit_scale`` replaces the one in the file's manifest. Raises :class:`InputError` when there is no such file
        or it does not hold weights of this network; says how to fetch or convert them.
        """
        # Here, not on top: weights.py needs the safetensors library, prediction with weights at hand does not.
        from jaxcolor.cic.weights import load_weights, resolve

        variables, manifest = load_weights(resolve(name_or_path))
        scale = manifest["logit_scale"] if logit_scale is None else logit_scale
        if not scale > 0:
            raise InputError(f"logit_scale must be positive, got {scale}")
        variables = jax.tree.map(jnp.asarray, variables)
        return cls(variables, scale, manifest["width"], Manifest(manifest))

    @classmethod
    def averaged(cls, nets: Sequence["CIC"]) -> "CIC":
        """The mean of weights, with the manifest of the last, which then names the parts by step and checksum.

        Weights that one run of training passes through, or ends with, often generalise better as a mean than any of
        them (Wortsman et al. 2022, "Model soups"). Raises :class:`InputError` for fewer than two, and for unequal
        widths or logit scales.

        >>> nets = [CIC.init(jax.random.key(seed), width=1 / 16) for seed in (0, 1)]
        >>> CIC.averaged(nets).width
        0.0625
        """
        if len(nets) < 2:
            raise InputError(f"an average needs at least two networks; got {len(nets)}")
        kinds = {(net.width, float(net.logit_scale)) for net in nets}
        if len(kinds) > 1:
            raise InputError(f"networks of several widths or logit scales have no average: {sorted(kinds)}")
        parts = [{"step": net.manifest.run().get("step"), "checksum": net.manifest.get("checksum")} for net in nets]
        variables = jax.tree.map(lambda *arrays: sum(arrays) / len(arrays), *(net.variables for net in nets))
        manifest = Manifest({**nets[-1].manifest, "averaged": parts})
        # What calibrates a part need not calibrate the mean.
        manifest.pop(CALIBRATION, None)
        return replace(nets[-1], variables=variables, manifest=manifest)

    def save(self, path: str | os.PathLike[str], dtype: Any = jnp.float32) -> None:
        """Write weights and manifest to a ``.safetensors`` file; ``dtype`` of the parameters is float32 or float16.

        The batch statistics stay in float32: the variances of trained networks exceed what float16 can hold.
        """
        from jaxcolor.cic.weights import save_weights

        manifest = dict(self.manifest) | {"width": self.width, "logit_scale": float(self.logit_scale)}
        params = jax.tree.map(lambda x: jnp.asarray(x, dtype), self.variables["params"])
        save_weights(path, dict(self.variables) | {"params": params}, manifest)

    def with_calibration(self, logit_scale: float, photos: int) -> "CIC":
        """The same predictions, with a manifest that tells the logit scale which calibrates them on so many photos.

        The scale is that of :func:`jaxcolor.cic.calibration.calibrate`; :meth:`calibrated` applies it.
        """
        note = {"logit_scale": float(logit_scale), "photos": photos}
        return replace(self, manifest=Manifest({**self.manifest, CALIBRATION: note}))

    def calibrated(self) -> "CIC":
        """The network at the logit scale that calibrates its distribution, as its manifest tells.

        Raises :class:`InputError` if it does not.

        >>> CIC.init(jax.random.key(0), width=1 / 16).with_calibration(1.3, photos=100).calibrated().logit_scale
        1.3
        """
        told = self.manifest.get(CALIBRATION)
        scale = told.get("logit_scale") if isinstance(told, Mapping) else None
        if not (isinstance(scale, int | float) and 0 < scale < math.inf):
            raise InputError(
                f"the manifest of these weights must tell a positive logit scale that calibrates them, got {told!r}; "
                "measure it with: jaxcolor evaluate FOLDER --calibrate OUT.safetensors"
            )
        return replace(self, logit_scale=float(scale))

    def prior(self) -> jax.Array | None:
        """Frequency of each color in the photos that trained the network, ``[313]``, if the manifest tells."""
        prior = self.manifest.get("prior")
        return None if prior is None else jnp.asarray(prior, jnp.float32)

    def class_weights(self) -> jax.Array | None:
        """Those of Zhang et al. 2016, equation 4, ``[313]``, with mean 1 under the prior; None without a prior."""
        prior, share = self.prior(), self.manifest.run().get("uniform_share")
        return None if prior is None or share is None else rebalancing_weights(prior, share)

    def rebalanced(self, distribution: ColorDistribution, power: float | None = None) -> ColorDistribution:
        """A distribution of :meth:`predict` multiplied by a power of the class weights: the larger, the more vivid.

        Weights that :mod:`jaxcolor.cic.training` made estimate how likely colors are; ``power`` 0 leaves that as it
        is, and 1 gives the distribution that Zhang et al. 2016 train for, in which rare colors count more. None is the
        measured default, and 0 where the manifest does not tell the class weights: released weights do not, because
        they have them built in. Raises :class:`InputError` for another power then.

        >>> net = CIC.init(jax.random.key(0), width=1 / 16)
        >>> distribution = net.predict(jnp.full((30, 50), 60.0), resolution=64)
        >>> net.rebalanced(distribution) is distribution
        True
        """
        weights = self.class_weights()
        if power == 0 or (power is None and weights is None):
            return distribution
        if weights is None:
            raise InputError(
                f"these weights do not tell the class weights of their training, so rebalancing must be 0 or left out; "
                f"got {power}"
            )
        return distribution.reweighted(weights ** (REBALANCING if power is None else power))

    def predict(self, luminance: ArrayLike, resolution: int = RESOLUTION) -> ColorDistribution:
        """The distribution of colors on a grid of ``resolution / 4`` by ``resolution / 4`` cells.

        ``luminance`` ``[H, W]`` is L* in [0, 100], of any size and aspect: as in the papers the whole photo is squeezed
        to a square of ``resolution`` pixels (a multiple of 8), with a bicubic filter. Differentiable with respect to
        the luminance and the weights. Cost: 83.6 GFLOP at full width and resolution 256.

        Raises :class:`InputError` for another shape or resolution.
        """
        shape = jnp.shape(luminance)
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"predict takes one luminance image [H, W], got shape {shape}; use jax.vmap for more")
        if resolution < INPUT_MULTIPLE or resolution % INPUT_MULTIPLE:
            raise InputError(f"the network resolution must be a multiple of {INPUT_MULTIPLE}, got {resolution}")
        return self.predict_resampled(luminance, *(resampling_matrix(size, resolution) for size in shape))

    def predict_resampled(self, luminance: ArrayLike, rows: ArrayLike, columns: ArrayLike) -> ColorDistribution:
        """:meth:`predict` with the resampling matrices given: one compiled program for photos padded to one shape.

        ``luminance`` ``[H, W]``; ``rows`` ``[resolution, H]`` and ``columns`` ``[resolution, W]`` as made by
        :func:`~jaxcolor.resampling.resampling_matrix`.
        """
        # In two compiled functions, so that a photo of another size compiles the resampling only.
        return _predict(replace(self, manifest=Manifest()), resample(luminance, rows, columns))


@jax.jit
def _predict(net: CIC, luminance: jax.Array) -> ColorDistribution:
    # Full precision on accelerators too: TF32 would move probabilities by more than 1e-4.
    with jax.default_matmul_precision("highest"):
        logits = CICNetwork(net.width).apply(net.variables, luminance[None, :, :, None])[0]
    palette = net.variables["params"]["model_out"] * AB_UNIT
    return ColorDistribution(jax.nn.softmax(net.logit_scale * logits, axis=-1), palette)
