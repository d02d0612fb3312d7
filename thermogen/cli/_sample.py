"""`thermogen sample`: configurations of a model, as a table."""

import csv
import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .. import _signals, exact, sampling, storage
from .._checks import check_count, check_finite, check_memory, seeded_key
from ..energies import AbstractEnergy, n_visible
from ._app import NoCache, model_at, one_line, printable, say

# Replicas of each chain, and the hottest of their inverse temperatures, over the coldest.
_RUNGS, _HOTTEST = 16, 0.05
_BURN_IN = 400  # sweeps, at least
# Chains may differ beyond this (Vehtari et al. 2021).
_MAX_RHAT = 1.01


def sample(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A model, such as model.eqx, or a study's folder."),
    ],
    out: Annotated[Path, typer.Option(help="File to write to: .csv, .npy or .npz.")] = Path(
        "samples.npy"
    ),
    number: Annotated[int, typer.Option(help="Samples that are drawn.")] = 1000,
    beta: Annotated[float, typer.Option(help="Inverse temperature.")] = 1.0,
    chains: Annotated[int, typer.Option(help="Independent chains; each keeps its share.")] = 50,
    thin: Annotated[int, typer.Option(help="Sweeps from one sample of a chain to the next.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    no_cache: NoCache = False,
) -> None:
    """Draw samples of MODEL, as rows of -1 and +1, hidden spins left out.

    Up to 20 spins samples are exact and independent. Beyond, parallel tempering draws them; R-hat
    and the effective number of samples are said, and where chains disagree, so is that.

    \b
    Examples:
      thermogen sample report
      thermogen sample report/model.eqx --out drawn.csv --number 200 --beta 0.8
    """
    with one_line("sample"), _signals.interruptible():
        energy, _, names = model_at(model)
        check_finite("--beta", beta, positive=True)
        if out.suffix not in (".csv", ".npy", ".npz"):
            raise ValueError(f"--out must end in .csv, .npy or .npz, got {out}")
        counts = {"number": number, "chains": chains, "thin": thin}
        number, chains, thin = (check_count(f"--{name}", n) for name, n in counts.items())
        check_memory("samples as many as these", 16.0 * energy.n_spins * max(number, chains))
        spins, note = _drawn(energy, beta, seed, number, chains, thin)
        say(note)
        visible = enumerate(names[: n_visible(energy)])
        heads = [f"s{k}" if name == k else str(name) for k, name in visible]
        _write(out, spins[:, : len(heads)], heads)
    print(printable(out))


def _drawn(
    energy: AbstractEnergy, beta: float, seed: int, number: int, chains: int, thin: int
) -> tuple[np.ndarray, str]:
    """Samples, and how far they can be trusted."""
    key = seeded_key(seed)
    if energy.n_spins == n_visible(energy) and sampling.is_summed(energy):
        spins = exact.sample(energy, beta, key=key, n_samples=number)
        return np.asarray(spins), "Samples are exact and independent."
    chains = max(2, min(chains, number))
    kept = max(4, -(-number // chains))
    found = sampling.sample(
        sampling.ParallelTempering(np.geomspace(_HOTTEST, 1.0, _RUNGS)),
        energy,
        beta,
        key=key,
        n_chains=chains,
        n_sweeps=kept * thin,
        burn_in=max(kept * thin, _BURN_IN),
        thin=thin,
        observers={"spins": sampling.Trace(), "energies": sampling.Trace(lambda e, s: e(s))},
    )
    diagnosis = sampling.diagnose(np.asarray(found["energies"], float))
    rhat, ess = float(diagnosis.rhat), min(float(diagnosis.ess), chains * kept)
    note = f"R-hat of the energy is {rhat:.3f}; {ess:.0f} of {chains * kept} samples count."
    if rhat > _MAX_RHAT:
        note += f" Above {_MAX_RHAT} chains may differ: take more by --thin, or --number."
    spins = np.asarray(found["spins"]).swapaxes(0, 1)  # the first rows are of all chains
    return spins.reshape(-1, energy.n_spins)[:number], note


def _write(path: Path, spins: np.ndarray, names: list[str]) -> None:
    whole = spins.astype(np.int8)
    with storage.write_atomically(path) as stream:
        if path.suffix == ".npy":
            np.save(stream, whole)
        elif path.suffix == ".npz":
            np.savez_compressed(stream, spins=whole)
        else:
            head = io.StringIO()
            csv.writer(head, lineterminator="\n").writerow(names)
            stream.write(head.getvalue().encode())
            np.savetxt(stream, whole, "%d", ",")
