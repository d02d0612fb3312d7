"""What the cells and columns of a table mean: conventions, names, labels, gaps and grey values."""

import warnings

import numpy as np
import pytest

from thermogen import datasets


def read(tmp_path, text, **options):
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return datasets.read(path, **options)


EXPECTED = [[1, -1, 1], [-1, -1, 0]]


@pytest.mark.parametrize(
    "text",
    [
        "1,0,1\n0,0,\n",
        "1;0;1\n0;0;NA\n",
        "1\t0\t1\n0\t0\t\n",
        "1|0|1\n0|0|?\n",
        "1 0 1\n0 0 .\n",
        "  1   0  1\n  0   0  nan\n\n",
        "1.0,-1,+1\r\n-1,-1.00,NaN\r\n",
        "1, 0, 1\n0, 0, n/a\n",
        "1,0;0,0;1,0\n0,0;0,0;null\n",  # decimal commas
        "1e0,0e0,1.\n.0,-0,None\n",
        "yes,no,Yes\nNO,no,\n",
        "TRUE,FALSE,true\nFalse,false,\n",
        "t,F,T\nf,f,<NA>\n",
        "y,n,Y\nN,n,NULL\n",
        "on,off,ON\noff,Off,na\n",
        "1,no,t\n0,no,?\n",  # each column in its own words
        '"1","0","1"\n"0","0",""\n',
        "# of the lab\n\n# by hand\n1,0,1\n0,0,\n",
        b"\xef\xbb\xbf1,0,1\n0,0,\n",
        "1,0,1\n0,0,\n".encode("utf-16"),
        b"\xfe\xff" + "1,0,1\r\n0,0,\r\n".encode("utf-16-be"),
        "1,0,1\r0,0,\r",
    ],
)
def test_cells_as_people_write_them(tmp_path, text):
    table = read(tmp_path, text)
    np.testing.assert_array_equal(table.spins, EXPECTED)
    assert table == (table.spins, None, None, None, None)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b,c\n1,0,1\n0,0,\n", ("a", "b", "c")),
        ('"a, of b"; b ;c\n1;0;1\n0;0;\n', ("a, of b", "b", "c")),
        ("x,y,t\n1,0,1\n0,0,\n", ("x", "y", "t")),  # single letters above numbers are names
        ("0,1,2\n1,0,1\n0,0,\n", ("0", "1", "2")),
        ("1,2,3\n1,0,1\n0,0,\n", ("1", "2", "3")),
        ("a,b,\n1,0,1\n0,0,\n", ("a", "b", "2")),
        ("# lab\n#a\tb\tc\n1\t0\t1\n0\t0\t\n", ("a", "b", "c")),
        ("# a,b,c\n1,0,1\n0,0,\n", ("a", "b", "c")),
        ("größe,β,身長\n1,0,1\n0,0,\n", ("größe", "β", "身長")),
        ("größe,β,身長\n1,0,1\n0,0,\n".encode("utf-16"), ("größe", "β", "身長")),
    ],
)
def test_headers(tmp_path, text, names):
    table = read(tmp_path, text)
    np.testing.assert_array_equal(table.spins, EXPECTED)
    assert table.names == names


@pytest.mark.parametrize(
    ("text", "rows", "names"),
    [
        (",a,b\n0,1,0\n1,0,0\n", ("0", "1"), ("a", "b")),  # pandas
        (",0,1,2\nx,1,0,1\ny,0,0,1\n", ("x", "y"), ("0", "1", "2")),
        ("a b\nx 1 0\ny 0 0\n", ("x", "y"), ("a", "b")),  # R
        ('"a","b"\n"x",1,0\n"y",0,0\n', ("x", "y"), ("a", "b")),
        ("ID,a,b\n17,1,0\n9,0,0\n", ("17", "9"), ("a", "b")),
        ("name,a,b\nx,1,0\ny,0,0\nz,1,1\n", ("x", "y", "z"), ("a", "b")),
        ("x,yes,no\ny,no,no\nz,yes,yes\n", ("x", "y", "z"), None),
        ("0,1,0\n1,0,0\n2,1,1\n", ("0", "1", "2"), None),
        ("1,1,0\n2,0,0\n3,1,1\n", ("1", "2", "3"), None),
    ],
)
def test_a_column_that_only_names_samples_is_none_of_spins(tmp_path, text, rows, names):
    with pytest.warns(UserWarning, match="the first column .*is taken for names of the samples"):
        table = read(tmp_path, text)
    assert table.rows == rows and table.names == names
    assert (table.spins[:2, :2] == [[1, -1], [-1, -1]]).all()
    assert len(table.spins[0]) == 2 + (names == ("0", "1", "2"))


def test_what_may_be_a_spin_is_one(tmp_path):
    for text in ("0,1\n1,0\n", "a,b\n0,1\n1,0\n", "t,1\nf,0\n"):
        assert read(tmp_path, text).spins.shape == (2, 2)
    with warnings.catch_warnings(record=True) as said:
        table = read(tmp_path, "0,1,0\n1,0,0\n2,1,1\n", index=0)
    assert table.rows == ("0", "1", "2") and not said


