"""``python -m jaxcolor`` is the ``jaxcolor`` command."""

import sys

from jaxcolor.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
