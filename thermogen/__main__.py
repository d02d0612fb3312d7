"""The `thermogen` command: it listens to signals before anything heavy is imported."""

import os
import sys
import traceback

from . import _programs, _signals


def main() -> None:
    """Entry point of the `thermogen` command."""
    _signals.install()
    # JAX reads its settings when it is imported, before the options are read.
    (_programs.forget if "--no-cache" in sys.argv else _programs.keep)()
    _programs.hurry()
    with _signals.ending("Interrupted before anything was done."):
        from . import _cluster, cli
    try:
        cli.main()
    except SystemExit as end:
        if _signals.caught() or (end.code and _cluster.is_joined()):
            # Threads of the compiler may still run, and would fault while Python is torn down;
            # and one of several processes that errs would wait for the others.
            _leave(end.code if isinstance(end.code, int) else 1)
        raise
    except BaseException:
        if _cluster.is_joined():
            traceback.print_exc()
            _leave(1)
        raise


def _leave(code: int) -> None:
    """End the process, without what JAX and others do at exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
