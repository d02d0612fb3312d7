"""Tables of 2^n entries that are split over devices: nothing gathers them, and nothing changes.

In processes of their own, which see this CPU as several devices. Meshes have explicit axes (the
default of `jax.make_mesh`) or automatic ones, one or two of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import run_alone

import thermogen as tg
from thermogen import exact

HEAD = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
jax.config.update("jax_enable_x64", True)
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import thermogen as tg
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from thermogen import exact

def mesh_of(shape, kind):
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    return Mesh(devices, ("x", "y")[: len(shape)], axis_types=(kind,) * len(shape))

def over(mesh):
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))

def meshes(kinds=(AxisType.Explicit, AxisType.Auto)):
    shapes = {2: [(2,)], 8: [(1,), (8,), (2, 4)]}[jax.device_count()]
    return [mesh_of(shape, kind) for shape in shapes for kind in kinds]

def check(name, found, truth, mesh, rtol=1e-11):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * np.max(np.abs(y)), err_msg=name)
        assert x.dtype == y.dtype, name
        if x.size == table.size:
            assert x.sharding.is_equivalent_to(over(mesh), 1), (name, x.sharding)
            assert x.sharding.mesh.axis_types == mesh.axis_types, name

N = 10
table = np.random.default_rng(0).normal(size=2**N)
plain = tg.Complete(table)

def at(e, c):
    return eqx.tree_at(lambda e: e.couplings, e, c)
"""

VALUES = (
    HEAD
    + """
class Listed(tg.AbstractEnergy):
    values: jax.Array

    @property
    def n_spins(self):
        return N

    def __call__(self, spins):
        return tg.energies.complete(self)(spins)

@tg.energies.complete.register
def _(energy: Listed):
    return tg.Complete.from_energies(energy.values)

rest = jax.nn.softmax(table[::-1])
CALLS = {
    "transform": lambda c, b: tg.walsh_transform(c),
    "inverse": lambda c, b: tg.inverse_walsh_transform(c),
    "round trip": lambda c, b: tg.Complete.from_energies(tg.Complete(c).energies()).couplings,
    "weights": lambda c, b: tg.Complete.from_weights(jnp.exp(c), 1 / b).couplings,
    "energy": lambda c, b: tg.Complete(c)(np.resize([1, -1, 1], N)),
    "energies": lambda c, b: exact.energies(tg.Complete(c)),
    "probabilities": lambda c, b: exact.probabilities(tg.Complete(c), b),
    "log_partition": lambda c, b: exact.log_partition(tg.Complete(c), b),
    "free_energy": lambda c, b: exact.free_energy(tg.Complete(c), beta=b),
    "mean_energy": lambda c, b: exact.mean_energy(tg.Complete(c), b),
    "entropy": lambda c, b: exact.entropy(tg.Complete(c), b),
    "heat_capacity": lambda c, b: exact.heat_capacity(energy=tg.Complete(c), beta=b),
    "magnetizations": lambda c, b: exact.magnetizations(tg.Complete(c), b),
    "correlations": lambda c, b: exact.correlations(tg.Complete(c), b),
    "betas": lambda c, b: jax.vmap(lambda b: exact.log_partition(tg.Complete(c), b))(
        b * jnp.arange(1.0, 3.0)),
    "conjoint_potential": exact.conjoint_potential,
    "boltzmann_weights": exact.boltzmann_weights,
    "legendre_potential": lambda c, b: exact.legendre_potential(jax.nn.softmax(c), b),
    "gibbs_gap": lambda c, b: exact.gibbs_gap(c, b, rest),
    "gap of two tables": lambda c, b: exact.gibbs_gap(c, b, jax.nn.softmax(c)),
    "a user's": lambda c, b: exact.magnetizations(Listed(c), b),
    # These gather.
    "marginal": lambda c, b: exact.marginal(tg.Complete(c), b, (0, 3)),
    "keep": lambda c, b: tg.Complete(c).keep(np.array([1, 2, 6])).couplings,
    "solve": lambda c, b: tg.solve(tg.TAP(), tg.Complete(c), b / 9, np.zeros(N)).value,
}
GATHER = ("marginal", "keep", "solve")

to_numpy = np.asarray

def guarded(x, *args, **kwargs):
    is_split = isinstance(x, jax.Array) and x.size == table.size and len(x.devices()) > 1
    assert not is_split, "brought to the host"
    return to_numpy(x, *args, **kwargs)

for name, call in CALLS.items():
    truth = call(jnp.asarray(table), 0.7)
    for mesh in meshes():
        split = jax.device_put(table, over(mesh))
        if name in GATHER:
            check(name, call(split, 0.7), truth, mesh)
            continue
        np.asarray = guarded
        found = call(split, 0.7)
        np.asarray = to_numpy
        check(name, found, truth, mesh)
        typed = over(mesh_of(mesh.devices.shape, AxisType.Explicit))
        found = jax.jit(lambda c, b: call(jax.reshard(c, typed), b))(split, 0.7)
        check(name, found, truth, Mesh(mesh.devices, mesh.axis_names, axis_types=(
            AxisType.Explicit,) * len(mesh.axis_names)))
        if AxisType.Auto in mesh.axis_types:  # the compiler chooses where the result lies
            np.testing.assert_allclose(jax.jit(call)(split, 0.7), truth, rtol=1e-11, atol=1e-11)
    print(name, flush=True)

with jax.enable_x64(False):
    single = table.astype(np.float32)
    for mesh in meshes():
        split = tg.Complete(jax.device_put(single, over(mesh)))
        for function in (exact.log_partition, exact.magnetizations, exact.probabilities):
            check("single", function(split, 0.7), function(tg.Complete(single), 0.7), mesh, 1e-5)
print("done")
"""
)

