"""What exact results by elimination take, against peers.

Part one, the race: open square lattices of L x L spins with Gaussian couplings and fields, beta =
0.7, in double precision. CPU seconds after compilation, best of three (of one beyond L = 16), for
ln Z and for its gradient, which is all means of spins and bonds; memory of the program of the
gradient; and the peer `ferrotherm` (PyPI, 0.44; it needs no other package: `pip install --no-deps
--target DIR ferrotherm`, with DIR on PYTHONPATH), whose marginals of single spins are 2 n
eliminations. The same factors are contracted by `opt_einsum`, with NumPy and the order that it
finds, and summed by the variable elimination of `pgmpy`. All must agree on ln Z to 1e-9. A peer
that is not installed is skipped, and so is one beyond its limit of time.

Part two: growth of both with the width and with the length of strips.

Part three: hubs, spins that are coupled to all others of a lattice and are cut.

Part four: planar lattices without fields.

    python -m experiments benchmarks.elimination
"""

import functools
import importlib.util
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import thermogen as tg

BETA = 0.7


def lattice(rows: int, columns: int, seed: int = 0) -> tg.Interactions:
    site = np.arange(rows * columns).reshape(rows, columns)
    bonds = [(site[:, :-1], site[:, 1:]), (site[:-1], site[1:])]
    pairs = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in bonds])
    rng = np.random.default_rng(seed)
    values = [0.3 * rng.normal(size=site.size), rng.normal(size=len(pairs))]
    return tg.Interactions(site.size, [site.reshape(-1, 1), pairs], values)


def with_hubs(energy: tg.Interactions, n_hubs: int) -> tg.Interactions:
    """The same with spins that are coupled to all others."""
    n = energy.n_spins
    spokes = np.stack(np.meshgrid(np.arange(n), np.arange(n, n + n_hubs)), axis=-1).reshape(-1, 2)
    couplings = 0.1 * np.random.default_rng(1).normal(size=len(spokes))
    return tg.Interactions(n + n_hubs, [*energy.sets, spokes], [*energy.couplings, couplings])


