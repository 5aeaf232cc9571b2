"""How good a network in training is on photos held out, and the averaged weights that are measured and kept."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcolor.cic.network import HEAD, CICNetwork, merged
from jaxcolor.cic.predict import CIC
from jaxcolor.cic.training.config import TrainingConfig
from jaxcolor.cic.training.crops import squeezed
from jaxcolor.cic.training.loss import cross_entropy, luminance_and_targets
from jaxcolor.cic.training.state import TrainingState, Variables, statistics_batch
from jaxcolor.color.palette import ab_bins, rebalancing_weights
from jaxcolor.color.spaces import lab_to_srgb
from jaxcolor.constants import ANNEALING_TEMPERATURE, RESOLUTION

VALIDATION_SIZE, MOST_VALIDATED = RESOLUTION, 256
STATISTICS_BATCHES = 12
SAMPLES = 6
MEASURES = ("cross_entropy", "cross_entropy_prior", "ab_rmse", "ab_rmse_gray")


def make_averaged_variables(
    config: TrainingConfig, images: Sequence[np.ndarray]
) -> Callable[[TrainingState], Variables]:
    """A function of the state: the averaged weights with batch statistics of their own, of the plain network.

    The running statistics belong to the latest weights. With the averaged ones they are off by so much that the
    network is worse than without averaging (Izmailov et al. 2018 make the same correction), so the statistics are
    taken anew over a few training batches.
    """
    network = CICNetwork(config.width, momentum=0.0, normalised=True)
    crops = [statistics_batch(config, images, i) for i in range(STATISTICS_BATCHES)]

    @jax.jit
    def statistics(state: TrainingState, rgb: jax.Array) -> Variables:
        variables = {"params": state.average, "batch_stats": state.batch_stats}
        luminance, _ = luminance_and_targets(rgb)
        # As predictions are made; only the step itself may round.
        with jax.default_matmul_precision("highest"):
            return network.apply(variables, luminance, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    @jax.jit
    def plain(average: Variables, each: Sequence[Variables]) -> Variables:
        mean = jax.tree.map(lambda *values: jnp.mean(jnp.stack(values), 0), *each)
        return merged({"params": average, "batch_stats": mean})

    return lambda state: plain(state.average, [statistics(state, rgb) for rgb in crops])


def without_class_weights(variables: Variables, config: TrainingConfig, prior: jax.Array) -> Variables:
    """Variables of the plain network that estimate p, of those that a run with ``config`` has trained.

    Class weights in the loss add their logarithms to the log-probabilities; they are taken off again.
    """
    head = variables["params"][HEAD]
    bias = head["bias"] - jnp.log(config.class_weights(prior))
    return {**variables, "params": {**variables["params"], HEAD: {**head, "bias": bias}}}


def make_validation(
    config: TrainingConfig, training: Sequence[np.ndarray], validation: Sequence[np.ndarray], prior: jax.Array
) -> Callable[[TrainingState], tuple[dict[str, float], np.ndarray]]:
    """A function of the state: held-out cross-entropy and error of the mean color, beside those without a network.

    Of whole photos, squeezed as prediction does. Its second value is a sheet, uint8 ``[3 size, 6 size, 3]``: some of
    them in gray, colorized, and as they are. The pictures are vivid, with the class weights on.
    """
    averaged_variables = make_averaged_variables(config, training)
    measure = _make_measure(config.width, prior, rebalancing_weights(prior, config.uniform_share))
    photos = [squeezed(image, VALIDATION_SIZE)[None] for image in validation[:MOST_VALIDATED]]

    def validate(state: TrainingState) -> tuple[dict[str, float], np.ndarray]:
        variables = without_class_weights(averaged_variables(state), config, prior)
        measured = [measure(variables, rgb) for rgb in photos]
        sheets = [sheet for _, sheet in measured[:SAMPLES]]
        return _means([numbers for numbers, _ in measured]), np.concatenate(sheets, 1)

    return validate


def held_out_measures(net: CIC, photos: Sequence[np.ndarray]) -> dict[str, float]:
    """:data:`MEASURES` of a finished network on photos uint8 ``[S, S, 3]``, S a multiple of 8; for its manifest.

    Its manifest must tell the prior of the photos that trained it, and their class weights.
    """
    prior, weights = net.prior(), net.class_weights()
    if prior is None or weights is None:
        raise ValueError("these weights do not tell the prior and the class weights of their training")
    measure = _make_measure(net.width, prior, weights)
    return _means([measure(net.variables, photo[None])[0] for photo in photos])


def _make_measure(
    width: float, prior: jax.Array, class_weights: jax.Array
) -> Callable[[Mapping[str, Any], np.ndarray], tuple[jax.Array, jax.Array]]:
    """Measures, squared errors instead of their roots, and a sheet of one photo, of variables that estimate p."""
    network, palette = CICNetwork(width), jnp.asarray(ab_bins())

    # The prior is an argument of what is compiled: of a constant XLA would compute the baseline while it compiles.
    @jax.jit
    def measure(
        variables: Mapping[str, Any], rgb: jax.Array, prior: jax.Array, class_weights: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        luminance, ab = luminance_and_targets(rgb)
        with jax.default_matmul_precision("highest"):
            logits = jnp.asarray(network.apply(variables, luminance))
        mean = jnp.matmul(jax.nn.softmax(logits), palette, precision="highest")
        baseline = jnp.broadcast_to(jnp.log(prior), logits.shape)
        squares = ((mean - ab) ** 2).sum(-1).mean() / 2, (ab**2).sum(-1).mean() / 2
        entropies = cross_entropy(logits, ab)[0].mean(), cross_entropy(baseline, ab)[0].mean()
        rebalanced = logits + jnp.log(class_weights)
        vivid = jnp.matmul(jax.nn.softmax(rebalanced / ANNEALING_TEMPERATURE), palette, precision="highest")
        return jnp.stack([*entropies, *squares]), sample_sheet(rgb, luminance, vivid)

    return partial(measure, prior=prior, class_weights=class_weights)


def _means(measured: Sequence[jax.Array]) -> dict[str, float]:
    values = np.mean(measured, 0)
    return dict(zip(MEASURES, map(float, [*values[:2], *np.sqrt(values[2:])]), strict=True))


def sample_sheet(rgb: jax.Array, luminance: jax.Array, ab: jax.Array) -> jax.Array:
    """Crops in gray, colorized and as they are, in three rows: uint8 ``[3 S, N S, 3]``.

    ``rgb`` uint8 ``[N, S, S, 3]``, ``luminance`` ``[N, S, S, 1]``, ``ab`` ``[N, S/4, S/4, 2]``.

    >>> sample_sheet(jnp.zeros((2, 8, 8, 3), jnp.uint8), jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 2, 2, 2))).shape
    (24, 16, 3)
    """
    chroma = jax.image.resize(ab, (*luminance.shape[:3], 2), "bilinear")
    labs = (jnp.concatenate([luminance, scale * chroma], -1) for scale in (0, 1))
    rows = [jnp.round(255 * jnp.clip(lab_to_srgb(lab), 0, 1)).astype(jnp.uint8) for lab in labs]
    return jnp.concatenate([jnp.concatenate(list(row), 1) for row in (*rows, rgb)], 0)
