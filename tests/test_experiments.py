"""The scripts behind the guides: found by their runner, which reads their options."""

import ast
import importlib
import json
import sys
import types
from pathlib import Path

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import thermogen as tg
from experiments import _shared, gallery, gradient_moves, rbm_digits, ridge
from experiments.__main__ import FOLDER, main, names, read
from experiments.benchmarks import __main__ as together
from experiments.benchmarks import _peers, _tables, _watch, machines
from thermogen import cli
from thermogen._tasks import Task

# Scripts whose tasks would have nothing to share, and why.
ALONE = {
    "access": "one set of patterns, and a picture of it",
    "all": "runs the others",
    "barriers": "four named models, compared, and a picture",
    "bifurcations": "one model, and its diagram",
    "births": "one model, and its tree",
    "breaking": "small models, compared in one program",
    "coexistence": "one model of each size, compared",
    "complete": "small models, compared in one program",
    "convexity": "two tables, compared",
    "gallery": "makes a page",
    "gradient_moves": "five models, compared by the clock of one machine",
    "influence": "one model, and a picture",
    "kills": "what this machine does when it kills",
    "learning_against_cutting": "three tables, compared",
    "pairwise_digits": "one model",
    "processes": "processes of this machine",
    "rbm_digits": "contenders in equal time on one machine",
    "rbm_mnist": "one model",
    "readme_picture": "one picture",
    "real_size": "stages of one model",
    "recall": "one model of each kind, compared",
    "reduction": "three tables, compared",
    "slow_retrieval": "small models, compared in one program",
    "sparse_accuracy": "three named models, which can be run one by one",
    "training_births": "one training",
    "training_landscape": "one search for each size, compared in a picture",
}


def _function(name):
    tree = ast.parse(FOLDER.joinpath(*name.split(".")).with_suffix(".py").read_text())
    mains = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == "main"]
    assert ast.get_docstring(tree) and len(mains) == 1
    return mains[0]


@pytest.mark.parametrize("name", names())
def test_a_script_says_what_it_does_and_has_options_with_defaults(name):
    a = _function(name).args
    assert len(a.posonlyargs) + len(a.args) == len(a.defaults) and None not in a.kw_defaults


def test_options_are_read_off_the_signature():
    def main(
        sets: tuple[str, ...] = ("a", "b"),
        /,
        *,
        out: Path = Path("results"),
        sizes: tuple[int, ...] = (16, 24),
        model: Path | None = None,
        quick: bool = False,
    ) -> None: ...

    script = types.SimpleNamespace(__doc__="One.\n\nTwo.", main=main)
    plain = {"out": Path("results"), "sizes": (16, 24), "model": None, "quick": False}
    assert read("x", script, []) == ([("a", "b")], plain)
    given = ["b", "--sizes", "--model", "m", "--quick"]
    assert read("x", script, given) == (
        [["b"]],
        plain | {"sizes": [], "model": Path("m"), "quick": True},
    )
    with pytest.raises(SystemExit):
        read("x", script, ["c"])


def test_a_script_that_is_shared_writes_to_the_folder_of_its_task(monkeypatch, capsys):
    def shared(out: Path = Path("results"), task: Task = Task()) -> None: ...

    def alone(out: Path = Path("results")) -> None: ...

    script = types.SimpleNamespace(__doc__="One.", main=shared)
    assert read("x", script, []) == ([], {"out": Path("results"), "task": Task(0, 1)})
    given = ["--task", "3", "--tasks", "10", "--out", "o"]
    assert read("x", script, given)[1] == {"out": Path("o/task-003"), "task": Task(3, 10)}
    for name, value in {"ID": 1, "MIN": 0, "COUNT": 2, "STEP": 1}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert read("x", script, [])[1]["task"] == Task(1, 2)
    # Tasks that would all do the same are refused.
    with pytest.raises(SystemExit):
        read("x", types.SimpleNamespace(__doc__="One.", main=alone), [])
    assert "the tasks of an array would all do the same" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in names() if "." not in name])
def test_a_script_is_shared_by_tasks_or_has_a_reason(name):
    a = _function(name).args
    shared = "task" in [x.arg for x in (*a.args, *a.kwonlyargs)]
    assert shared != (name in ALONE), f"give its main a task, or a reason in {__name__}.ALONE"


def test_quick_settings_take_the_place_of_defaults():
    def main(sets: tuple[str, ...] = ("a", "b"), /, n: int = 9, out: Path = Path("x")) -> None: ...

    script = types.SimpleNamespace(__doc__="One.", main=main, QUICK={"n": 3, "sets": ("a",)})
    assert read("x", script, []) == ([("a", "b")], {"n": 9, "out": Path("x")})
    assert read("x", script, ["--quick"]) == ([("a",)], {"n": 3, "out": Path("x")})
    assert read("x", script, ["b", "--quick", "--n", "5"]) == ([["b"]], {"n": 5, "out": Path("x")})


