"""How good colors are, on color photos that the network has not seen.

Each photo is reduced to its lightness, colorized, and compared with itself. Gray and the photos' mean color stand
beside the network: they are hard to beat in error, because a wrong color costs more than none; colorfulness is where
they lose.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcolor import metrics
from jaxcolor.cic.calibration import Reliability, calibrate, log_probabilities, predict_photo, reliability
from jaxcolor.cic.predict import CIC
from jaxcolor.cic.training.loss import bin_counts, cross_entropy, luminance_and_targets, prior_of_counts
from jaxcolor.color.distribution import ColorDistribution
from jaxcolor.color.gamut import scale_chroma
from jaxcolor.color.palette import ab_bins, nearest_bins
from jaxcolor.color.spaces import lab_to_srgb, srgb_to_lab
from jaxcolor.constants import INPUT_MULTIPLE
from jaxcolor.errors import InputError
from jaxcolor.images import GrayImage
from jaxcolor.metrics.difference import WINDOW
from jaxcolor.pipeline import read_out

Pictures = Mapping[str, NDArray[np.float32]]
# Measures of one picture against the truth, in the order of the table: title and number of decimals.
COLUMNS = {
    "auc": ("AuC %", 2),
    "auc_rebalanced": ("rebal. %", 2),
    "ab_rmse": ("ab RMSE", 2),
    "psnr": ("PSNR dB", 2),
    "ssim": ("SSIM", 3),
    "delta_e_2000": ("ΔE2000", 2),
    "colorfulness": ("colorful.", 1),
    "colorfulness_difference": ("its diff.", 1),
    "saturation": ("saturat.", 3),
}
TRUTH = "truth"
# Read-outs of the distribution as the network gives it; the others are those of the methods, from the rebalanced one.
LIKELY = ("mean", "calibrated mean")


@dataclass(frozen=True)
class Evaluation:
    """Means over the photos, and sums over their cells.

    rows: for every read-out, baseline and the truth, the measures of :data:`COLUMNS`: AuC raw and rebalanced in
        percent, root of the mean squared error of a* and b*, PSNR of RGB in decibels, SSIM, mean ΔE2000,
        colorfulness, its mean absolute difference from the truth's, HSV saturation. None where the truth is compared
        with itself.
    distribution: of the cells of the network's grid, in nats: ``cross_entropy`` of the soft-encoded truth and
        ``negative_log_likelihood`` of the true bin, both also for the prior alone (``…_prior``) and at the
        calibrated temperature (``…_calibrated``); the ``calibration_error`` before and after; the ``logit_scale`` of
        the weights and the ``calibrated_logit_scale``, and the first over the second, ``best_temperature``.
    more_saturated: of how many photos the coupled-TV result is more saturated than the annealed mean; None without it.
    prior_source: where the prior comes from, ``"weights"`` or ``"photos"`` (those evaluated).
    """

    photos: int
    rows: dict[str, dict[str, float | None]]
    distribution: dict[str, float]
    reliability: Reliability
    calibrated_reliability: Reliability
    more_saturated: int | None
    prior_source: str
    weights: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        curves = {"as_given": self.reliability, "calibrated": self.calibrated_reliability}
        return {
            "photos": self.photos,
            "weights": self.weights,
            "prior_source": self.prior_source,
            "rows": self.rows,
            "more_saturated": self.more_saturated,
            "distribution": self.distribution,
            "reliability": {
                name: {key: values.tolist() for key, values in vars(curve).items()} for name, curve in curves.items()
            },
        }

    def table(self) -> str:
        """The rows, and below them what the distribution is worth, as text."""
        width = max(map(len, self.rows)) + 2
        lines = [f"{self.photos} photos".ljust(width) + "".join(f"{title:>10}" for title, _ in COLUMNS.values())]
        for name, row in self.rows.items():
            cells = ("–" if row[key] is None else f"{row[key]:.{digits}f}" for key, (_, digits) in COLUMNS.items())
            lines.append(name.ljust(width) + "".join(f"{cell:>10}" for cell in cells))
        d = self.distribution
        whose = "the training photos" if self.prior_source == "weights" else "these photos, as the weights hold none"
        if self.more_saturated is not None:
            lines.append(f"coupled-tv is more saturated than the annealed mean on {self.more_saturated} photos")
        return "\n".join(
            [
                *lines,
                f"cross-entropy of the soft-encoded truth {d['cross_entropy']:.3f} nats, "
                f"prior only {d['cross_entropy_prior']:.3f}, calibrated {d['cross_entropy_calibrated']:.3f} "
                f"(prior of {whose})",
                f"negative log-likelihood of the true bin {d['negative_log_likelihood']:.3f} nats, "
                f"prior only {d['negative_log_likelihood_prior']:.3f}, "
                f"calibrated {d['negative_log_likelihood_calibrated']:.3f}",
                f"calibration error {d['calibration_error']:.3f}, calibrated {d['calibration_error_calibrated']:.3f}",
                f"logit scale {d['logit_scale']:.4g}, calibrated {d['calibrated_logit_scale']:.4g} "
                f"(temperature {d['best_temperature']:.3g} on the weights as they are)",
            ]
        )


def evaluate(
    net: CIC, photos: Sequence[np.ndarray], coupled_tv: bool = False, watch: Callable[[Pictures], object] | None = None
) -> Evaluation:
    """Measure a network on color photos that it has not seen.

    Args:
        net: the network with weights.
        photos: uint8 ``[S, S, 3]`` sRGB, all of one size, S a multiple of 8 and at least 16. The network
            and all measures see them at this size; the literature squeezes photos to S = 256.
        coupled_tv: also the coupled-TV method, which takes seconds a photo.
        watch: called after each photo with its pictures, float32 ``[S, S, 3]`` in [0, 1], by name of the row.

    Raises:
        InputError: no photo, or photos of other shapes.

    The dataset-mean baseline is the mean color of these photos, the best constant there is. The calibrated
    temperature is one number fitted to these photos. Cost: two forward passes and three or four read-outs a photo.

    >>> photo = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    >>> result = evaluate(CIC.init(jax.random.key(0), width=1 / 16), [photo])
    >>> result.rows["gray"]["saturation"] < 0.01 < result.rows["truth"]["saturation"]
    True
    """
    _check(photos)
    mean_color, counted = _statistics(photos)
    stored = net.prior()
    prior = counted if stored is None else stored
    scale = calibrate(net, photos)
    temperature = float(net.logit_scale) / scale
    read_outs: dict[str, dict[str, Any]] = {
        "mean": {"method": "cic", "temperature": 1.0},
        "calibrated mean": {"method": "cic", "temperature": temperature},
        "annealed mean": {"method": "cic"},
    }
    if coupled_tv:
        read_outs["coupled-tv"] = {"method": "coupled-tv"}
    measured, cells = [], []
    for photo in photos:
        luminance, distribution, true_cells = predict_photo(net, photo)
        gray = GrayImage(np.asarray(luminance))
        constants = {"gray": jnp.zeros(2), "dataset mean": mean_color}
        pictures = {name: np.asarray(_constant(luminance, color)) for name, color in constants.items()}
        rebalanced = net.rebalanced(distribution)
        pictures |= {
            name: read_out(gray, distribution if name in LIKELY else rebalanced, **settings)
            for name, settings in read_outs.items()
        }
        pictures[TRUTH] = photo.astype(np.float32) / np.float32(255)
        measured.append({name: _measured(rgb, pictures[TRUTH], prior) for name, rgb in pictures.items()})
        cells.append(_cell_measures(distribution, true_cells, prior, temperature))
        if watch is not None:
            watch(pictures)
    rows = {name: _summary([row[name] for row in measured], name) for name in measured[0]}
    more_saturated = None
    if coupled_tv:
        more_saturated = sum(bool(p["coupled-tv"]["saturation"] > p["annealed mean"]["saturation"]) for p in measured)
    means, curves = _cell_summary(cells)
    scales = {"logit_scale": float(net.logit_scale), "calibrated_logit_scale": scale, "best_temperature": temperature}
    weights = {name: net.manifest.get(name) for name in ("name", "width", "checksum")}
    source = "photos" if stored is None else "weights"
    return Evaluation(len(photos), rows, means | scales, *curves, more_saturated, prior_source=source, weights=weights)


def _check(photos: Sequence[np.ndarray]) -> None:
    shapes = {photo.shape for photo in photos}
    side = next(iter(shapes), (0,))[0]
    if shapes != {(side, side, 3)} or side % INPUT_MULTIPLE or side < WINDOW:
        raise InputError(
            f"evaluation needs photos [S, S, 3] of one size S, a multiple of {INPUT_MULTIPLE} and at least "
            f"{2 * INPUT_MULTIPLE}; got {', '.join(map(str, sorted(shapes))) or 'none'}"
        )


def _statistics(photos: Iterable[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """Mean color ``[2]`` of the photos, and their smoothed distribution of bins ``[313]``."""
    each = [_photo_statistics(photo) for photo in photos]
    colors, counts = (jnp.stack(values).sum(0) for values in zip(*each, strict=True))
    return colors / len(each), prior_of_counts(counts)


@jax.jit
def _photo_statistics(photo: jax.Array) -> tuple[jax.Array, jax.Array]:
    cells = luminance_and_targets(photo[None])[1]
    return cells.mean((0, 1, 2)), bin_counts(cells)


@jax.jit
def _constant(luminance: jax.Array, color: jax.Array) -> jax.Array:
    chroma = jnp.broadcast_to(color, (*luminance.shape, 2))
    lab, _ = scale_chroma(jnp.concatenate([luminance[..., None], chroma], -1))
    return jnp.clip(lab_to_srgb(lab), 0, 1)


@jax.jit
def _measured(rgb: jax.Array, truth: jax.Array, prior: jax.Array) -> dict[str, jax.Array]:
    lab, true_lab = srgb_to_lab(rgb), srgb_to_lab(truth)
    chroma, true_chroma = lab[..., 1:], true_lab[..., 1:]
    true_bins = nearest_bins(true_chroma, jnp.asarray(ab_bins()), neighbors=1)[0][..., 0]
    rarity = 1 / prior[true_bins]
    colorfulness = metrics.colorfulness(rgb)
    return {
        "auc": 100 * metrics.area_under_curve(chroma, true_chroma),
        "auc_rebalanced": 100 * metrics.area_under_curve(chroma, true_chroma, rarity),
        "rarity": rarity.mean(),
        "ab_mse": ((chroma - true_chroma) ** 2).mean(),
        "psnr": metrics.psnr(rgb, truth),
        "ssim": metrics.ssim(rgb, truth),
        "delta_e_2000": metrics.delta_e_2000(lab, true_lab).mean(),
        "colorfulness": colorfulness,
        "colorfulness_difference": jnp.abs(colorfulness - metrics.colorfulness(truth)),
        "saturation": metrics.saturation(rgb),
    }


def _summary(photos: Sequence[Mapping[str, jax.Array]], name: str) -> dict[str, float | None]:
    """Means over photos; AuC and error as if all pixels were one picture."""
    values = {key: np.array([photo[key] for photo in photos], np.float64) for key in photos[0]}
    row: dict[str, float | None] = {key: float(value.mean()) for key, value in values.items()}
    row["auc_rebalanced"] = float(np.average(values["auc_rebalanced"], weights=values["rarity"]))
    row["ab_rmse"] = float(np.sqrt(values["ab_mse"].mean()))
    compared = ("colorfulness", "saturation") if name == TRUTH else COLUMNS
    return {key: row[key] if key in compared else None for key in COLUMNS}


@jax.jit
def _cell_measures(
    distribution: ColorDistribution, cells: jax.Array, prior: jax.Array, temperature: float
) -> tuple[dict[str, jax.Array], tuple[jax.Array, jax.Array]]:
    log_p = jax.nn.log_softmax(log_probabilities(distribution))
    calibrated = jax.nn.log_softmax(log_p / temperature)
    entropy, true_bins = cross_entropy(log_p, cells)

    def likelihood(log_p: jax.Array) -> jax.Array:
        return -jnp.take_along_axis(log_p, true_bins[..., None], -1).mean()

    baseline = jnp.broadcast_to(jnp.log(prior), log_p.shape)
    means = {
        "cross_entropy": entropy.mean(),
        "cross_entropy_prior": cross_entropy(baseline, cells)[0].mean(),
        "cross_entropy_calibrated": cross_entropy(calibrated, cells)[0].mean(),
        "negative_log_likelihood": likelihood(log_p),
        "negative_log_likelihood_prior": likelihood(baseline),
        "negative_log_likelihood_calibrated": likelihood(calibrated),
    }
    return means, (reliability(jnp.exp(log_p), true_bins), reliability(jnp.exp(calibrated), true_bins))


def _cell_summary(
    photos: Sequence[tuple[dict[str, jax.Array], tuple[jax.Array, jax.Array]]],
) -> tuple[dict[str, float], tuple[Reliability, Reliability]]:
    means = {key: float(np.mean([photo[0][key] for photo in photos])) for key in photos[0][0]}
    as_given, calibrated = (
        Reliability(*np.sum([np.asarray(photo[1][i], np.float64) for photo in photos], 0)) for i in (0, 1)
    )
    errors = {"calibration_error": as_given.error(), "calibration_error_calibrated": calibrated.error()}
    return means | errors, (as_given, calibrated)
