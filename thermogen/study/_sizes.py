"""What a study needs, told before it begins: memory, time, and a table that is one of samples."""

from .. import datasets
from .._checks import check_memory
from ._study import Study

# Arrays of n^2 couplings that are held at once: the memory of the line search, and Hessians.
_TABLES = 40
# Multiplications of one core a second; with what follows good to a factor of a few.
_RATE = 2e9
_HESSIAN, _LEAST_QUENCH = 3, 2e5  # multiplications of one quench: so many times n^3, or the least
_SCANS = 16
_TRAJECTORIES = 12288  # n^2 multiplications each, for each sweep of the threshold and the horizon
_HORIZON = 10
_LONG, _TOO_LONG = 300.0, 30 * 86400.0  # seconds


def check_size(study: Study) -> list[str]:
    """What there is to say about the size of a study before it begins, one sentence a line.

    Raises:
        ValueError: if it needs more memory than there is, or more than a month.
    """
    rows, n = study.source.spins.shape
    settings = study.settings
    notes = datasets.doubts(study.source.spins)
    hint = "".join(f"; {note}" for note in notes)
    starts = settings.n_starts * n * 8.0
    try:
        check_memory(f"a study of {n} spins", _TABLES * 8.0 * n**2 + 16 * starts)
    except ValueError as error:
        raise ValueError(f"{error}{hint}") from None
    quenches = rows + settings.n_starts * (1 + _SCANS)
    seconds = quenches * max(_HESSIAN * n**3, _LEAST_QUENCH) / _RATE
    sweeping = _TRAJECTORIES * n**2 * _HORIZON * settings.threshold / _RATE
    total = seconds + sweeping
    if total > _TOO_LONG:
        cause = "a lower threshold" if sweeping > seconds else "fewer spins or starts"
        raise ValueError(f"the study would take about {_time(total)}; ask for {cause}{hint}")
    if total > _LONG:
        notes.append(f"a study of {n} spins will take about {_time(total)}")
    return notes


def _time(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds > 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds / 60:.0f} minutes"
