"""Checkpoints of a run: the last two, each written whole or not at all."""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from filelock import FileLock, Timeout

from jaxcolor.errors import InputError

KEPT = 2


class Checkpoints:
    """The checkpoints in a folder, as a context manager. Saving goes on in the background.

    A checkpoint is written beside its place and moved there when it is complete, and the oldest goes only then: when
    the disk is full, the last good one stays. Two runs cannot write to one folder at the same time. Every failure is
    an :class:`InputError` of one line.
    """

    def __init__(self, folder: Path) -> None:
        # Orbax logs the traces of its threads' errors, which arrive here as exceptions as well.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._folder = folder.resolve()
        # Beside the folder, in which Orbax clears up. The system gives it free when the process ends, however it ends.
        self._lock = FileLock(self._folder.with_name(self._folder.name + ".lock"))
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(f"another run is writing to {self._folder}; end it, or give another folder") from error
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, cleanup_tmp_directories=True)
        handlers = ocp.StandardCheckpointHandler()
        try:
            self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)
        except Exception as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise
            reason = " ".join(str(error).split())
            raise InputError(
                f"the checkpoints in {self._folder} are damaged ({reason}); give another folder"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._manager.close()
        except (ValueError, OSError) as failure:
            # What ended the block comes first.
            if error is None:
                raise self._unwritten(failure) from failure
        finally:
            self._lock.release()

    @property
    def latest(self) -> int | None:
        """Step of the last complete checkpoint."""
        return self._manager.latest_step()

    def restored(self, like: Any) -> Any:
        """The last checkpoint as a tree with the shapes and placement of ``like``; ``like`` itself without one."""
        if self.latest is None:
            return like
        checkpoint = f"the checkpoint of step {self.latest} in {self._folder}"
        try:
            shapes = self._shapes()
            if shapes == {name: leaf.shape for name, leaf in _by_name(like).items()}:
                return self._manager.restore(self.latest, args=ocp.args.StandardRestore(like))
            if not shapes:
                raise ValueError("its metadata is missing")
        except MemoryError:
            raise
        except Exception as error:  # whatever decodes damaged files raises
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            raise InputError(f"{checkpoint} is damaged; delete it, or give another folder") from error
        raise InputError(
            f"{checkpoint} is of another network or optimiser; give the width and --optimiser of that run, "
            "or another folder"
        )

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays of the last checkpoint, by name."""
        tree = self._manager.item_metadata(self.latest)
        return {name: tuple(leaf.shape) for name, leaf in _by_name(tree).items()}

    def save(self, step: int, state: Any) -> None:
        """Begin to save; a failure may show in the next call."""
        needed, free = sum(leaf.nbytes for leaf in jax.tree.leaves(state)), shutil.disk_usage(self._folder).free
        if free < needed:
            self.wait()  # only then it is known which one is the last
            raise self._unwritten(OSError(0, f"{needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free"))
        try:
            self._manager.save(step, args=ocp.args.StandardSave(state))
        except (ValueError, OSError) as error:
            raise self._unwritten(error) from error

    def wait(self) -> None:
        """Until what was begun is on the disk."""
        try:
            self._manager.wait_until_finished()
        except (ValueError, OSError) as error:
            raise self._unwritten(error) from error

    @contextmanager
    def beside(self, what: str) -> Iterator[None]:
        """For a block that writes ``what`` beside the folder: its failure tells which checkpoint is intact, too."""
        try:
            yield
        except OSError as error:
            with suppress(InputError):
                self.wait()
            raise self._unwritten(error, what, self._folder.parent) from error

    def kept(self) -> str:
        """Which checkpoint is intact, in words."""
        step = self.latest
        return "there is no checkpoint yet" if step is None else f"the checkpoint of step {step} is intact"

    def _unwritten(self, error: Exception, what: str = "a checkpoint", folder: Path | None = None) -> InputError:
        # The last words of TensorStore's message are those of the operating system.
        reason = getattr(error, "strerror", None) or str(error).split(": ")[-1].split(" [")[0]
        return InputError(
            f"cannot write {what} to {folder or self._folder}: {reason}; {self.kept()}; make room, and the same "
            "command goes on"
        )


def _by_name(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # Orbax keeps names, not the classes that hold them.
    return {"/".join(re.findall(r"\w+", jax.tree_util.keystr(path))): leaf for path, leaf in leaves}