GRADIENTS = (
    HEAD
    + """
def both(e, b):
    return jax.grad(exact.log_partition, argnums=(0, 1))(e, b)

def pull(e, b):
    return jax.grad(lambda e: exact.magnetizations(e, b) @ np.arange(N))(e)

def curvature(e, b):
    return jax.jvp(lambda e: jax.grad(exact.log_partition)(e, b), (e,), (e,))[1]

truths = {f: f(plain, 0.7) for f in (both, pull, curvature)}
for mesh in meshes():
    split = tg.Complete(jax.device_put(table, over(mesh)))
    known = AxisType.Auto in mesh.axis_types
    for f in (both, pull) if known else truths:
        with jax.set_mesh(mesh):
            check(f.__name__, f(split, 0.7), truths[f], mesh)
        if known:
            check(f.__name__, f(split, 0.7), truths[f], mesh)
        else:
            check(f.__name__, jax.jit(f)(split, 0.7), truths[f], mesh)
    with jax.set_mesh(mesh):
        slope = both(split, 0.7)[0].couplings
    means = 0.7 * exact.magnetizations(split, 0.7)
    np.testing.assert_allclose(np.asarray(slope)[1 << np.arange(N)], means, rtol=1e-11)
    print(mesh.shape, mesh.axis_types, flush=True)
print("done")
"""
)

MEMORY = (
    HEAD
    + """
from thermogen import _checks

CALLS = {
    "transform": lambda e: tg.walsh_transform(e.couplings),
    "log_partition": lambda e: exact.log_partition(e, 0.7),
    "magnetizations": lambda e: exact.magnetizations(e, 0.7),
    "gradient": lambda e: jax.grad(exact.log_partition)(e, 0.7),
    "checks": lambda e: tg.Complete(e.couplings),
}
n = 18
for mesh in meshes([AxisType.Explicit]):
    spec = at(plain, jax.ShapeDtypeStruct((2**n,), float, sharding=over(mesh)))
    for name, call in CALLS.items():
        compiled = jax.jit(call).lower(spec).compile()
        held = compiled.memory_analysis()
        held = held.argument_size_in_bytes + held.output_size_in_bytes + held.temp_size_in_bytes
        assert held <= 6 * 8 * 2**n / mesh.size, (name, held)
        assert mesh.size == 1 or f"[{2**n}]" not in compiled.as_text(), name
        assert "all-gather" not in compiled.as_text(), name

mesh = meshes()[1]
known, _checks.total_memory = _checks.total_memory, lambda: 1e4
try:
    exact.log_partition(tg.Complete(jax.device_put(table, over(mesh))), 1.0)
except ValueError as error:
    assert "a table of 10 spins needs about 4.92e-05 GB" in str(error), error
else:
    sys.exit("no error")

_checks.total_memory = known
# More spins than one device may enumerate, and more entries than 32 bits count.
with jax.enable_x64(False):
    large = jax.ShapeDtypeStruct((2**32,), np.float32, sharding=over(meshes()[0]))
    for call in CALLS.values():
        jax.eval_shape(call, at(plain, large))
few = jax.device_put(np.ones(2), over(mesh_of((2,), AxisType.Explicit)))
try:
    tg.walsh_transform(few)
except ValueError as error:
    assert "a table of 2**1 entries can be split over at most 1 devices, got 2" in str(error), error
else:
    sys.exit("no error")
print("done")
"""
)

# Parts of 8 MiB go block by block.
BLOCKS = (
    HEAD
    + """
n = 21
mesh = mesh_of((2,), AxisType.Explicit)
large = np.random.default_rng(1).normal(size=2**n)
part = jax.device_put(large, over(mesh))
compiled = jax.jit(tg.walsh_transform).lower(part).compile()
assert "while" in compiled.as_text()
held = compiled.memory_analysis()
held = held.argument_size_in_bytes + held.output_size_in_bytes + held.temp_size_in_bytes
assert held <= 6 * 8 * 2**n / mesh.size, held
values, slopes = jax.jit(lambda x: (lambda y, back: (y, back(x)[0]))(
    *jax.vjp(tg.walsh_transform, x)))(part)
for found, truth in ((values, tg.walsh_transform), (slopes, tg.inverse_walsh_transform)):
    assert found.sharding.is_equivalent_to(over(mesh), 1)
    scale = 1 if truth is tg.walsh_transform else 2.0**n
    np.testing.assert_allclose(found, truth(large) / scale, rtol=0, atol=1e-14)
print("done")
"""
)


@pytest.mark.further
def test_split_tables_in_blocks():
    run_alone(BLOCKS, "2")


@pytest.mark.parametrize("script", ["values", "gradients", "memory"])
@pytest.mark.parametrize("n_devices", ["8", "2"])
@pytest.mark.further
def test_split_tables(script, n_devices):
    run_alone({"values": VALUES, "gradients": GRADIENTS, "memory": MEMORY}[script], n_devices)


def test_a_large_table_on_one_device_is_refused():
    energy = tg.Complete(jnp.zeros(4))
    large = jax.tree.map(lambda _: jax.ShapeDtypeStruct((2**25,), np.float32), energy)
    with pytest.raises(TypeError, match="at most 24 spins to be enumerated"):
        jax.eval_shape(lambda e: exact.log_partition(e, 1.0), large)
