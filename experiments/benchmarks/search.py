"""How fast is the search for minima, against what scipy offers?

Part one, the race: an SK model of n = 256 spins, couplings N(0, 1/n), no fields; naive mean field
at beta = 2, then TAP at beta = 6. Every contender has 4 s on all cores after compilation, and
counts distinct certified minima modulo the global flip: max |dG/dm| < 1e-8 in float64, Hessian
positive definite by a Cholesky factorisation (what a rounded m at saturation cannot resolve is
granted to all). Polishing and that certificate are inside everybody's
time. The contenders, all from random corners of the cube:

- `find_minima` without hops, as many walkers as fit, curvatures of the library included;
- `scipy.optimize.minimize`, L-BFGS-B on m in a box, then Newton steps;
- `scipy.optimize.basinhopping` that flips an eighth of the spins, with the same local solver;
- `BasinHopping` of topsearch, whose standard perturbation moves all spins, with its L-BFGS-B;
- the same iteration one start after the other in NumPy: adaptive mirror descent, then Newton
  steps by conjugate gradients, then dense ones where those did not suffice.

What each found is certified once more by one function, outside the time: the column "wrong". The
last columns are our minima per second over theirs: by the clock, and by the time of all cores
together, which other work on the machine hardly changes.

Part two: milliseconds for each new state of n = 64 ... 1024 spins. All takes five minutes on two
idle cores.

    python -m experiments benchmarks.search
"""

import collections
import functools
import os
import tempfile
import time

import jax
import numpy as np
import scipy.linalg
import scipy.optimize

import thermogen as tg
from experiments.benchmarks import _peers

BUDGET = 4.0
SEEDS = (0, 1, 2)
FUNCTIONALS = {"naive": tg.NaiveMeanField(), "TAP": tg.TAP()}


def couplings(n: int, seed: int) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).normal(size=(n, n)), 1) / np.sqrt(n)
    return upper + upper.T


class Landscape:
    """G(m) of an SK model in NumPy: value, gradient, Hessian."""

    def __init__(self, j: np.ndarray, beta: float, name: str):
        self.j, self.beta = j, beta
        self.squared = beta * j * j if name == "TAP" else None

    def value_and_gradient(self, m):
        fields = self.j @ m
        entropy = np.sum((1 + m) * np.log1p(m) + (1 - m) * np.log1p(-m)) / 2
        value = -0.5 * m @ fields + entropy / self.beta
        gradient = np.arctanh(m) / self.beta - fields
        if self.squared is not None:
            v = 1 - m * m
            reaction = self.squared @ v
            value, gradient = value - 0.25 * v @ reaction, gradient + m * reaction
        return value, gradient

    def hessian(self, m):
        v = 1 - m * m
        hessian = np.diag(1 / (self.beta * v)) - self.j
        if self.squared is not None:
            hessian += np.diag(self.squared @ v) - 2 * m[:, None] * self.squared * m[None, :]
        return hessian

    def is_minimum(self, m) -> bool:
        """The certificate."""
        # A gradient in m cannot be known better than m is rounded where it saturates.
        rounding = 2 * np.finfo(float).eps / (self.beta * (1 - m * m))
        if not np.all(np.abs(self.value_and_gradient(m)[1]) < 1e-8 + rounding):
            return False
        return scipy.linalg.lapack.dpotrf(self.hessian(m))[1] == 0

    def polish(self, m):
        """Newton steps to the certificate; None if they do not lead to a minimum."""
        for _ in range(20):
            residual = self.value_and_gradient(m)[1]
            if np.max(np.abs(residual)) < 1e-10:
                break
            try:
                step = scipy.linalg.solve(self.hessian(m), residual, assume_a="sym")
            except np.linalg.LinAlgError:
                return None
            # Never through a face of the cube.
            room = np.where(step < 0, 1 - m, 1 + m) / np.maximum(np.abs(step), 1e-300)
            m = m - min(1.0, 0.9 * room.min()) * step
        return m if self.is_minimum(m) else None


