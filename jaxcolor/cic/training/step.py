"""One compiled step of training, on one device or several."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcolor.allocation import in_blocks
from jaxcolor.cic.network import CICNetwork
from jaxcolor.cic.predict import CIC
from jaxcolor.cic.training.config import TrainingConfig
from jaxcolor.cic.training.loss import luminance_and_targets, mean_of_colored, rebalanced_loss, retouched
from jaxcolor.cic.training.state import TrainingState, Variables, optimiser_of
from jaxcolor.color.palette import ab_bins
from jaxcolor.errors import InputError


def placements(batch: int, devices: int | None = None) -> tuple[NamedSharding, NamedSharding]:
    """Where the state and where a batch of photos lie: the state on every device, the photos divided among them.

    ``devices`` None takes as many of those there are as divide the batch. The compiled step then adds up losses and
    batch statistics over the devices: beyond rounding, the result does not depend on their number.
    Raises :class:`InputError` for a number of devices that is not there or does not divide the batch.
    """
    available = jax.devices()
    count = max(n for n in range(1, len(available) + 1) if batch % n == 0) if devices is None else devices
    if not 1 <= count <= len(available) or batch % count:
        raise InputError(
            f"cannot train on {count} devices: there are {len(available)}, and the batch of {batch} "
            "must be divisible by their number; give another number of devices or another batch"
        )
    mesh = Mesh(np.array(available[:count]), ("photos",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("photos"))


def make_step(
    config: TrainingConfig, class_weights: jax.Array, placement: NamedSharding | None = None
) -> Callable[..., tuple[TrainingState, jax.Array]]:
    """The compiled step ``(state, rgb, teacher=None) -> (state, [loss, cross-entropy])``; reuses the state's buffers.

    ``placement`` is that of the state, see :func:`placements`. A teacher is one of
    :func:`~jaxcolor.cic.training.state.teacher_from`, and sees what the network sees.
    """
    network, optimiser = CICNetwork(config.width, normalised=True, half=config.half), optimiser_of(config)

    def loss(params: Variables, state: TrainingState, rgb: jax.Array, teacher: CIC | None) -> tuple[jax.Array, Any]:
        luminance, ab = luminance_and_targets(rgb)
        luminance = retouched(luminance, jax.random.fold_in(jax.random.key(config.seed), state.step))
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = network.apply(variables, luminance, train=True, mutable=["batch_stats"])
        value, plain = rebalanced_loss(logits, ab, class_weights)
        if teacher is not None:
            taught = jnp.asarray(CICNetwork(teacher.width).apply(teacher.variables, luminance))
            away = mean_of_colored(optax.softmax_cross_entropy(logits, jax.nn.softmax(taught)), ab)
            value = (1 - config.teacher_share) * value + config.teacher_share * away
        return value, (plain, updated["batch_stats"])

    def step(state: TrainingState, rgb: jax.Array, teacher: CIC | None = None) -> tuple[TrainingState, jax.Array]:
        gradient_of = jax.value_and_grad(loss, has_aux=True)
        (value, (plain, batch_stats)), gradient = gradient_of(state.params, state, rgb, teacher)
        updates, moments = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        # Early on the average forgets quickly, so that the random start does not linger.
        decay = jnp.minimum(config.average, (1 + state.step) / (10 + state.step))
        average = optax.incremental_update(params, state.average, 1 - decay)
        return TrainingState(state.step + 1, params, batch_stats, average, moments), jnp.stack([value, plain])

    options = in_blocks(largest_array(config))
    return jax.jit(step, donate_argnums=0, out_shardings=placement, compiler_options=options)


def largest_array(config: TrainingConfig) -> float:
    """Bytes that no array of a step exceeds: the first layers' features or the logits of all colors, and a margin."""
    features, logits = 64 * config.width * config.size**2, len(ab_bins()) * (config.size / 4) ** 2
    return 1.4 * 4 * config.batch * max(features, logits)
