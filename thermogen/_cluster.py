"""Several processes behind one command: how they find each other, and their devices."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ._checks import check_count

# A process that does not answer for so long has ended; JAX would wait for 100 s.
_SILENCE = 20


def join(
    distributed: bool, coordinator: str | None, processes: int | None, process: int | None
) -> None:
    """Meet the other processes; nothing may have been computed before.

    Args:
        distributed: find them by what SLURM, Open MPI, Kubernetes or a cloud TPU tells.
        coordinator: else the address of the first process, `HOST:PORT`,
        processes: their number,
        process: and that of this one, from 0 on.

    Raises:
        ValueError: where they are not found, or addresses are given in part or are none.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    if all(value is None for value in given.values()):
        if distributed:
            _detected()
        return
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise ValueError(f"{', '.join(given)} belong together: give {' and '.join(missing)}, too")
    assert coordinator is not None and processes is not None and process is not None
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError(f"--coordinator must be HOST:PORT, got {coordinator}")
    check_count("--processes", processes)
    if not 0 <= process < processes:
        raise ValueError(f"--process must lie in [0, {processes - 1}], got {process}")
    _initialize(coordinator, processes, process)


def _detected() -> None:
    try:
        _initialize()
    except ValueError as error:
        raise ValueError(
            "--distributed found no processes started by SLURM (srun), Open MPI (mpirun), "
            f"Kubernetes or a cloud TPU ({error}); elsewhere give --coordinator HOST:PORT, "
            "--processes N and --process K"
        ) from None


def _initialize(*addresses: Any) -> None:
    # Or JAX takes SIGTERM for itself, and the command never hears of it.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(*addresses, heartbeat_timeout_seconds=_SILENCE)


def is_joined() -> bool:
    """Whether this process has met others."""
    return jax.distributed.is_initialized()


def all_devices() -> Mesh | None:
    """A mesh over the devices of all processes that have met; None where there is one device.

    A command that was not told to meet others takes the one device that JAX prefers.
    """
    several = is_joined() and jax.device_count() > 1
    return Mesh(np.asarray(jax.devices()), ("lanes",)) if several else None