class Collection:
    """Distinct minima modulo the flip."""

    def __init__(self):
        self.minima: dict[bytes, list[np.ndarray]] = {}
        self.quenches = 0

    def add(self, m) -> None:
        self.quenches += 1
        if m is None:
            return
        m = m if m[0] > 0 else -m
        # Where all |m| are small signs are noise.
        code = np.packbits(m > 0).tobytes() if np.max(np.abs(m)) > 1e-4 else b""
        same = self.minima.setdefault(code, [])
        if all(np.max(np.abs(m - other)) > 1e-5 for other in same):
            same.append(m)

    def all(self) -> np.ndarray:
        return np.array([m for same in self.minima.values() for m in same])


def random_corner(rng, n):
    return 0.99 * rng.choice([-1.0, 1.0], n)


def lbfgsb(landscape, m):
    bounds = [(-1 + 1e-12, 1 - 1e-12)] * len(m)
    found = scipy.optimize.minimize(
        landscape.value_and_gradient, m, jac=True, method="L-BFGS-B", bounds=bounds
    )
    return landscape.polish(found.x)


def by_lbfgsb(landscape, n, rng, until) -> Collection:
    found = Collection()
    while time.perf_counter() < until:
        found.add(lbfgsb(landscape, random_corner(rng, n)))
    return found


class OutOfTime(Exception):
    pass