@pytest.mark.parametrize("name", gallery.NAMES)
def test_a_script_of_the_gallery_can_be_quick_and_says_what_follows(name):
    module = importlib.import_module(f"experiments.{name}")
    quick, a = getattr(module, "QUICK", {}), _function(name).args
    options = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    assert "out" in options and set(quick) <= set(options)
    assert hasattr(module, "QUICK") or "quick" in options
    positional, named = read(name, module, ["--quick"])
    assert quick.items() <= (dict(zip(options, positional, strict=False)) | named).items()
    assert len(gallery.in_practice(module.__doc__ or "").split()) >= 25


def test_what_a_script_claims_is_kept(tmp_path, monkeypatch, capsys):
    for name in ("CLAIMS", "PICTURES"):
        monkeypatch.setattr(_shared, name, [])
    few = ["--sizes", "3", "--tables", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["experiments", "complete", *few])
    main()
    record = json.loads((tmp_path / "complete.claims.json").read_text())
    told = capsys.readouterr().out
    assert record["title"].endswith("?") and record["seconds"] > 0
    assert record["configuration"]["sizes"] == [3] and (tmp_path / record["picture"]).exists()
    assert len(record["claims"]) == 4 and record["quick"] is False
    for kept in record["claims"]:
        verdict = "holds" if kept["holds"] else "FAILS"
        assert f"claim: {kept['claim']}: {verdict} ({kept['statistic']})" in told
    assert gallery.load(tmp_path, ["complete"]) == [record]


def _record(name, *holds):
    claims = [{"claim": f"{name} {k}", "holds": x, "statistic": "p < 0.1"} for k, x in
              enumerate(holds)]  # fmt: skip
    told = {"title": f"Is it {name}?", "seconds": 3.2, "configuration": {"sizes": [3, 4]}}
    told["quick"] = name == gallery.NAMES[0]
    return {"name": name, "claims": claims, **told}


def test_a_claim_that_fails_is_shown_as_one():
    records = [_record(name, True) for name in gallery.NAMES[1:]]
    text = gallery.page([_record(gallery.NAMES[0], True, False), *records])
    first = gallery.NAMES[0]
    assert f"| {first} 1 | **FAILS** | p &lt; 0.1 |" in text and text.count("**FAILS**") == 1
    assert f"{len(records) + 1} of {len(records) + 2} claims hold." in text
    assert f"| [Is it {first}?](#{first}) | 1 | 1 |" in text
    assert all(f"images/gallery/{name}.png" in text for name in gallery.NAMES)
    assert f"`python -m experiments {first} --quick`, 3 s; with `sizes` 3, 4" in text
    assert text.count("--quick`, 3 s") == 1 and text.count("`, 3 s") == len(records) + 1
    assert "FAILS  complete 1 (p < 0.1)" in gallery.summary([_record("complete", True, False)])


def test_a_gallery_without_a_record_names_it(tmp_path):
    with pytest.raises(SystemExit, match="lacks complete.claims.json"):
        gallery.load(tmp_path, ["complete"])


def test_the_gallery_is_what_its_records_make():
    docs = Path(__file__).parent.parent / "docs"
    records = gallery.load(docs / "images" / "gallery")
    assert (docs / "gallery.md").read_text() == gallery.page(records)
    assert all((docs / "images" / "gallery" / f"{r['name']}.png").exists() for r in records)


def _few_models(monkeypatch):
    monkeypatch.setattr(ridge, "FAMILIES", {"ring": ridge.ring(1.0)})
    monkeypatch.setattr(ridge, "COUNTS", (50,))
    monkeypatch.setattr(ridge, "FACTORS", (2.0, 6.0))


@pytest.mark.parametrize(
    ("words", "table"),
    [
        ("ridge", "ridge.csv"),
        pytest.param(
            "known_times chain --quick", "known_times_chain.csv", marks=pytest.mark.further
        ),
    ],
)
def test_tables_of_tasks_are_together_the_table_of_one_run(words, table, tmp_path, monkeypatch):
    _few_models(monkeypatch)
    for task in ([], ["--task", "0", "--tasks", "2"], ["--task", "1", "--tasks", "2"]):
        out = tmp_path / ("shared" if task else "one")
        monkeypatch.setattr(sys, "argv", ["experiments", *words.split(), "--out", str(out), *task])
        main()
    merged = CliRunner().invoke(cli.app, ["merge", str(tmp_path / "shared")])
    assert merged.exit_code == 0 and merged.stderr == "", merged.output
    head, *rows = (tmp_path / "one" / table).read_text().splitlines()
    shared = (tmp_path / "shared" / table).read_text().splitlines()
    assert shared[0] == f"task,{head}" and len(rows) > 1
    assert sorted(row.partition(",")[2] for row in shared[1:]) == sorted(rows)
    assert {row.partition(",")[0] for row in shared[1:]} == {"0", "1"}