CHOICE = "id,a,2,c,kind,2-3,d\n7,1,0,1,x,0,1\n8,0,0,1,y,1,0\n"


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ("a,c", ("a", "c")),
        ("c, a", ("c", "a")),
        ("1-3", ("a", "2", "c")),
        ("5-,a", ("2-3", "d", "a")),
        ("2", ("2",)),  # a name goes before a number
        ("2-3", ("2-3",)),
        (["a", 3, "d"], ("a", "c", "d")),
    ],
)
def test_columns_by_name_number_and_range(tmp_path, columns, names):
    table = read(tmp_path, CHOICE, columns=columns, labels="kind", index="id")
    assert table.names == names and table.rows == ("7", "8")
    assert table.labels.tolist() == [0, 1] and table.classes == ("x", "y")
    given = ("a", "2", "c", "2-3", "d")
    bits = np.array([[1, 0, 1, 0, 1], [0, 0, 1, 1, 0]])
    np.testing.assert_array_equal(table.spins, 2 * bits[:, [given.index(k) for k in names]] - 1)


@pytest.mark.parametrize("labels", ["kind", 4])
def test_labels_are_never_spins(tmp_path, labels):
    """Numbers as labels would pass for spins: ranges go past them, and to name them is an error."""
    numbers = CHOICE.replace("x", "0").replace("y", "1")
    table = read(tmp_path, numbers, columns="1-5", labels=labels)
    assert table.names == ("a", "2", "c", "2-3") and table.labels.tolist() == [0, 1]
    for columns in ("a,kind", "4", ["a", 4], "4-4"):
        with pytest.raises(ValueError, match=r"columns names (.* holds the labels|nothing)"):
            read(tmp_path, numbers, columns=columns, labels=labels)


def test_labels_of_every_kind(tmp_path):
    rows = ["10,1,0", "9,0,0", "10,1,1", ",0,1"]
    for label in ("kind", 0):
        table = read(tmp_path, "\n".join(["kind,a,b", *rows]), labels=label)
        assert table.classes == ("9", "10") and table.labels.tolist() == [1, 0, 1, -1]
        assert table.names == ("a", "b")
    table = read(tmp_path, "\n".join(rows), labels=0)  # zeros before a number are of its name
    assert table.classes == ("9", "10") and table.spins.shape == (4, 2)
    table = read(tmp_path, "007,1\n07,0\n007,1\n", labels="0")
    assert table.classes == ("007", "07") or table.classes == ("07", "007")
    assert read(tmp_path, "yes,1\nno,0\n", labels=0).classes == ("no", "yes")


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("1,-1,1\n-1,-1,0\n", 0),
        ("1,-1,1\n-1,-1,0.0\n", "0"),
        ("1,0,1\n0,0,-9\n", (-9, 99)),
        ("1,0,1\n0,0,unknown\n", "Unknown"),
        ("yes,no,yes\nno,no,refused\n", ["-", "refused"]),
    ],
)
def test_marks_of_what_is_missing(tmp_path, text, marks):
    np.testing.assert_array_equal(read(tmp_path, text, missing=marks).spins, EXPECTED)


# --- grey values


def test_thresholds_by_hand(tmp_path):
    grey = np.array([[0.0, 10, 100], [1, 10, 300], [5, 40, 400], [np.nan, 20, 400]])
    cases = {
        20: [[-1, -1, 1], [-1, -1, 1], [-1, 1, 1], [0, -1, 1]],  # at the threshold is down
        "20": [[-1, -1, 1], [-1, -1, 1], [-1, 1, 1], [0, -1, 1]],
        "mean": [[-1, -1, -1], [-1, -1, -1], [1, 1, 1], [0, -1, 1]],  # 2, 20, 300
        "median": [[-1, -1, -1], [-1, -1, -1], [1, 1, 1], [0, 1, 1]],  # 1, 15, 350
        "otsu": [[-1, -1, -1], [-1, -1, 1], [-1, -1, 1], [0, -1, 1]],
    }
    for threshold, expected in cases.items():
        np.testing.assert_array_equal(datasets.read(grey, threshold=threshold).spins, expected)
    table = read(tmp_path, "a,b\n0.5,yes\n0.1,no\n", threshold="mean")
    np.testing.assert_array_equal(table.spins, [[1, 1], [-1, -1]])


def test_the_cut_of_otsu_is_the_best_of_all():
    """Every cut, its variance between the groups by definition."""
    values = np.random.default_rng(0).normal([0, 0, 4, 5], 1, (30, 4))
    up = datasets.read(values, threshold="otsu").spins > 0

    def between(mask):
        low, high = values[~mask], values[mask]
        return low.size * high.size * (low.mean() - high.mean()) ** 2

    best = max(between(values > level) for level in np.sort(values.ravel())[:-1])
    np.testing.assert_allclose(between(up), best, rtol=1e-12)
    shifted = datasets.read(values * 1e-3 + 1e6, threshold="otsu").spins > 0
    assert np.mean(shifted == up) > 0.97