def by_basinhopping(landscape, n, rng, until) -> Collection:
    found = Collection()

    def flip(m):
        flipped = rng.choice(n, n // 8, replace=False)
        m = np.array(m)
        m[flipped] = -m[flipped]
        return m

    def collect(m, value, accepted):
        found.add(landscape.polish(m))
        if time.perf_counter() >= until:
            raise OutOfTime

    bounds = [(-1 + 1e-12, 1 - 1e-12)] * n
    local = {"jac": True, "method": "L-BFGS-B", "bounds": bounds}
    try:
        scipy.optimize.basinhopping(
            landscape.value_and_gradient,
            random_corner(rng, n),
            niter=10**6,
            take_step=flip,
            callback=collect,
            minimizer_kwargs=local,
            rng=rng,
        )
    except OutOfTime:
        pass
    return found


def mirror_descent(landscape, theta, atol, max_steps=4096):
    """`thermogen.meanfield.MirrorDescent`, line by line, for one start; the effective field."""
    beta, step_size, eps = landscape.beta, 0.2, np.finfo(float).eps
    m = np.tanh(theta)
    residual = theta - beta * excess_field(landscape, m)
    for _ in range(max_steps):
        if np.max(np.abs(residual)) <= atol or step_size < eps:
            break
        trial = theta - step_size * residual
        new = np.tanh(trial)
        turned = trial - beta * excess_field(landscape, new)
        shift = new - m
        rounding = eps * (np.abs(theta) + np.abs(trial)) * np.abs(shift)
        accept = np.sum((residual + turned) * shift - rounding) <= 0
        change = turned - residual
        weighted = (1 - new * new) * change
        bend, along = weighted @ change, -weighted @ residual
        suggested = step_size * along / bend if bend > 0 else 1.0
        suggested = max(suggested, 0.1 * step_size) if suggested > 0 else 2 * step_size
        if accept:
            theta, m, residual = trial, new, turned
            step_size = min(suggested, 10 * step_size)
        else:
            step_size *= 0.3
    return theta


def newton_steps(landscape, theta):
    """The Newton steps of `thermogen.quench`: conjugate gradients on the scaled Hessian."""
    for _ in range(5):
        m = np.tanh(theta)
        root, residual = np.sqrt(1 - m * m), theta - landscape.beta * excess_field(landscape, m)
        before = np.max(np.abs(residual))
        if before <= 1e-10:
            break
        b = root * residual
        y, rest, p, squared, small = 0 * b, b, b, b @ b, 1e-8 * (b @ b)
        for _ in range(64):
            if squared <= small:
                break
            ap = p - root * field_change(landscape, m, root * p)
            if p @ ap <= 0:
                return theta
            length = squared / (p @ ap)
            y, rest = y + length * p, rest - length * ap
            p, squared = rest + (rest @ rest) / squared * p, rest @ rest
        trial = theta - residual - field_change(landscape, m, root * y)
        after = trial - landscape.beta * excess_field(landscape, np.tanh(trial))
        if np.max(np.abs(after)) >= before:
            break
        theta = trial
    return theta


def field_change(landscape, m, x):
    """Change of beta times `excess_field` at m along x."""
    change = landscape.j @ x
    if landscape.squared is not None:
        squared = landscape.squared
        change = change - x * (squared @ (1 - m * m)) + 2 * m * (squared @ (m * x))
    return landscape.beta * change


def excess_field(landscape, m):
    field = landscape.j @ m
    if landscape.squared is not None:
        field = field - m * (landscape.squared @ (1 - m * m))
    return field


def by_numpy(landscape, n, rng, until) -> Collection:
    found = Collection()
    while time.perf_counter() < until:
        theta = 4 * rng.choice([-1.0, 1.0], n)
        m = np.tanh(newton_steps(landscape, mirror_descent(landscape, theta, 1e-5)))
        found.add(landscape.polish(np.clip(m, -1 + 1e-15, 1 - 1e-15)))
    return found


def by_topsearch(landscape, n, rng, until) -> Collection:
    """What it would add to its network, polished. Its random numbers have no seed."""
    from topsearch.data.coordinates import StandardCoordinates
    from topsearch.data.kinetic_transition_network import KineticTransitionNetwork
    from topsearch.global_optimisation.basin_hopping import BasinHopping
    from topsearch.global_optimisation.perturbations import StandardPerturbation
    from topsearch.potentials.potential import Potential
    from topsearch.similarity.similarity import StandardSimilarity

    found = Collection()

    class Surface(Potential):
        def function_gradient(self, position):
            return landscape.value_and_gradient(position)

    class Polished(StandardSimilarity):
        def test_new_minimum(self, ktn, min_coords, min_energy):
            found.add(landscape.polish(min_coords.position.copy()))
            if time.perf_counter() >= until:
                raise OutOfTime

    folder = os.getcwd()
    with tempfile.TemporaryDirectory() as scratch:  # it writes a log where it runs
        os.chdir(scratch)
        try:
            coordinates = StandardCoordinates(n, [(-1 + 1e-12, 1 - 1e-12)] * n)
            search = BasinHopping(
                KineticTransitionNetwork(),
                Surface(),
                Polished(1e-5, 1e-8),
                StandardPerturbation(0.7, proportional_distance=True),
            )
            search.run(coordinates, 10**6, 1e-5, 1.0)
        except OutOfTime:
            pass
        finally:
            os.chdir(folder)
    return found


TOPSEARCH = "topsearch.global_optimisation.basin_hopping"
# Package, module and function of each contender.
PEERS = {
    "scipy, L-BFGS-B": ("scipy", "scipy", by_lbfgsb),
    "scipy, basinhopping": ("scipy", "scipy", by_basinhopping),
    "topsearch, basin hopping": ("topsearch", TOPSEARCH, by_topsearch),
    "serial NumPy": ("numpy", "numpy", by_numpy),
}
SEARCH = f"{_peers.OURS}, find_minima"


def clock() -> np.ndarray:
    """Seconds: by the clock, and of all cores together."""
    return np.array([time.perf_counter(), time.process_time()])


def search(name, energy, beta, seed, n_starts):
    """One call of the search, and its seconds."""
    _peers.now.tell(SEARCH, _peers.OURS)
    began = clock()
    library = tg.find_minima(
        FUNCTIONALS[name],
        energy,
        beta,
        key=jax.random.key(seed),
        n_starts=n_starts,
        capacity=n_starts,
    )
    return library, clock() - began


def fitting_starts(name, energy, beta) -> int:
    """How many starts fit into the budget: asked of runs that also compile."""
    n_starts = 2048
    search(name, energy, beta, 90, n_starts)
    for margin in (0.6, 0.95):
        _, seconds = search(name, energy, beta, 91, n_starts)
        n_starts = int(n_starts * margin * BUDGET / seconds[0])
    return n_starts


def race(name: str, beta: float, seeds) -> dict[str, list[float]]:
    """Minima a second that each contender found with each seed."""
    n, rates = 256, collections.defaultdict(list)
    print(f"{name} at beta = {beta}, n = {n}, {BUDGET:.0f} s each")
    print(
        f"{'contender':>26}{'seed':>6}{'seconds':>9}{'CPU s':>7}{'quenches':>10}{'minima':>8}"
        f"{'wrong':>7}{'ours/it':>9}{'by CPU':>8}"
    )
    energies = {seed: tg.Pairwise(couplings(n, seed), np.zeros(n)) for seed in seeds}
    n_starts = fitting_starts(name, energies[seeds[0]], beta)
    for seed in seeds:
        landscape = Landscape(couplings(n, seed), beta, name)
        library, seconds = search(name, energies[seed], beta, seed, n_starts)
        rows = [(SEARCH, seconds, n_starts, library.magnetizations)]
        for label, (package, module, peer) in PEERS.items():
            if not _peers.able(label, module):
                continue
            _peers.now.tell(label, package)
            began = clock()
            found = peer(landscape, n, np.random.default_rng(seed), began[0] + BUDGET)
            seconds = clock() - began
            rows.append((label, seconds, found.quenches, found.all()))
        ours = len(rows[0][3]) / rows[0][1]
        for label, seconds, quenches, minima in rows:
            rates[label].append(len(minima) / seconds[0])
            wrong = sum(not landscape.is_minimum(m) for m in minima)
            ratio = ours / (max(len(minima), 1) / seconds)
            print(
                f"{label:>26}{seed:6}{seconds[0]:9.2f}{seconds[1]:7.2f}{quenches:10}{len(minima):8}"
                f"{wrong:7}{ratio[0]:9.1f}{ratio[1]:8.1f}",
                flush=True,
            )
    return rates


def growth(sizes) -> None:
    """Cost of a new state against size, in runs of about the same number of spins in all."""
    print("naive at beta = 2: cost of a new state")
    print(
        f"{'n':>6}{'quenches':>10}{'minima':>8}{'coverage':>10}{'ms/quench':>11}{'ms/new':>9}"
        f"{'CPU ms/new':>12}"
    )
    for n in sizes:
        energy, n_starts = tg.Pairwise(couplings(n, 0), np.zeros(n)), 2**18 // n
        search("naive", energy, 2.0, 0, n_starts)
        library, seconds = search("naive", energy, 2.0, 1, n_starts)
        each = 1e3 * np.array([seconds[0] / n_starts, *seconds / library.size])
        print(
            f"{n:6}{n_starts:10}{library.size:8}{library.coverage():10.2f}"
            f"{each[0]:11.3f}{each[1]:9.3f}{each[2]:12.3f}",
            flush=True,
        )


def case(title: str, name: str, beta: float) -> list[_peers.Row]:
    """The race, of which one round is a seed."""
    measured = []
    for label, values in race(name, beta, SEEDS[: _peers.now.pace.rounds]).items():
        package = PEERS[label][0] if label in PEERS else _peers.OURS
        measured.append(_peers.Measured(label, package, values))
    measured += _peers.missing(TOPSEARCH, "pele")
    return _peers.rows("minima of a free energy", title, "certified minima a second", measured)


def cases() -> dict[str, _peers.Case]:
    title = "naive mean field, SK, 256 spins, beta = 2"
    return {title: functools.partial(case, title, "naive", 2.0)}


def main(
    parts: tuple[str, ...] = ("naive", "TAP", "growth"),
    /,
    *,
    seeds: tuple[int, ...] = SEEDS,
    sizes: tuple[int, ...] = (64, 128, 256, 512, 1024),
) -> None:
    for name, beta in (("naive", 2.0), ("TAP", 6.0)):
        if name in parts:
            race(name, beta, seeds)
    if "growth" in parts:
        growth(sizes)
