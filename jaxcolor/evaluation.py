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
from jaxcolor.cic.predict import CALIBRATION, CIC
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
# The logit scales at which the distribution is measured: of the weights, of their manifest, and what suits the photos.
AS_GIVEN, CALIBRATED, FITTED = "as given", "calibrated", "fitted"
# Read-outs of the distribution as the network gives it; the others are those of the methods, from the rebalanced one.
MEANS = {AS_GIVEN: "mean", CALIBRATED: "calibrated mean", FITTED: "fitted mean"}


@dataclass(frozen=True)
class Evaluation:
    """Means over the photos, and sums over their cells.

    rows: for every read-out, baseline and the truth, the measures of :data:`COLUMNS`: AuC raw and rebalanced in
        percent, root of the mean squared error of a* and b*, PSNR of RGB in decibels, SSIM, mean ΔE2000,
        colorfulness, its mean absolute difference from the truth's, HSV saturation. None where the truth is compared
        with itself. "calibrated mean" is there if the manifest of the weights tells what calibrates them on other
        photos, those held out of their training; "fitted mean" has the temperature that fits these photos best.
    distribution: of the cells of the network's grid, in nats: ``cross_entropy`` of the soft-encoded truth and
        ``negative_log_likelihood`` of the true bin, both also for the prior alone (``…_prior``), at the logit scale
        of the manifest (``…_calibrated``, if it tells one) and at the one that fits these photos best (``…_fitted``);
        ``cross_entropy_prior_of_photos``, the least of any distribution that is the same everywhere: that of these
        photos' own bins; ``share_below_prior`` of the cross-entropy, and its ``share_below_prior_error``, the
        standard error over the photos (if there are several); the ``calibration_error`` and the ``logit_scale``
        itself, with the same endings, and the first over the last, ``temperature_fitted``.
    reliability: curves by logit scale: "as given", "calibrated" (if the manifest tells it), "fitted".
    more_saturated: of how many photos the coupled-TV result is more saturated than the annealed mean; None without it.
    prior_source: where the prior comes from, ``"weights"`` or ``"photos"`` (those evaluated).
    """

    photos: int
    rows: dict[str, dict[str, float | None]]
    distribution: dict[str, float]
    reliability: dict[str, Reliability]
    more_saturated: int | None
    prior_source: str
    weights: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "photos": self.photos,
            "weights": self.weights,
            "prior_source": self.prior_source,
            "rows": self.rows,
            "more_saturated": self.more_saturated,
            "distribution": self.distribution,
            "reliability": {
                name.replace(" ", "_"): {key: values.tolist() for key, values in vars(curve).items()}
                for name, curve in self.reliability.items()
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

        def scaled(key: str, digits: str = ".3f") -> str:
            """The value at each logit scale but the given one."""
            told = {CALIBRATED: d.get(f"{key}_calibrated"), "fitted to these photos": d.get(f"{key}_fitted")}
            return "".join(f", {name} {value:{digits}}" for name, value in told.items() if value is not None)

        error = d.get("share_below_prior_error")
        spread = "" if error is None else f" (standard error over the photos {100 * error:.1f})"
        return "\n".join(
            [
                *lines,
                f"cross-entropy of the soft-encoded truth {d['cross_entropy']:.3f} nats, "
                f"prior only {d['cross_entropy_prior']:.3f}{scaled('cross_entropy')} (prior of {whose})",
                f"that is {100 * d['share_below_prior']:.1f} % below the prior{spread}; the best distribution "
                f"that is the same in all cells {d['cross_entropy_prior_of_photos']:.3f}",
                f"negative log-likelihood of the true bin {d['negative_log_likelihood']:.3f} nats, "
                f"prior only {d['negative_log_likelihood_prior']:.3f}{scaled('negative_log_likelihood')}",
                f"calibration error {d['calibration_error']:.3f}{scaled('calibration_error')}",
                f"logit scale {d['logit_scale']:.4g}{scaled('logit_scale', '.4g')} "
                f"(temperature {d['temperature_fitted']:.3g} on the weights as they are)",
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

    The dataset-mean baseline is the mean color of these photos, the best constant there is. Cost: two forward passes
    and four or five read-outs a photo.

    >>> photo = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    >>> result = evaluate(CIC.init(jax.random.key(0), width=1 / 16), [photo])
    >>> result.rows["gray"]["saturation"] < 0.01 < result.rows["truth"]["saturation"]
    True
    """
    _check(photos)
    mean_color, counts = _statistics(photos)
    stored = net.prior()
    prior = prior_of_counts(counts) if stored is None else stored
    scales = _logit_scales(net, photos)
    temperatures = {name: scales[AS_GIVEN] / scale for name, scale in scales.items()}
    read_outs = _read_outs(temperatures, coupled_tv)
    measured, cells = [], []
    for photo in photos:
        luminance, distribution, true_cells = predict_photo(net, photo)
        gray = GrayImage(np.asarray(luminance))
        constants = {"gray": jnp.zeros(2), "dataset mean": mean_color}
        pictures = {name: np.asarray(_constant(luminance, color)) for name, color in constants.items()}
        rebalanced = net.rebalanced(distribution)
        pictures |= {
            name: read_out(gray, distribution if name in MEANS.values() else rebalanced, **settings)
            for name, settings in read_outs.items()
        }
        pictures[TRUTH] = photo.astype(np.float32) / np.float32(255)
        measured.append({name: _measured(rgb, pictures[TRUTH], prior) for name, rgb in pictures.items()})
        cells.append(_cell_measures(distribution, true_cells, prior, temperatures))
        if watch is not None:
            watch(pictures)
    rows = {name: _summary([row[name] for row in measured], name) for name in measured[0]}
    more_saturated = None
    if coupled_tv:
        more_saturated = sum(bool(p["coupled-tv"]["saturation"] > p["annealed mean"]["saturation"]) for p in measured)
    means, curves = _cell_summary(cells)
    means["cross_entropy_prior_of_photos"] = _entropy(np.asarray(counts, np.float64))
    means |= {_ending("logit_scale", name): scale for name, scale in scales.items()}
    means["temperature_fitted"] = temperatures[FITTED]
    weights = {name: net.manifest.get(name) for name in ("name", "width", "checksum")}
    source = "photos" if stored is None else "weights"
    return Evaluation(len(photos), rows, means, curves, more_saturated, prior_source=source, weights=weights)


def _logit_scales(net: CIC, photos: Sequence[np.ndarray]) -> dict[str, float]:
    """That of the weights, that which the manifest tells, if it does, and that which fits these photos."""
    scales = {AS_GIVEN: float(net.logit_scale)}
    if net.manifest.get(CALIBRATION) is not None:
        scales[CALIBRATED] = float(net.calibrated().logit_scale)
    return scales | {FITTED: calibrate(net, photos)}


def _read_outs(temperatures: Mapping[str, float], coupled_tv: bool) -> dict[str, dict[str, Any]]:
    """Settings of each, in the order of the table."""
    read_outs: dict[str, dict[str, Any]] = {
        MEANS[name]: {"method": "cic", "temperature": temperature} for name, temperature in temperatures.items()
    }
    read_outs["annealed mean"] = {"method": "cic"}
    return read_outs | ({"coupled-tv": {"method": "coupled-tv"}} if coupled_tv else {})


def _check(photos: Sequence[np.ndarray]) -> None:
    shapes = {photo.shape for photo in photos}
    side = next(iter(shapes), (0,))[0]
    if shapes != {(side, side, 3)} or side % INPUT_MULTIPLE or side < WINDOW:
        raise InputError(
            f"evaluation needs photos [S, S, 3] of one size S, a multiple of {INPUT_MULTIPLE} and at least "
            f"{2 * INPUT_MULTIPLE}; got {', '.join(map(str, sorted(shapes))) or 'none'}"
        )


def _statistics(photos: Iterable[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """Mean color ``[2]`` of the photos, and how many of their cells are in each bin ``[313]``."""
    each = [_photo_statistics(photo) for photo in photos]
    colors, counts = (jnp.stack(values).sum(0) for values in zip(*each, strict=True))
    return colors / len(each), counts


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
    distribution: ColorDistribution, cells: jax.Array, prior: jax.Array, temperatures: Mapping[str, float]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Means over the cells of a photo, and reliability by logit scale."""
    means: dict[str, jax.Array] = {}
    log_p, curves = log_probabilities(distribution), {}
    baseline = jnp.broadcast_to(jnp.log(prior), log_p.shape)
    scaled = {name: jax.nn.log_softmax(log_p / temperature) for name, temperature in temperatures.items()}
    for name, logits in {"prior": baseline, **scaled}.items():
        entropy, true_bins = cross_entropy(logits, cells)
        likelihood = -jnp.take_along_axis(logits, true_bins[..., None], -1)
        measured = {"cross_entropy": entropy.mean(), "negative_log_likelihood": likelihood.mean()}
        means |= {_ending(key, name): value for key, value in measured.items()}
        if name in scaled:
            curves[name] = reliability(jnp.exp(logits), true_bins)
    return means, curves


def _cell_summary(
    photos: Sequence[tuple[dict[str, jax.Array], dict[str, jax.Array]]],
) -> tuple[dict[str, float], dict[str, Reliability]]:
    """Means over the photos, with the share below the prior, and sums of the curves."""
    each = {key: np.array([photo[0][key] for photo in photos], np.float64) for key in photos[0][0]}
    means = {key: float(values.mean()) for key, values in each.items()}
    curves = {
        name: Reliability(*np.sum([np.asarray(photo[1][name], np.float64) for photo in photos], 0))
        for name in photos[0][1]
    }
    means |= {_ending("calibration_error", name): curve.error() for name, curve in curves.items()}
    return means | _share_below(each["cross_entropy"], each["cross_entropy_prior"]), curves


def _ending(key: str, scale: str) -> str:
    """The key of a value at a logit scale."""
    return key if scale == AS_GIVEN else f"{key}_{scale}"


def _share_below(values: NDArray[np.float64], baselines: NDArray[np.float64]) -> dict[str, float]:
    """By how much the photos' sum of values is below that of baselines, and its standard error over the photos.

    The error is that of a ratio of means, to first order (Cochran 1977, "Sampling techniques", section 2.11).
    """
    ratio, count = values.mean() / baselines.mean(), len(values)
    share = {"share_below_prior": float(1 - ratio)}
    if count > 1:
        variance = ((values - ratio * baselines) ** 2).sum() / (count * (count - 1))
        share["share_below_prior_error"] = float(np.sqrt(variance) / baselines.mean())
    return share


def _entropy(counts: NDArray[np.float64]) -> float:
    """In nats: the cross-entropy of what was counted with the best distribution that is the same everywhere."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
