"""`python -m flagrelay`, the same as `flagrelay`."""

import os
import sys
from contextlib import suppress

from flagrelay.cli.main import INTERRUPTED, main


def _end(status: object) -> None:
    """After Ctrl-C, end with that status.

    Python would die of the signal at the end of `python -m`, whatever status it is told, where that hit in source which
    is made while something is imported, as dataclasses do.
    """
    if status == INTERRUPTED:
        with suppress(OSError):
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        _end(end.code)
        raise
