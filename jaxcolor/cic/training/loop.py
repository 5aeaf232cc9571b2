"""The training loop: optimiser, one compiled step, checkpoints, log."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm.auto import tqdm

from jaxcolor.cic.network import HEAD, CICNetwork, merged, random_variables, unmerged, widened
from jaxcolor.cic.predict import CIC, Manifest
from jaxcolor.cic.training.checkpoints import Checkpoints
from jaxcolor.cic.training.data import LEAST_SHARE, batches, make_batch, squeezed
from jaxcolor.cic.training.log import TrainingLog
from jaxcolor.cic.training.loss import (
    cross_entropy,
    empirical_prior,
    luminance_and_targets,
    rebalanced_loss,
    retouched,
)
from jaxcolor.cic.training.provenance import code_commit, record_phase
from jaxcolor.color.palette import ab_bins, rebalancing_weights
from jaxcolor.color.spaces import lab_to_srgb
from jaxcolor.constants import ANNEALING_TEMPERATURE, RESOLUTION
from jaxcolor.errors import InputError
from jaxcolor.interrupt import deferred_interrupt

Variables = dict[str, Any]
MINIMAL_VARIANCE_OF_SQUARES = 0.99
VALIDATION_SIZE, MOST_VALIDATED = RESOLUTION, 256
STATISTICS_SEED, STATISTICS_BATCHES = 2**31 - 2, 12
SAMPLES = 6
# The first predictions are close to the prior. The learning rate of Adam is this share of Muon's.
HEAD_SHRINKAGE, ADAM_SHARE = 0.1, 0.05


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a run depends on besides the photos.

    The learning rate, Muon's for the kernels, rises linearly over ``warmup`` steps, stays, and falls linearly to 0
    over the last ``decay`` steps; a run may be resumed with another ``steps``. ``average`` is the decay of the moving
    average of the weights.

    ``uniform_share`` is λ of the class rebalancing (Zhang et al. 2016: 1/2; 1 switches it off). With ``rebalance``
    "loss" the class weights w multiply the loss, as published; its minimiser is p w / Σ p w where that of the plain
    loss is p. With "prediction" the loss is plain, its gradients vary less, and the weights multiply what the network
    predicts (Menon et al. 2021, "Long-tail learning via logit adjustment").

    A crop covers at least ``least_share`` of its photo's sides. With a teacher, ``teacher_share`` of the loss is the
    cross-entropy of its distribution instead of the truth's.
    """

    width: float = 0.25
    size: int = 128
    batch: int = 32
    steps: int = 20_000
    learning_rate: float = 0.03
    warmup: int = 100
    decay: int = 4_000
    weight_decay: float = 0.02
    gradient_norm: float = 1.0
    uniform_share: float = 0.5
    rebalance: Literal["loss", "prediction"] = "prediction"
    average: float = 0.999
    least_share: float = LEAST_SHARE
    teacher_share: float = 0.5
    seed: int = 0

    def rate(self, step: jax.Array) -> jax.Array:
        """Learning rate at a step."""
        rise, fall = (step + 1) / self.warmup, (self.steps - step) / self.decay
        return self.learning_rate * jnp.clip(jnp.minimum(rise, fall), 0.0, 1.0)

    def class_weights(self, prior: jax.Array) -> jax.Array:
        """Those that multiply the loss, ``[313]``."""
        return rebalancing_weights(prior, self.uniform_share if self.rebalance == "loss" else 1.0)


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
    luminance, _ = luminance_and_targets(jnp.asarray(_statistics_batch(config, images, 0)))
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
    return TrainingState(jnp.zeros((), jnp.int32), params, stats, average, _optimiser(config).init(params))


def _statistics_batch(config: TrainingConfig, images: Sequence[np.ndarray], number: int) -> np.ndarray:
    return make_batch(images, config.size, config.batch, STATISTICS_SEED, number, config.least_share)


