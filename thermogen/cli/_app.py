"""What all commands share: the program, its errors in one line, what is said and written."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

try:
    import typer

    from .. import study
except ModuleNotFoundError as error:
    raise ImportError(
        f"the command line needs {error.name}; install it with: pip install 'thermogen[study]'"
    ) from error

from .. import _programs, _signals, interop, storage
from ..runs import ProcessLostError, is_first

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command; `thermogen.__main__` listens to signals before this module is imported."""
    _signals.install()
    app()


@contextlib.contextmanager
def one_line(command: str) -> Iterator[None]:
    """Errors that the user can mend, and warnings, in one line; a signal before all is done."""
    try:
        with _warnings_said(command):
            yield
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        raise typer.Exit(_signals.exit_code()) from None
    except (ValueError, TypeError, OSError, ImportError, ProcessLostError) as error:
        print(f"thermogen {command}: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


@contextlib.contextmanager
def _warnings_said(command: str) -> Iterator[None]:
    with warnings.catch_warnings():
        show = warnings.showwarning

        def said(message, category, *place, **more):
            if issubclass(category, UserWarning) and not _programs.TROUBLE.match(str(message)):
                say(f"thermogen {command}: {message}")
            else:
                show(message, category, *place, **more)

        warnings.showwarning = said
        yield


def _show_version(wanted: bool) -> bool:
    if wanted:
        print(f"thermogen {study.version()}")
        raise typer.Exit()
    return wanted


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Statistical mechanics of generative models on binary spins.

    Start with: thermogen study digits
    """


# Read by `thermogen.__main__`, before JAX is imported.
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Neither read nor keep compiled programs on disk.")
]


def say(text: str) -> None:
    """Tell on the screen, once and not in each process."""
    if is_first():
        print(text, file=sys.stderr)


def model_at(path: Path) -> interop.Model:
    """The model in a file of any format, or in the folder of a study.

    Raises:
        ValueError: if the file is damaged, or of no known format.
        OSError: if it cannot be read.
    """
    return interop.read_model(path / "model.eqx" if path.is_dir() else path)


def write_text(path: Path, text: str) -> None:
    with storage.write_atomically(path) as stream:
        stream.write(text.encode(errors="backslashreplace"))


def printable(path: Path) -> str:
    """A path for the screen, which may not know all bytes that a file name can have."""
    encoding = sys.stdout.encoding or "utf-8"
    return str(path).encode(encoding, "backslashreplace").decode(encoding)
