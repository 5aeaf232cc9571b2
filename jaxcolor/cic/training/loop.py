"""The training loop: optimiser, one compiled step, checkpoints, log."""

import csv
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import struct
from tqdm.auto import tqdm

from jaxcolor.cic.network import CICNetwork, random_variables
from jaxcolor.cic.predict import CIC, Manifest
from jaxcolor.cic.training.data import batches, make_batch
from jaxcolor.cic.training.loss import cross_entropy, empirical_prior, luminance_and_targets, rebalanced_loss
from jaxcolor.color.palette import ab_bins, rebalancing_weights
from jaxcolor.errors import InputError
from jaxcolor.interrupt import deferred_interrupt

Variables = dict[str, Any]
MINIMAL_VARIANCE_OF_SQUARES = 0.99
VALIDATION_SEED, VALIDATION_SIZE = 2**31 - 1, 128
STATISTICS_SEED, STATISTICS_BATCHES = 2**31 - 2, 12


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a run depends on besides the photos.

    The learning rate rises linearly over ``warmup`` steps, stays, and falls linearly to 0 over the last ``decay``
    steps; a run may be resumed with another ``steps``. ``uniform_share`` is λ of the class rebalancing
    (Zhang et al. 2016: 1/2; 1 switches it off). ``average`` is the decay of the moving average of the weights.
    """

    width: float = 0.25
    size: int = 128
    batch: int = 32
    steps: int = 20_000
    learning_rate: float = 1e-3
    warmup: int = 500
    decay: int = 4_000
    weight_decay: float = 1e-3
    gradient_norm: float = 1.0
    uniform_share: float = 0.5
    average: float = 0.999
    seed: int = 0

    def rate(self, step: jax.Array) -> jax.Array:
        """Learning rate at a step."""
        rise, fall = (step + 1) / self.warmup, (self.steps - step) / self.decay
        return self.learning_rate * jnp.clip(jnp.minimum(rise, fall), 0.0, 1.0)


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
    variables = random_variables(jax.random.key(config.seed), config.width)
    expected = prior * rebalancing_weights(prior, config.uniform_share)
    variables["params"]["model8_6"]["bias"] = jnp.log(expected + 1e-7)
    params = variables["params"]
    # A copy, because the compiled step may not be given one buffer twice to write over.
    average = jax.tree.map(jnp.copy, params)
    return TrainingState(
        jnp.zeros((), jnp.int32), params, variables["batch_stats"], average, _optimiser(config).init(params)
    )


def _optimiser(config: TrainingConfig) -> optax.GradientTransformation:
    # Adam as in the released solver (0.9, 0.99); decay acts on kernels only.
    return optax.chain(
        optax.clip_by_global_norm(config.gradient_norm),
        optax.adamw(
            config.rate,
            b2=MINIMAL_VARIANCE_OF_SQUARES,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim == 4, params),
        ),
    )


def make_step(config: TrainingConfig, class_weights: jax.Array) -> Callable[..., tuple[TrainingState, jax.Array]]:
    """The compiled step ``(state, rgb) -> (state, [loss, cross-entropy])``; the state's buffers are reused."""
    network, optimiser = CICNetwork(config.width), _optimiser(config)

    def loss(params: Variables, batch_stats: Variables, rgb: jax.Array) -> tuple[jax.Array, Any]:
        luminance, ab = luminance_and_targets(rgb)
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = network.apply(variables, luminance, train=True, mutable=["batch_stats"])
        value, plain = rebalanced_loss(logits, ab, class_weights)
        return value, (plain, updated["batch_stats"])

    def step(state: TrainingState, rgb: jax.Array) -> tuple[TrainingState, jax.Array]:
        (value, (plain, batch_stats)), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.batch_stats, rgb
        )
        updates, moments = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        # Early on the average forgets quickly, so that the random start does not linger.
        decay = jnp.minimum(config.average, (1 + state.step) / (10 + state.step))
        average = optax.incremental_update(params, state.average, 1 - decay)
        return TrainingState(state.step + 1, params, batch_stats, average, moments), jnp.stack([value, plain])

    return jax.jit(step, donate_argnums=0)