def _optimiser(config: TrainingConfig) -> optax.GradientTransformation:
    # Muon (Jordan et al. 2024) orthogonalises the step of each hidden kernel, as a matrix from its taps and inputs to
    # its outputs; Adam moves the rest: biases, normalisations, head, and the stem, which has one input.
    along = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)

    def matrix(path: tuple[Any, ...], x: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        return along if x.ndim == 4 and path[0].key != HEAD and x.shape[2] > 1 else None

    muon = optax.contrib.muon(
        config.rate,
        weight_decay=config.weight_decay,
        adam_b2=MINIMAL_VARIANCE_OF_SQUARES,
        adam_learning_rate=lambda step: ADAM_SHARE * config.rate(step),
        muon_weight_dimension_numbers=lambda params: jax.tree_util.tree_map_with_path(matrix, params),
    )
    return optax.chain(optax.clip_by_global_norm(config.gradient_norm), muon)


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

    ``placement`` is that of the state, see :func:`placements`. A teacher is one of :func:`teacher_from`, and sees what
    the network sees.
    """
    network, optimiser = CICNetwork(config.width, normalised=True), _optimiser(config)

    def loss(params: Variables, state: TrainingState, rgb: jax.Array, teacher: CIC | None) -> tuple[jax.Array, Any]:
        luminance, ab = luminance_and_targets(rgb)
        luminance = retouched(luminance, jax.random.fold_in(jax.random.key(config.seed), state.step))
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = network.apply(variables, luminance, train=True, mutable=["batch_stats"])
        value, plain = rebalanced_loss(logits, ab, class_weights)
        if teacher is not None:
            taught = jnp.asarray(CICNetwork(teacher.width).apply(teacher.variables, luminance))
            away = optax.softmax_cross_entropy(logits, jax.nn.softmax(taught)).mean()
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

    return jax.jit(step, donate_argnums=0, out_shardings=placement)


def make_averaged_variables(
    config: TrainingConfig, images: Sequence[np.ndarray]
) -> Callable[[TrainingState], Variables]:
    """A function of the state: the averaged weights with batch statistics of their own, of the plain network.

    The running statistics belong to the latest weights. With the averaged ones they are off by so much that the
    network is worse than without averaging (Izmailov et al. 2018 make the same correction), so the statistics are
    taken anew over a few training batches.
    """
    network = CICNetwork(config.width, momentum=0.0, normalised=True)
    crops = [_statistics_batch(config, images, i) for i in range(STATISTICS_BATCHES)]

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


def make_validation(
    config: TrainingConfig, training: Sequence[np.ndarray], validation: Sequence[np.ndarray], prior: jax.Array
) -> Callable[[TrainingState], tuple[dict[str, float], np.ndarray]]:
    """A function of the state: held-out cross-entropy and error of the mean color, beside those without a network.

    Of whole photos, squeezed as prediction does. Its second value is a sheet, uint8 ``[3 size, 6 size, 3]``: some of
    them in gray, colorized, and as they are.
    """
    averaged_variables = make_averaged_variables(config, training)
    network, palette = CICNetwork(config.width), jnp.asarray(ab_bins())
    photos = [squeezed(image, VALIDATION_SIZE)[None] for image in validation[:MOST_VALIDATED]]
    # A rebalanced loss adds the log class weights to the log-probabilities; they are taken off again. The pictures are
    # vivid, with the class weights on.
    offset = jnp.log(config.class_weights(prior))
    vivid_offset = jnp.log(rebalancing_weights(prior, config.uniform_share))

    @jax.jit
    def measure(variables: Variables, rgb: jax.Array) -> tuple[jax.Array, jax.Array]:
        luminance, ab = luminance_and_targets(rgb)
        with jax.default_matmul_precision("highest"):
            logits = jnp.asarray(network.apply(variables, luminance)) - offset
        rebalanced = logits + vivid_offset
        mean = jnp.matmul(jax.nn.softmax(logits), palette, precision="highest")
        baseline = jnp.broadcast_to(jnp.log(prior), logits.shape)
        squares = ((mean - ab) ** 2).sum(-1).mean() / 2, (ab**2).sum(-1).mean() / 2
        entropies = cross_entropy(logits, ab)[0].mean(), cross_entropy(baseline, ab)[0].mean()
        vivid = jnp.matmul(jax.nn.softmax(rebalanced / ANNEALING_TEMPERATURE), palette, precision="highest")
        return jnp.stack([*entropies, *squares]), sample_sheet(rgb, luminance, vivid)

    def validate(state: TrainingState) -> tuple[dict[str, float], np.ndarray]:
        variables = averaged_variables(state)
        measured = [measure(variables, rgb) for rgb in photos]
        values = np.mean([numbers for numbers, _ in measured], 0)
        names = ("cross_entropy", "cross_entropy_prior", "ab_rmse", "ab_rmse_gray")
        measures = dict(zip(names, [*values[:2], *np.sqrt(values[2:])], strict=True))
        return measures, np.concatenate([sheet for _, sheet in measured[:SAMPLES]], 1)

    return validate


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


def train(
    config: TrainingConfig,
    training: Sequence[np.ndarray],
    validation: Sequence[np.ndarray],
    folder: Path,
    validate_every: int = 500,
    progress_bar: bool = True,
    devices: int | None = None,
    tensorboard: bool = False,
    init: CIC | None = None,
    teacher: CIC | None = None,
) -> TrainingState:
    """Train in ``folder`` (checkpoints, ``log.csv``, samples), resuming from its last checkpoint if there is one.

    Without a checkpoint the run begins with the weights of ``init``, or with random ones. ``teacher`` may have any
    width; a run is only resumed to the bit if it is given again.

    ``devices`` share the work, see :func:`placements`. ``data_wait`` in the log is the share of time for which the
    device may have waited for photos; it counts every wait at whose end the device had nothing to do.

    On Ctrl-C the running step is finished, a checkpoint saved and the state so far returned; a second Ctrl-C raises
    ``KeyboardInterrupt`` at once. Raises :class:`InputError`, with the last checkpoint intact, when the checkpoints are
    of another network and when one cannot be written, as on a full disk.
    """
    replicated, divided = placements(config.batch, devices)
    folder.mkdir(parents=True, exist_ok=True)
    log = TrainingLog(folder, tensorboard)
    prior = empirical_prior(training, config.seed)
    state = initial_state(config, prior) if init is None else state_from(init, config, training, prior)
    state = jax.device_put(state, replicated)
    taught = None if teacher is None else jax.device_put(teacher_from(teacher, config, prior), replicated)
    validate = make_validation(config, training, validation, prior)
    step = make_step(config, config.class_weights(prior), replicated)
    with (
        # A step gives its state's buffers away, so an interrupt in the middle of one would leave nothing to save.
        deferred_interrupt() as interrupted,
        Checkpoints(folder / "checkpoints") as checkpoints,
    ):
        state = checkpoints.restored(state)
        np.save(folder / "prior.npy", prior)
        record_phase(folder, int(state.step), asdict(config) | _told(teacher), _origin(init))
        first = int(state.step)
        source = batches(training, config.size, config.batch, config.seed, first, config.least_share)
        numbers, off = range(first, config.steps), not progress_bar
        progress = tqdm(numbers, initial=first, total=config.steps, unit="step", smoothing=0.05, disable=off)
        meter = _Meter()
        try:
            for number in progress:
                if interrupted():
                    break
                state, losses = step(state, jax.device_put(meter.fetched(source), divided), taught)
                meter.losses.append(losses)
                if (number + 1) % validate_every == 0 or number + 1 == config.steps:
                    row = meter.row(config.batch)
                    measures, pictures = validate(state)
                    row |= measures
                    shown = ("loss", "cross_entropy", "ab_rmse", "data_wait")
                    progress.set_postfix({name: f"{row[name]:.3f}" for name in shown})
                    checkpoints.save(number + 1, state)
                    log.write(number + 1, row, pictures)
                    meter = _Meter()
            checkpoints.wait()
            if interrupted() and checkpoints.latest != int(state.step):
                checkpoints.save(int(state.step), state)
                checkpoints.wait()
        finally:
            source.close()
            log.close()
    return state


def _origin(init: CIC | None) -> dict[str, Any] | None:
    """What a run's record says of the weights that it began with."""
    if init is None:
        return None
    return {name: init.manifest.get(name) for name in ("name", "checksum", "averaged", "training")}


def _told(teacher: CIC | None) -> dict[str, Any]:
    """What a run's record says of its teacher."""
    if teacher is None:
        return {}
    return {"teacher": {"width": teacher.width} | {name: teacher.manifest.get(name) for name in ("name", "checksum")}}


class _Meter:
    """Losses, speed, and how long the device may have waited for photos, from now on."""

    def __init__(self) -> None:
        self.losses: list[jax.Array] = []
        self._waited, self._start = 0.0, time.perf_counter()

    def fetched(self, source: Iterator[np.ndarray]) -> np.ndarray:
        """The next batch. The time that it takes counts as waiting if the device has finished the step before it."""
        start = time.perf_counter()
        rgb = next(source)
        if all(losses.is_ready() for losses in self.losses[-1:]):  # type: ignore[attr-defined]
            self._waited += time.perf_counter() - start
        return rgb

    def row(self, batch: int) -> dict[str, float]:
        """What the log says of the training itself."""
        loss, plain = np.mean(self.losses, 0)
        seconds = time.perf_counter() - self._start
        speed = {"photos_per_second": len(self.losses) * batch / seconds, "data_wait": self._waited / seconds}
        return {"loss": loss, "training_cross_entropy": plain, **speed}


def trained_network(
    state: TrainingState, config: TrainingConfig, images: Sequence[np.ndarray], name: str, source: Mapping[str, Any]
) -> CIC:
    """The averaged weights as a :class:`CIC` whose manifest tells how they were made; ``images`` trained them.

    ``source`` says where the photos are from and how the run went, in JSON values.

    The network estimates p, whichever way it was trained. The manifest holds the prior of the bins, from which the
    class weights follow: see :meth:`CIC.predict`.
    """
    training = {**source, "step": int(state.step), **asdict(config), "commit": code_commit()}
    prior = empirical_prior(images, config.seed)
    manifest = Manifest(name=name, training=training, prior=[float(f"{p:.5g}") for p in np.asarray(prior)])
    variables = make_averaged_variables(config, images)(state)
    head = variables["params"][HEAD]
    variables["params"][HEAD] = {**head, "bias": head["bias"] - jnp.log(config.class_weights(prior))}
    return CIC(variables, width=config.width, manifest=manifest)
