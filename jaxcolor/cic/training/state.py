"""What a run has learned so far, how it begins, and the optimiser that moves it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import struct

from jaxcolor.cic.network import HEAD, random_variables, unmerged, widened
from jaxcolor.cic.predict import CIC
from jaxcolor.cic.training.config import TrainingConfig
from jaxcolor.cic.training.crops import make_batch
from jaxcolor.cic.training.loss import luminance_and_targets
from jaxcolor.color.palette import rebalancing_weights
from jaxcolor.errors import InputError

Variables = dict[str, Any]
MINIMAL_VARIANCE_OF_SQUARES = 0.99
# Of the batches that batch statistics are taken over.
STATISTICS_SEED = 2**31 - 2
# The first predictions are close to the prior. The learning rate of Adam is this share of Muon's.
HEAD_SHRINKAGE, ADAM_SHARE = 0.1, 0.05


@struct.dataclass
class TrainingState:
    """What a checkpoint holds: the step, the variables, their moving average and the optimiser's moments."""

    step: jax.Array
    params: Variables
    batch_stats: Variables
    average: Variables
    optimiser: Any


def initial_state(config: TrainingConfig, prior: jax.Array) -> TrainingState:
    """Random weights; the head starts at the (rebalanced) prior, so that no step is spent on learning it."""
    variables = random_variables(jax.random.key(config.seed), config.width, normalised=True)
    head = variables["params"][HEAD]
    expected = prior * config.class_weights(prior)
    variables["params"][HEAD] = {"kernel": HEAD_SHRINKAGE * head["kernel"], "bias": jnp.log(expected + 1e-7)}
    return _state_before_a_step(config, variables)


def state_from(net: CIC, config: TrainingConfig, images: Sequence[np.ndarray], prior: jax.Array) -> TrainingState:
    """The weights of a network, to go on with; ``images`` are to train it.

    Where ``config`` has a larger width, the network gets more channels, and computes what it did before. Raises
    :class:`InputError` for a smaller one.
    """
    variables = _with_offset(net, jnp.log(config.class_weights(prior)))
    if net.width > config.width:
        raise InputError(
            f"the width must not be below that of the weights to start from, {net.width:g}; got {config.width:g}"
        )
    if net.width < config.width:
        variables = widened(variables, config.width, jax.random.key(config.seed))
    luminance, _ = luminance_and_targets(jnp.asarray(statistics_batch(config, images, 0)))
    return _state_before_a_step(config, unmerged(variables, config.width, luminance))


def teacher_from(net: CIC, config: TrainingConfig, prior: jax.Array) -> CIC:
    """A network whose distribution is what another, of any width, is to learn from ``net`` with ``config``.

    That is p or, where ``config`` has class weights in the loss, p w / Σ p w. ``net`` gives p if its manifest tells a
    prior. If not, as with the weights of Zhang et al. 2016, it has class weights built in; they are not known, and
    those of ``prior`` stand for them.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", at temperature 1; how class
    weights are treated is derived.
    """
    offset = jnp.log(config.class_weights(prior))
    if net.prior() is None:
        offset -= jnp.log(rebalancing_weights(prior, config.uniform_share))
    return CIC(_with_offset(net, offset), width=net.width)


def _with_offset(net: CIC, offset: jax.Array) -> Variables:
    """Variables whose logits are those of the network's distribution, plus ``offset`` ``[313]``."""
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), dict(net.variables))
    head, scale = variables["params"][HEAD], net.logit_scale
    variables["params"] |= {HEAD: {"kernel": scale * head["kernel"], "bias": scale * head["bias"] + offset}}
    return variables


def _state_before_a_step(config: TrainingConfig, variables: Variables) -> TrainingState:
    params = variables["params"]
    # Copies, because the compiled step may not be given one buffer twice to write over.
    stats, average = jax.tree.map(jnp.copy, (variables["batch_stats"], params))
    return TrainingState(jnp.zeros((), jnp.int32), params, stats, average, optimiser_of(config).init(params))


def statistics_batch(config: TrainingConfig, images: Sequence[np.ndarray], number: int) -> np.ndarray:
    """One of the batches that batch statistics are taken over, uint8 ``[N, S, S, 3]``; none that a step sees."""
    return make_batch(images, config.size, config.batch, STATISTICS_SEED, number, config.least_share)


def optimiser_of(config: TrainingConfig) -> optax.GradientTransformation:
    """That of the configuration; its step is to be added to the parameters."""
    step = _muon(config) if config.optimiser == "muon" else _adam(config)
    return optax.chain(optax.clip_by_global_norm(config.gradient_norm), step)


def _muon(config: TrainingConfig) -> optax.GradientTransformation:
    # Muon (Jordan et al. 2024) orthogonalises the step of each hidden kernel, as a matrix from its taps and inputs to
    # its outputs; Adam moves the rest: biases, normalisations, head, and the stem, which has one input.
    along = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)

    def matrix(path: tuple[Any, ...], x: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        return along if x.ndim == 4 and path[0].key != HEAD and x.shape[2] > 1 else None

    return optax.contrib.muon(
        config.rate,
        weight_decay=config.weight_decay,
        adam_b2=MINIMAL_VARIANCE_OF_SQUARES,
        adam_learning_rate=lambda step: ADAM_SHARE * config.rate(step),
        muon_weight_dimension_numbers=lambda params: jax.tree_util.tree_map_with_path(matrix, params),
    )


def _adam(config: TrainingConfig) -> optax.GradientTransformation:
    # As in Zhang et al.'s solver the decay goes through the moments (Loshchilov and Hutter 2019 would decouple it).
    def kernels(params: Variables) -> Variables:
        return jax.tree.map(lambda x: x.ndim == 4, params)

    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=kernels),
        optax.adam(config.rate, b1=0.9, b2=MINIMAL_VARIANCE_OF_SQUARES),
    )