# --- what is refused


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "1,-1\n0,1\n",
            {},
            r"a.csv mixes two conventions: the value 0 at line 2, column 0 .* the "
            r"value -1 at line 1, column 1 .* say missing=0",
        ),
        (
            "a,b\n1,0.4\n",
            {},
            r"a.csv has the value 0.4 at line 2, column 'b'; expected 0 and 1, or "
            r"-1 and \+1 \(grey values need a threshold: a number, mean, median or otsu\)",
        ),
        (
            "a,b\n1,m\n0,f\n",
            {},
            r"a.csv has 'm' at line 2, column 'b'; expected numbers, or one of "
            r"true/false, yes/no.* Other words can be the labels or the index; choose columns",
        ),
        (
            "a,b\n1,yes\n0,F\n",
            {},
            r"mixes 'yes' at line 2, column 'b' and 'F' at line 3, column 'b'",
        ),
        ("a,b\n1,yes\n0,1\n", {}, r"mixes 'yes' at line 2, column 'b' and '1' at line 3"),
        ("a,b\n1,1\n0,yes\n", {}, r"mixes '1' at line 2, column 'b' and 'yes' at line 3"),
        ("a,b\n1,1_0\n", {}, r"has '1_0' at line 2, column 'b'"),
        ("a,b\n1,inf\n", {"threshold": 1}, r"the value inf at line 2, column 'b'; expected finite"),
        ("a,b\n1,1\n", {"threshold": "otsu"}, "no two different values for a threshold of Otsu"),
        ("a,b\n1,1\n", {"threshold": "mode"}, "threshold is 'mode'; expected a number, mean"),
        ("a,b\n1,1\n", {"threshold": float("nan")}, "threshold is nan; expected a number"),
        (
            "a,b\n1,1\n",
            {"labels": "B"},
            r"labels names 'B', which is no column of .*a.csv; it has 2 "
            r"columns, such as 'a', 'b'",
        ),
        ("1,1\n", {"labels": "B"}, "it has columns 0 to 1, without names"),
        ("1,1\n", {"columns": "0-2"}, "columns names 2, which is no column"),
        ("1,1\n", {"columns": "2-1"}, "columns names 2, which is no column"),
        ("1,1\n", {"columns": "1-0"}, "columns names nothing"),
        ("1,1\n", {"columns": [0, 0]}, "columns names column 0 twice"),
        ("1,1\n", {"columns": []}, "columns names nothing"),
        ("1,1\n", {"index": 2}, "index names 2, which is no column"),
        ("a,a\n1,1\n", {"columns": "a"}, "columns names 'a', and .*a.csv has 2 such columns"),
        ("a\nx\ny\n", {"labels": "a"}, "has no column of spins beside labels and index"),
        ("a,b\n1\n", {}, "is ragged: its header has 2 columns, the line below has 1"),
        ("a,b\n1,0\n1,0,1\n", {}, "is ragged: line 3 has 3 columns, line 2 has 2"),
        ("a\n", {}, "is empty: it has no line of values"),
        (b"1,\xff\n", {}, "is not a text file of a table: .*; expected UTF-8, or UTF-16 with"),
        (b"\xff\xfe1", {}, "is not a text file of a table"),
    ],
)
def test_what_is_no_table_of_spins_is_refused_by_place(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text, **options)


def test_what_makes_a_table_doubtful_is_said():
    with pytest.warns(
        UserWarning, match="looks transposed: it has 2 rows, the samples, and 21 col"
    ):
        datasets.read(np.ones((2, 21)))
    with pytest.warns(
        UserWarning, match="spin 1, counted from 0, has no value in any sample, nor "
    ):
        datasets.read([[1, None, None], [0, None, None]])
    assert datasets.doubts(np.ones((2, 20))) == []


def test_files_of_weka(tmp_path):
    path = tmp_path / "a.arff"
    path.write_text(
        "% a comment\n@RELATION 'two words'\n@ATTRIBUTE 'fever today' {yes, no}\n"
        '@attribute "b" numeric\n@attribute class {sick,well}\n\n@data\n% more\nyes, 1, sick\n'
        "?, 0, well\n'no', ?, well\n"
    )
    table = datasets.read(path, labels="class")
    np.testing.assert_array_equal(table.spins, [[1, 1], [0, -1], [-1, 0]])
    assert table.names == ("fever today", "b") and table.classes == ("sick", "well")
    for text, message in (
        ("@attribute a\n@data\n1\n", "an attribute without name or type at line 1"),
        ("a,b\n1,0\n", "has 'a,b' at line 1; expected @relation, @attribute or @data"),
        ("@attribute a numeric\n", "it has no line @data"),
        ("@attribute a real\n@data\n1\n{0 1}\n", "has sparse data at line 4"),
        ("@attribute a real\n@data\n1\n\n7\n", "the value 7 at line 5, column 'a'"),
        ("@attribute a real\n@data\n", "is empty"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            datasets.read(path)