def test_every_comparison_can_be_run_alone_and_all_within_twenty_minutes():
    for name in together.COMPARISONS:
        assert f"benchmarks.{name}" in names()
        tree = ast.parse((FOLDER / "benchmarks" / f"{name}.py").read_text())
        assert "cases" in [f.name for f in tree.body if isinstance(f, ast.FunctionDef)]
    limits = [seconds for cores in together.COMPARISONS.values() for seconds in cores.values()]
    assert sum(limits) <= 20 * 60


def _two_cases():
    ours = _peers.Measured("thermogen, slow", "thermogen", [1.0, 2.0, 3.0])
    best = _peers.Measured("thermogen, fast", "thermogen", [2.0, 4.0, 6.0], 0.5)
    peer = _peers.Measured("peer", "no-such-package", [8.0, 8.0, 4.0], note="cold")
    absent = _peers.missing("no_such_module")
    rates = _peers.rows("speed", "a", "sweeps a second", [ours, best, peer, *absent])
    times = _peers.rows("time", "b", "ms", [ours, best, peer], more_is_better=False)
    return rates, times


def test_a_ratio_is_of_pairs_and_above_one_where_the_library_is_ahead():
    rates, times = _two_cases()
    # The medians of 2/8, 4/8, 6/4, and of 8/1, 8/2, 4/3.
    assert [row.ratio for row in rates[:3]] == [2.0, 1.0, 0.5]
    assert [row.ratio for row in times] == [1.0, 2.0, 4.0]
    assert rates[2].figure == 8.0 and rates[2].spread == 1.0 and rates[2].version == ""
    # Where one side reached nothing there is no ratio.
    nothing = _peers.Measured("peer", "no-such-package", [0.0, 0.0, 0.0])
    ours = _peers.Measured("thermogen", "thermogen", [1.0, 2.0, 3.0])
    assert np.isnan(_peers.rows("speed", "a", "hits a second", [ours, nothing])[1].ratio)


def test_what_cannot_be_imported_has_a_row_that_says_why():
    absent = _two_cases()[0][3]
    assert absent.who == "no_such_module" and absent.figure != absent.figure
    assert "does not import: ModuleNotFoundError" in absent.note
    assert absent.note in _tables.markdown([absent])


def test_the_summary_says_our_place_in_every_case_those_that_are_lost_included():
    rates, times = _two_cases()
    cores = _peers.cores()
    text = _tables.summary(rates + times)
    assert f"| speed: a | {cores} | 2 | peer | **0.5** |" in text
    assert f"| time: b | {cores} | 1 | peer | 4 |" in text
    assert [_tables.place(rows, cores) for rows in (rates[:2], rates[3:])] == [
        ["1", "none ran", ""],
        ["no figure", "none ran", ""],
    ]


def test_tables_of_a_page_are_written_from_the_file(tmp_path):
    rates, times = _two_cases()
    written = _tables.Results({"processor": "fast", "cores": "1"}, rates + times)
    _tables.save(written, tmp_path / "peers.json")
    assert "NaN" not in (tmp_path / "peers.json").read_text()
    read_again = _tables.load(tmp_path / "peers.json")
    assert str(read_again) == str(written)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{_tables.BEGIN}\nstale\n{_tables.END}\nafter\n")
    for _ in range(2):
        _tables.write_page(read_again, page)
        text = page.read_text()
        assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
        assert "processor fast; cores 1." in text
        assert f"| peer | {_peers.cores()} | 8 ± 1; cold | 0.5 |  |" in text
        assert text.count("### ") == 2


def test_rows_of_a_script_are_renewed_and_all_others_kept():
    old = [row._replace(script=name) for row in _two_cases()[0] for name in ("walsh", "exact")]
    new = [row._replace(script="walsh", figure=1.0) for row in _two_cases()[1]]
    rows = _tables.Results({}, old).renewed(new).rows
    assert len(rows) == 4 + len(new) and all(row.script == "exact" for row in rows[:4])
    elsewhere = [row._replace(cores=row.cores + 1) for row in new]
    assert len(_tables.Results({}, old).renewed(elsewhere).rows) == 8 + len(new)


