"""Which code made the weights."""

import subprocess
from pathlib import Path

import jaxcolor


def code_commit() -> str | None:
    """The git commit of this package's files, marked if they have been changed since; None outside a checkout."""
    folder = Path(jaxcolor.__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    try:
        # An installed package may lie inside a checkout of something else.
        git("ls-files", "--error-unmatch", "__init__.py")
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} with local changes" if changed else commit