def make_averaged_variables(
    config: TrainingConfig, images: Sequence[np.ndarray]
) -> Callable[[TrainingState], Variables]:
    """A function of the state: the averaged weights with batch statistics of their own, to predict with.

    The running statistics belong to the latest weights. With the averaged ones they are off by so much that the
    network is worse than without averaging (Izmailov et al. 2018 make the same correction), so the statistics are
    taken anew over a few training batches.
    """
    network = CICNetwork(config.width, momentum=0.0)
    seeds = range(STATISTICS_BATCHES)
    crops = [make_batch(images, config.size, config.batch, STATISTICS_SEED, i) for i in seeds]

    @jax.jit
    def statistics(state: TrainingState, rgb: jax.Array) -> Variables:
        variables = {"params": state.average, "batch_stats": state.batch_stats}
        luminance, _ = luminance_and_targets(rgb)
        return network.apply(variables, luminance, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    def averaged(state: TrainingState) -> Variables:
        each = [statistics(state, rgb) for rgb in crops]
        mean = jax.tree.map(lambda *values: jnp.mean(jnp.stack(values), 0), *each)
        return {"params": state.average, "batch_stats": mean}

    return averaged


def make_validation(
    config: TrainingConfig, training: Sequence[np.ndarray], validation: Sequence[np.ndarray], prior: jax.Array
) -> Callable[[TrainingState], dict[str, float]]:
    """A function of the state: held-out cross-entropy and error of the mean color, beside those without a network."""
    averaged_variables = make_averaged_variables(config, training)
    network, palette = CICNetwork(config.width), jnp.asarray(ab_bins())
    crops = [make_batch(validation, VALIDATION_SIZE, 32, VALIDATION_SEED, i) for i in range(8)]
    # Rebalanced training adds the log class weights to the log-probabilities; they are taken off again.
    offset = jnp.log(rebalancing_weights(prior, config.uniform_share))

    @jax.jit
    def measure(variables: Variables, rgb: jax.Array) -> jax.Array:
        luminance, ab = luminance_and_targets(rgb)
        logits = jnp.asarray(network.apply(variables, luminance)) - offset
        mean = jnp.matmul(jax.nn.softmax(logits), palette, precision="highest")
        baseline = jnp.broadcast_to(jnp.log(prior), logits.shape)
        squares = ((mean - ab) ** 2).sum(-1).mean() / 2, (ab**2).sum(-1).mean() / 2
        return jnp.stack([cross_entropy(logits, ab)[0].mean(), cross_entropy(baseline, ab)[0].mean(), *squares])

    def validate(state: TrainingState) -> dict[str, float]:
        variables = averaged_variables(state)
        values = np.mean([measure(variables, crop) for crop in crops], 0)
        names = ("cross_entropy", "cross_entropy_prior", "ab_rmse", "ab_rmse_gray")
        return dict(zip(names, [*values[:2], *np.sqrt(values[2:])], strict=True))

    return validate


def train(
    config: TrainingConfig,
    training: Sequence[np.ndarray],
    validation: Sequence[np.ndarray],
    folder: Path,
    validate_every: int = 500,
    progress_bar: bool = True,
) -> TrainingState:
    """Train in ``folder`` (checkpoints, ``log.csv``), resuming from its last checkpoint if there is one.

    On Ctrl-C the running step is finished, a checkpoint saved and the state so far returned; a second Ctrl-C raises
    ``KeyboardInterrupt`` at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prior = empirical_prior(training, config.seed)
    np.save(folder / "prior.npy", prior)
    state = initial_state(config, prior)
    validate = make_validation(config, training, validation, prior)
    step = make_step(config, rebalancing_weights(prior, config.uniform_share))
    logging.getLogger("absl").setLevel(logging.WARNING)
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    with (
        # A step gives its state's buffers away, so an interrupt in the middle of one would leave nothing to save.
        deferred_interrupt() as interrupted,
        ocp.CheckpointManager((folder / "checkpoints").resolve(), options=options) as checkpoints,
    ):
        if (latest := checkpoints.latest_step()) is not None:
            state = _restored(checkpoints, latest, state, folder)
        first = int(state.step)
        source = batches(training, config.size, config.batch, config.seed, first)
        numbers, off = range(first, config.steps), not progress_bar
        progress = tqdm(numbers, initial=first, total=config.steps, unit="step", smoothing=0.05, disable=off)
        recent, start = [], time.perf_counter()
        try:
            for number in progress:
                if interrupted():
                    break
                state, losses = step(state, next(source))
                recent.append(losses)
                if (number + 1) % validate_every == 0 or number + 1 == config.steps:
                    loss, plain = np.mean(recent, 0)
                    seconds = time.perf_counter() - start
                    row = {"step": number + 1, "loss": loss, "training_cross_entropy": plain}
                    row |= validate(state)
                    row["photos_per_second"] = len(recent) * config.batch / seconds
                    _append(folder / "log.csv", row)
                    progress.set_postfix({k: f"{row[k]:.3f}" for k in ("loss", "cross_entropy", "ab_rmse")})
                    checkpoints.save(number + 1, args=ocp.args.StandardSave(state))
                    recent, start = [], time.perf_counter()
            checkpoints.wait_until_finished()
            if interrupted() and checkpoints.latest_step() != int(state.step):
                checkpoints.save(int(state.step), args=ocp.args.StandardSave(state))
        finally:
            source.close()
    return state


def _restored(checkpoints: ocp.CheckpointManager, step: int, like: TrainingState, folder: Path) -> TrainingState:
    try:
        return checkpoints.restore(step, args=ocp.args.StandardRestore(like))
    except ValueError as error:
        raise InputError(
            f"the checkpoints in {folder} are of another network; give the width of that run, or another folder"
        ) from error


def _append(path: Path, row: dict[str, Any]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row.keys())
        if fresh:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" for name, value in row.items()})


def trained_network(
    state: TrainingState, config: TrainingConfig, images: Sequence[np.ndarray], name: str, folders: Sequence[str]
) -> CIC:
    """The averaged weights as a :class:`CIC` whose manifest tells how they were made; ``images`` trained them."""
    training = {"photos": [Path(folder).name for folder in folders], "step": int(state.step), **asdict(config)}
    manifest = Manifest(name=name, training=training)
    variables = make_averaged_variables(config, images)(state)
    return CIC(variables, width=config.width, manifest=manifest)
