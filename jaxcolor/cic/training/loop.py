"""The training loop: steps, checkpoints, log."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcolor.allocation import memory_kept
from jaxcolor.cic.predict import CIC, Manifest
from jaxcolor.cic.training.checkpoints import Checkpoints
from jaxcolor.cic.training.config import TrainingConfig
from jaxcolor.cic.training.crops import batches
from jaxcolor.cic.training.log import TrainingLog
from jaxcolor.cic.training.loss import empirical_prior
from jaxcolor.cic.training.progress import Kind, Meter, Progress
from jaxcolor.cic.training.provenance import code_commit, record_phase, surroundings
from jaxcolor.cic.training.state import TrainingState, initial_state, state_from, teacher_from
from jaxcolor.cic.training.step import make_step, placements
from jaxcolor.cic.training.validation import make_averaged_variables, make_validation, without_class_weights
from jaxcolor.errors import InputError
from jaxcolor.files import replacing
from jaxcolor.interrupt import deferred_interrupt


def train(
    config: TrainingConfig,
    training: Sequence[np.ndarray],
    validation: Sequence[np.ndarray],
    folder: Path,
    validate_every: int = 500,
    progress: Kind = "bar",
    devices: int | None = None,
    tensorboard: bool = False,
    data: Mapping[str, Any] | None = None,
    init: CIC | None = None,
    teacher: CIC | None = None,
) -> TrainingState:
    """Train in ``folder`` (checkpoints, ``log.csv``, samples), resuming from its last checkpoint if there is one.

    Without a checkpoint the run begins with the weights of ``init``, or with random ones. ``teacher`` may have any
    width; a run is only resumed to the bit if it is given again. ``data`` is what the run's record is to say of the
    photos, in JSON values.

    ``devices`` share the work, see :func:`~jaxcolor.cic.training.step.placements`. ``data_wait`` in the log is the
    share of time for which the device may have waited for photos; it counts every wait at whose end the device had
    nothing to do.

    On Ctrl-C the running step is finished, a checkpoint saved and the state so far returned; a second Ctrl-C raises
    ``KeyboardInterrupt`` at once. Raises :class:`InputError`, with the last checkpoint intact, when the checkpoints are
    of another network, when one cannot be written, as on a full disk, and when the run diverges.
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
        closing(log),
        # A step gives its state's buffers away, so an interrupt in the middle of one would leave nothing to save.
        deferred_interrupt() as interrupted,
        memory_kept(),
        Checkpoints(folder / "checkpoints") as checkpoints,
    ):
        state = checkpoints.restored(state)
        first = int(state.step)
        settings = asdict(config) | _told(teacher) | surroundings(replicated.mesh.devices.ravel().tolist())
        with checkpoints.beside("the run's record"):
            _save_prior(folder / "prior.npy", prior)
            record_phase(folder, first, settings | ({"data": data} if data else {}), _origin(init))
        meter = Meter(config.batch)
        with (
            closing(Progress(progress, first, config.steps)) as shown,
            closing(batches(training, config.size, config.batch, config.seed, first, config.least_share)) as source,
        ):
            for number in range(first + 1, config.steps + 1):
                if interrupted():
                    break
                state, losses = step(state, jax.device_put(meter.fetched(source), divided), taught)
                meter.losses.append(losses)
                shown.advanced(number, meter)
                if number % validate_every == 0 or number == config.steps:
                    row = meter.row()
                    measures, pictures = validate(state)
                    row |= measures
                    _require_finite(config, state, row, checkpoints)
                    checkpoints.save(number, state)
                    with checkpoints.beside("the log"):
                        log.write(number, row, pictures)
                    shown.validated(number, row)
                    meter = Meter(config.batch)
            checkpoints.wait()
            if interrupted() and checkpoints.latest != int(state.step):
                _require_finite(config, state, {}, checkpoints)
                checkpoints.save(int(state.step), state)
                checkpoints.wait()
    return state


def _require_finite(
    config: TrainingConfig, state: TrainingState, row: Mapping[str, float], checkpoints: Checkpoints
) -> None:
    """Raise :class:`InputError`, before it takes the place of a good checkpoint, for a state that has diverged."""
    wrong = [name for name, value in row.items() if not np.isfinite(value)]
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state))):
        wrong.append("weights")
    if wrong:
        checkpoints.wait()  # only then it is known which one is the last
        raise InputError(
            f"the run has diverged by step {int(state.step)}: not finite: {', '.join(wrong)}; {checkpoints.kept()}; "
            f"give a --learning-rate below {config.learning_rate:g}, and the same command goes on from there"
        )


def _save_prior(path: Path, prior: jax.Array) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, prior)


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


def trained_network(
    state: TrainingState, config: TrainingConfig, images: Sequence[np.ndarray], name: str, source: Mapping[str, Any]
) -> CIC:
    """The averaged weights as a :class:`CIC` whose manifest tells how they were made; ``images`` trained them.

    ``source`` says where the photos are from and how the run went, in JSON values; the commit of the code is that of
    the last of its ``"phases"``, if it has any.

    The network estimates p, whichever way it was trained. The manifest holds the prior of the bins, from which the
    class weights follow: see :meth:`CIC.predict`.
    """
    phases = source.get("phases")
    commit = phases[-1].get("commit") if phases else code_commit()
    training = {**source, "step": int(state.step), **asdict(config), "commit": commit}
    prior = empirical_prior(images, config.seed)
    manifest = Manifest(name=name, training=training, prior=[float(f"{p:.5g}") for p in np.asarray(prior)])
    variables = without_class_weights(make_averaged_variables(config, images)(state), config, prior)
    return CIC(variables, width=config.width, manifest=manifest)