def cpu_seconds(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Best time, and the result."""
    times, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = jax.block_until_ready(function())
        times.append(time.process_time() - start)
    return min(times), result


def ours(energy: tg.Interactions, repeats: int) -> tuple[float, float, float, float]:
    """ln Z, seconds of it and of its gradient, megabytes of the gradient."""
    value = jax.jit(lambda e: tg.exact.log_partition(e, BETA)).lower(energy).compile()
    gradient = jax.jit(jax.grad(lambda e: tg.exact.log_partition(e, BETA))).lower(energy).compile()
    memory = gradient.memory_analysis()
    assert memory is not None
    seconds, log_z = cpu_seconds(lambda: value(energy), repeats)
    of_gradient, _ = cpu_seconds(lambda: gradient(energy), repeats)
    return float(log_z), seconds, of_gradient, memory.temp_size_in_bytes / 1e6


def peer(energy: tg.Interactions):
    """The same model for ferrotherm; None where it is not installed."""
    try:
        import ferrotherm  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    fields, couplings = (np.asarray(c).tolist() for c in energy.couplings)
    bonds = [(*pair, j) for pair, j in zip(energy.sets[1].indices.tolist(), couplings, strict=True)]
    graph = {"n": energy.n_spins, "couplings": bonds, "biases": list(enumerate(fields))}
    return ferrotherm.from_spec({"graph": graph}, beta=BETA)


def factors(energy: tg.Interactions) -> list[tuple[list[int], np.ndarray]]:
    """Spins and tables of the factors of the Boltzmann weight."""
    sign = np.array([-1.0, 1.0])
    return [
        (
            spins.tolist(),
            np.exp(BETA * float(c) * (sign if len(spins) == 1 else np.outer(sign, sign))),
        )
        for table, values in zip(energy.sets, energy.couplings, strict=True)
        for spins, c in zip(np.asarray(table.indices), np.asarray(values), strict=True)
    ]


def by_einsum(energy: tg.Interactions) -> float:
    import opt_einsum  # pyright: ignore[reportMissingImports]

    operands = [x for spins, table in factors(energy) for x in (table, spins)]
    return float(np.log(opt_einsum.contract(*operands, [], optimize="auto")))


def by_pgmpy(energy: tg.Interactions) -> float:
    from pgmpy.factors.discrete import DiscreteFactor  # pyright: ignore[reportMissingImports]
    from pgmpy.inference import VariableElimination  # pyright: ignore[reportMissingImports]
    from pgmpy.models import DiscreteMarkovNetwork  # pyright: ignore[reportMissingImports]

    tables = [
        DiscreteFactor([str(k) for k in spins], [2] * len(spins), table)
        for spins, table in factors(energy)
    ]
    network = DiscreteMarkovNetwork([x.variables for x in tables if len(x.variables) == 2])
    network.add_factors(*tables)
    # The answer of a network without directions is not normalised.
    return float(
        np.log(VariableElimination(network).query(["0"], show_progress=False).values.sum())
    )


OTHERS = {"opt_einsum": by_einsum, "pgmpy": by_pgmpy}


def _answer(name: str, size: int, answer: Any) -> None:
    with jax.enable_x64(True):
        energy = lattice(size, size)
    answer.send(cpu_seconds(lambda: OTHERS[name](energy), 1))


def other(name: str, size: int, log_z: float, limit: float) -> str:
    """Seconds of a peer in a process of its own, which ends at the limit; or why there are none."""
    if importlib.util.find_spec(name) is None:
        return "not installed"
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(False)
    process = context.Process(target=_answer, args=(name, size, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit):
            return f"over {limit:.0f}"
        seconds, same = receiver.recv()
    except EOFError:
        return "failed"
    finally:
        process.terminate()
        process.join()
    assert abs(same - log_z) < 1e-9 * abs(log_z)
    return f"{seconds:.3g}"


def race(sizes: tuple[int, ...], limit: float) -> None:
    print(
        "L x L   ln Z, s   gradient, s   gradient/ln Z   MB   ferrotherm: ln Z, s   over ours"
        "   marginals, s   others, s"
    )
    for size in sizes:
        energy, repeats = lattice(size, size), 3 if size <= 16 else 1
        log_z, value, gradient, memory = ours(energy, repeats)
        row = f"{size:3d}  {value:9.3g}  {gradient:9.3g}  {gradient / value:8.2f}  {memory:8.1f}"
        if (sim := peer(energy)) is not None:
            theirs, same = cpu_seconds(functools.partial(sim.exact_log_z, BETA, 24), repeats)
            assert abs(same - log_z) < 1e-9 * abs(log_z)
            row += f"  {theirs:9.3g}  {theirs / value:6.2f}"
            if size <= 12:
                marginals, _ = cpu_seconds(functools.partial(sim.exact_marginals, BETA, 24), 1)
                row += f"  {marginals:9.3g}"
        else:
            row += "  ferrotherm not installed"
        print(
            row + "".join(f"  {name} {other(name, size, log_z, limit)}" for name in OTHERS),
            flush=True,
        )


def growth(widths: tuple[int, ...], lengths: tuple[int, ...]) -> None:
    print("strip   width   ln Z, s   ns an entry   gradient, s   gradient/ln Z   MB")
    shapes = [(40, width) for width in widths] + [(length, 12) for length in lengths]
    for rows, columns in shapes:
        energy = lattice(rows, columns)
        width = tg.exact.cost(energy).width
        _, value, gradient, memory = ours(energy, 3)
        entry = value / (energy.n_spins * 2**width) * 1e9
        print(
            f"{rows:4d} x {columns:2d}  {width:2d}  {value:9.3g}  {entry:6.1f}  {gradient:9.3g}"
            f"  {gradient / value:6.2f}  {memory:8.1f}",
            flush=True,
        )


def hubs(size: int, numbers: tuple[int, ...]) -> None:
    print("L x L + hubs   cut spins   width   ln Z, s   ns an entry   gradient, s   MB")
    for n_hubs in numbers:
        energy = with_hubs(lattice(size, size), n_hubs)
        takes = tg.exact.cost(energy)
        _, value, gradient, memory = ours(energy, 1)
        entry = value / (takes.n_steps * takes.table_size) * 1e9
        print(
            f"{size} x {size} + {n_hubs:2d}  {takes.n_cut:2d}  {takes.width:2d}  {value:9.3g}"
            f"  {entry:6.1f}  {gradient:9.3g}  {memory:8.1f}",
            flush=True,
        )


def planar(size: int, betas: tuple[float, ...]) -> None:
    """Lattices of signs without fields: ln Z, and with it the correlations of all neighbours."""
    print("L x L, signs   beta   ln Z, s   with gradient, s   mean energy a spin")
    bonds = lattice(size, size).sets[1].indices
    signs = np.random.default_rng(1).choice([-1.0, 1.0], len(bonds))
    energy = tg.Interactions(size * size, [bonds], [signs])
    both = jax.value_and_grad(tg.exact.planar_log_partition)
    for beta in betas:
        value, alone = cpu_seconds(lambda b=beta: tg.exact.planar_log_partition(energy, b), 2)
        gradient, (log_z, slope) = cpu_seconds(lambda b=beta: both(energy, b), 2)
        np.testing.assert_equal(float(log_z), float(alone))
        bond_energies = -signs * np.asarray(slope.couplings[0]) / beta
        print(
            f"{size} x {size}   {beta:4g}  {value:8.3g}  {gradient:8.3g}"
            f"  {bond_energies.sum() / size**2:9.5f}",
            flush=True,
        )


def main(
    parts: tuple[str, ...] = ("race", "growth", "hubs", "planar"),
    /,
    *,
    sizes: tuple[int, ...] = (12, 16, 20),
    limit: float = 120.0,
    widths: tuple[int, ...] = (4, 8, 12, 16),
    lengths: tuple[int, ...] = (100, 300, 1000),
    hub_numbers: tuple[int, ...] = (6, 7, 8, 9),
) -> None:
    with jax.enable_x64(True):
        if "race" in parts:
            race(sizes, limit)
        if "growth" in parts:
            growth(widths, lengths)
        if "hubs" in parts:
            hubs(14, hub_numbers)
        if "planar" in parts:
            planar(100, (0.5, 1.0, 2.0, 2.5))