def test_a_model_of_two_colours_has_the_same_distribution_in_spins():
    rng = np.random.default_rng(0)
    fields, couplings = rng.normal(size=(4, 2)), rng.normal(size=(4, 2, 4, 2))
    couplings += couplings.transpose(2, 3, 0, 1)
    couplings[range(4), :, range(4), :] = 0.0
    spins = np.asarray(tg.enumerate_spins(4))
    colours = (spins[..., None] == np.array([-1, 1])).astype(float)
    pairs = np.einsum("ria,iajb,rjb->r", colours, couplings, colours) / 2
    theirs = np.einsum("ria,ia->r", colours, fields) + pairs
    ours = -jax.vmap(machines.from_potts(fields, couplings))(spins)
    np.testing.assert_allclose(jax.nn.log_softmax(ours), jax.nn.log_softmax(theirs), atol=1e-12)


def test_a_fit_is_looked_at_after_its_first_call_and_kept_where_it_comes_to_rest():
    calls = []

    def fit(callback):
        calls.append(callback)
        so_far = types.SimpleNamespace(energy=len(calls), history=np.zeros(3))
        callback(so_far)
        return types.SimpleNamespace(**vars(so_far), result=tg.RESULTS.converged)

    # The first call ends at once; the second has come to rest long before the time is up.
    assert rbm_digits.looked_at(fit, [50.0, 99.0]) == [(50.0, 3, 2), (99.0, 3, 2)]
    assert len(calls) == 2


# A comparison in which a contender raises, another kills the process, and a third hangs.
TROUBLE = """
import functools, os, signal, time
from experiments.benchmarks import _peers, _tables, _watch, machines

def run(how):
    {"raises": lambda: 1 / 0, "hangs": lambda: time.sleep(99), "works": lambda: None,
     "crashes": lambda: os.kill(os.getpid(), signal.SIGSEGV)}[how]()

def case(title, *hows):
    runs = {(how, "numpy"): functools.partial(run, how) for how in hows}
    runs["thermogen", "thermogen"] = functools.partial(run, "works")
    return _peers.rows("trouble", title, "s", _peers.duel(runs) + _peers.missing(), False)

def last(title):
    time.sleep(99)

def cases():
    return {"first": functools.partial(case, "first", "raises", "works"),
            "second": functools.partial(case, "second", "crashes", "hangs"),
            "third": functools.partial(last, "third"), "fourth": functools.partial(last, "fourth")}
"""


@pytest.mark.slow
def test_a_comparison_survives_contenders_that_raise_crash_or_hang(tmp_path, monkeypatch):
    (tmp_path / "trouble.py").write_text(TROUBLE)
    monkeypatch.syspath_prepend(tmp_path)
    comparison = _watch.Comparison("trouble", 1, 60.0, _peers.QUICK)
    found = {(row.case, row.who): row for row in comparison.run()}
    works = [k for k, row in found.items() if row.figure == row.figure]
    assert works == [("first", "works"), ("first", "thermogen"), ("second", "thermogen")]
    notes = {key: row.note for key, row in found.items() if row.note}
    assert notes["first", "raises"] == "failed: ZeroDivisionError: division by zero"
    assert notes["second", "crashes"] == "crashed: SIGSEGV"
    assert notes["second", "hangs"] == "no end after 20 s"
    assert all(row.script == "trouble" for row in found.values())
    # Nobody's turn was said: the case is left, and what is left after the time says so.
    ends = ("no end after 20 s", "not reached: the 60 s of this comparison were over")
    assert all(notes[case, "thermogen"] in ends for case in ("third", "fourth"))
    assert notes["fourth", "thermogen"] == ends[1]


@pytest.mark.further
@pytest.mark.parametrize("kernel", ["informed", "Langevin"])
def test_moves_by_gradients_leave_the_distribution_as_it_is(kernel):
    energy = helpers.random_pairwise(5, jax.random.key(0), fields=0.3)
    langevin = gradient_moves.Langevin(jnp.asarray(2.0))
    sampler = gradient_moves.Informed() if kernel == "informed" else langevin
    n_chains = 4096
    spins = tg.sample(
        sampler, energy, 1.0, key=jax.random.key(1), n_chains=n_chains, n_sweeps=1, burn_in=40
    )
    counts = np.bincount(np.asarray(tg.index_from_spins(spins[:, 0])), minlength=32)
    expected = n_chains * np.asarray(tg.exact.probabilities(energy, 1.0))
    # Pearson's statistic of 32 cells: 31 on average, four standard deviations of sqrt(62).
    assert np.sum((counts - expected) ** 2 / expected) < 31 + 4 * np.sqrt(62)
