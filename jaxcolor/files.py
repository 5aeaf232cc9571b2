"""Writing files so that nobody ever sees half of one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxcolor.errors import InputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary place beside ``path``; what is written there takes the name ``path`` when the block ends well.

    Readers see the old file or the whole new one. After an exception, Ctrl-C included, nothing is left. A
    symbolic link keeps pointing where it did. Raises :class:`OSError` as the file system does.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp(), "note.txt")
    >>> with replacing(place) as temporary:
    ...     _ = temporary.write_text("complete")
    >>> place.read_text()
    'complete'
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".jaxcolor-{secrets.token_hex(6)}.part")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file; :class:`InputError`, one line, if that is not what it is."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8; save it as such") from error
