"""Where jaxcolor keeps what it can make again."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_directory() -> Path:
    """Folder of fetched weights and compiled programs: ``$JAXCOLOR_CACHE``, or the user's cache folder.

    >>> cache_directory().is_absolute()
    True
    """
    return Path(os.environ.get("JAXCOLOR_CACHE") or user_cache_path("jaxcolor")).absolute()
