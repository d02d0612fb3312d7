"""`thermogen recall`: a table of cues, completed."""

import csv
import io
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer

from .. import _signals, datasets, retrieval, storage
from .._checks import check_count, check_memory, seeded_key
from ..energies import n_visible
from ._app import NoCache, model_at, one_line, printable
from ._columns import Columns, Labels, Missing, ThresholdGrey, in_order, marks

_AT_ONCE = 64  # cues that are answered together
_N_SHOWN, _WIDTH = 20, 64  # rows and spins of the table on the screen


def recall(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A model, such as model.eqx, or a study's folder."),
    ],
    cues: Annotated[
        Path,
        typer.Argument(
            metavar="CUES",
            help="A table, one cue a row, such as .csv, .npy or .parquet: bits or spins, and ? "
            "or nothing (text) or NaN (arrays) where unknown.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write to, .npz or .csv.")] = Path(
        "answers.npz"
    ),
    beta: Annotated[float, typer.Option(help="Inverse temperature.")] = 1.0,
    labels: Labels = None,
    columns: Columns = None,
    missing: Missing = None,
    threshold_grey: ThresholdGrey = None,
    answers: Annotated[int, typer.Option(help="Answers that are kept for each cue.")] = 8,
    chains: Annotated[int, typer.Option(help="Annealed chains for each cue.")] = 64,
    sweeps: Annotated[int, typer.Option(help="Temperatures of the annealing.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    no_cache: NoCache = False,
) -> None:
    """Complete CUES: what is known is held, the rest is found by annealing under MODEL.

    Prints the best answer to each cue as bits and writes all answers with their probabilities and
    the logarithms of these, the most probable first: arrays configurations, probabilities,
    log_probabilities and magnetizations, or one line an answer. Names of the columns and of the
    rows stand in the file too; labels are left out. Where MODEL has names too, columns are put in
    its order.

    \b
    Examples:
      thermogen recall report/model.eqx cues.csv
      thermogen recall report/model.eqx cues.npy --out answers.csv --beta 2 --answers 3
    """
    with one_line("recall"), _signals.interruptible():
        energy, _, names = model_at(model)
        table = datasets.read_table(
            cues,
            labels=labels,
            columns=columns,
            missing=marks(missing),
            threshold=threshold_grey,
        )
        if out.suffix not in (".npz", ".csv"):
            raise ValueError(f"--out must end in .npz or .csv, got {out}")
        visible, width = n_visible(energy), table.spins.shape[1]
        if width != visible:
            raise ValueError(
                f"{cues} has {width} columns of spins; the model has {visible} visible spins"
            )
        table = in_order(table, names[:visible], cues)
        spins = table.spins
        counts = {"capacity": answers, "n_chains": chains, "n_sweeps": sweeps}
        for name, count in counts.items():
            check_count(name, count)
        held = answers * len(spins) + min(_AT_ONCE, len(spins)) * (answers + 4 * chains)
        check_memory("recall with these counts", 8 * width * held + 64.0 * sweeps)
        found = _answers(energy, spins, beta, seed, counts)
        with storage.write_atomically(out) as stream:
            if out.suffix == ".npz":
                named = {"names": table.names, "rows": table.rows}
                found |= {key: np.array(texts) for key, texts in named.items() if texts}
                np.savez_compressed(stream, **found)
            else:
                stream.write(_text(found, table).encode(errors="backslashreplace"))
    _show(found, spins != 0)
    print(printable(out))


def _answers(energy, spins, beta, seed, counts) -> dict[str, Any]:
    """All cues through one compiled function, `_AT_ONCE` at a time."""
    keys = jax.random.split(seeded_key(seed), len(spins))

    def answer(inputs):
        cue, key = inputs
        return retrieval.recall(energy, beta, cue, key=key, **counts)

    found = jax.lax.map(answer, (jnp.asarray(spins), keys), batch_size=min(_AT_ONCE, len(spins)))
    log_probabilities = np.asarray(found.log_probabilities)
    if np.any(np.isneginf(log_probabilities[:, 0])):
        raise ValueError("energies are not finite: check the parameters of the model and beta")
    return {
        "configurations": np.asarray(found.configurations, float),
        "probabilities": np.asarray(found.probabilities),
        "log_probabilities": log_probabilities,
        "magnetizations": np.asarray(found.magnetizations),
    }


def _text(found: dict[str, np.ndarray], table: datasets.Table) -> str:
    """One line an answer: name of the cue, or its row from 0, p, ln p, spins by their names."""
    n = found["configurations"].shape[2]
    rows = table.rows or range(len(table.spins))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = table.names or [f"s{k}" for k in range(n)]
    writer.writerow(["cue", "probability", "log_probability", *names])
    for row, (configurations, p, log_p) in zip(rows, _of_cues(found), strict=True):
        writer.writerows(
            [row, f"{p[k]:.6g}", f"{log_p[k]:.6g}", *configurations[k].astype(int)]
            for k in np.flatnonzero(log_p > -np.inf)
        )
    return text.getvalue()


def _show(found: dict[str, np.ndarray], known: np.ndarray) -> None:
    """The top answers as bits, those of the first rows."""
    print(f"{'cue':>5}{'unknown':>9}{'answers':>9}{'p':>8}{'ln p':>9}  best answer")
    for row, (configurations, p, log_p) in enumerate(_of_cues(found)[:_N_SHOWN]):
        bits = "".join("1" if s > 0 else "0" for s in configurations[0, :_WIDTH])
        cut = "..." if configurations.shape[1] > _WIDTH else ""
        counts = f"{np.sum(~known[row]):>9}{np.sum(log_p > -np.inf):>9}"
        print(f"{row:>5}{counts}{p[0]:>8.4f}{log_p[0]:>9.2f}  {bits}{cut}")
    if len(known) > _N_SHOWN:
        print(f"  and {len(known) - _N_SHOWN} more")


def _of_cues(found: dict[str, np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    names = "configurations", "probabilities", "log_probabilities"
    return list(zip(*(found[name] for name in names), strict=True))
