"""The `thermogen` command: it listens to signals before anything heavy is imported."""

import os
import sys

from . import _signals


def main() -> None:
    """Entry point of the `thermogen` command."""
    _signals.install()
    try:
        with _signals.interruptible():
            from . import cli
    except BaseException:  # within an import it may turn into almost anything
        if not _signals.caught():
            raise
        print("Interrupted before anything was done.", file=sys.stderr)
        sys.exit(_signals.exit_code())
    try:
        cli.main()
    except SystemExit as end:
        if _signals.caught():
            # Threads of the compiler may still run, and would fault while Python is torn down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise


if __name__ == "__main__":
    main()
