import os
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from curate.errors import ConfigError, DataError
from curate.filters.memory import MemoryContext
from curate.filters.python_filter import PythonFilter
from curate.filters.scorers.import_scores import ImportScores
from curate.filters.scorers.python_function import PythonFunction, load, read_source
from curate.shards import storage

SCORES = """
import dataclasses
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from curate.filters.scorers.python_function import vectors

@dataclasses.dataclass
class Limit:
    words: int

def words(table, factor=1):
    return np.array([factor * len((c or "").split()) for c in table["caption"].to_pylist()], np.float32)

def several(table):
    captions = table["caption"]
    return {"length": pc.utf8_length(captions), "none": pc.is_null(captions), "a": np.array(["x"] * len(captions))}

def norms(table):
    return np.linalg.norm(vectors(table, "clip.image"), axis=1)

def listed(table): return [1, None, 3][: len(table)]
def short(table): return np.zeros(len(table) + 1)
def wide(table): return np.zeros((len(table), 2))
def nothing(table): return None
def empty(table): return {}
def dates(table): return np.zeros(len(table), "datetime64[s]")
def bad(table): return {"s": np.zeros(len(table)), "t": 7}

def broken(table):
    limit = Limit(3)
    return 1 / 0

number = 7
"""


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A folder with ``my_scores.py`` that the run is started in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_scores.py").write_text(SCORES)
    return tmp_path


@pytest.fixture
def pool(make_pool):
    vectors = np.array([[3, 4], [np.nan, np.nan], [0, 1]], np.float32)
    return make_pool({"caption": ["a b", None, "ü"]}, {"clip.image": vectors}, cuts=[2])


def scored(pool, **options):
    scorer = PythonFunction(**options)
    pickle.loads(pickle.dumps(scorer))
    return pa.concat_tables(p.table for p in pool.score("s", scorer).members)


def test_a_function_beside_the_config(beside, pool):
    table = scored(pool, function="my_scores:words", columns=["caption"], options={"factor": 2})
    assert table["s"].to_pylist() == [4, 0, 2]
    assert table["s"].type == pa.float32()
    assert scored(pool, function="./my_scores.py:words", columns=["caption"])["s"].to_pylist() == [2, 0, 1]


def test_a_dictionary_makes_several_columns(beside, pool):
    table = scored(pool, function="my_scores:several", columns=["caption"])
    assert table["s"].to_pylist() == [3, None, 1]
    assert table["s_none"].to_pylist() == [False, True, False]
    assert table["s_a"].to_pylist() == ["x"] * 3


def test_embeddings_come_as_lists_of_one_length(beside, pool):
    found = scored(pool, function="my_scores:norms", columns=["caption", "clip.image"])["s"].to_numpy()
    np.testing.assert_array_equal(found, [5, np.nan, 1])


def test_a_list_needs_a_dtype(beside, make_pool):
    pool = make_pool({"caption": ["a", "b", "c"]})
    with pytest.raises(DataError, match="say `dtype`"):
        scored(pool, function="my_scores:listed", columns=["caption"])
    column = scored(pool, function="my_scores:listed", columns=["caption"], dtype="float32")["s"]
    assert column.to_pylist() == [1, None, 3]
    assert column.type == pa.float32()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", r"'my_scores:short' on part 00000000 \(2 rows\) returned 3 values; it must return a numpy"),
        ("wide", "returned 2x2 values"),
        ("nothing", "returned NoneType; it must return"),
        ("empty", "empty dictionary"),
        ("dates", "returned timestamp"),
        ("bad", "'t' returned int"),
        ("broken", r"on part 00000000 \(2 rows\) failed \(my_scores.py line 32\): ZeroDivisionError: division"),
    ],
)
def test_wrong_answers_are_told_with_function_part_and_rows(beside, pool, name, message):
    with pytest.raises(DataError, match=message):
        scored(pool, function=f"my_scores:{name}", columns=["caption"])


def test_unknown_options_of_the_function_are_its_failure(beside, pool):
    with pytest.raises(DataError, match=r"failed: TypeError: .*unexpected keyword"):
        scored(pool, function="my_scores:words", columns=["caption"], options={"facktor": 2})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("my_scores:word", "unknown function 'word'; did you mean 'words'"),
        ("my_scores:number", "'number' is no function"),
        ("my_score:words", "there is no module 'my_score'"),
        ("no.such.module:f", "there is no module"),
        ("no.py:f", "no.py does not exist"),
        ("torn:f", r"torn.py cannot be imported \(line 1\): SyntaxError"),
        ("needs:f", r"needs.py cannot be imported \(needs.py line 2\): ModuleNotFoundError"),
        ("what is this:f", "neither a module nor a .py file"),
    ],
)
def test_what_cannot_be_loaded_is_told_before_any_part(beside, pool, function, message):
    (beside / "torn.py").write_text("def f(table:\n")
    (beside / "needs.py").write_text("# first\nimport no_such_package_at_all\n")
    with pytest.raises(ConfigError, match=message):
        PythonFunction(function=function, columns=["caption"]).fit(MemoryContext().of(pool))


def test_the_option_needs_a_function():
    with pytest.raises(ValidationError, match="pattern"):
        PythonFunction(function="my_scores", columns=["caption"])


def test_an_edit_is_seen(beside, pool):
    scorer = PythonFunction(function="my_scores:words", columns=["caption"])
    before, facts = storage.identity(scorer.files()[0]), scorer.describe(scorer.fit(MemoryContext().of(pool)))
    assert scored(pool, function="my_scores:words", columns=["caption"])["s"].to_pylist() == [2, 0, 1]
    (beside / "my_scores.py").write_text(SCORES.replace("factor *", "-factor *"))
    assert storage.identity(scorer.files()[0]) != before
    assert scorer.describe(scorer.fit(MemoryContext().of(pool)))["sha256"] != facts["sha256"]
    assert scored(pool, function="my_scores:words", columns=["caption"])["s"].to_pylist() == [-2, 0, -1]


def test_other_files_may_count_too(beside):
    (beside / "words.txt").write_text("x")
    scorer = PythonFunction(function="my_scores:words", columns=["caption"], depends=["words.txt"])
    assert scorer.files() == [str(beside / "my_scores.py"), "words.txt"]
    with pytest.raises(ConfigError, match=r"no\.txt does not exist"):
        PythonFunction(function="my_scores:words", columns=["caption"], depends=["no.txt"]).files()


def test_modules_of_packages_and_modules_beside_the_file(beside, pool):
    (beside / "mine").mkdir()
    (beside / "mine" / "__init__.py").write_text("")
    (beside / "mine" / "low.py").write_text("factor = 3\n")
    (beside / "mine" / "high.py").write_text(
        "import numpy as np\nfrom .low import factor\ndef f(table): return np.full(len(table), factor)\n"
    )
    assert scored(pool, function="mine.high:f", columns=["caption"])["s"].to_pylist() == [3, 3, 3]
    (beside / "neighbour_of_scores.py").write_text("factor = 4\n")
    (beside / "alone.py").write_text(
        "import numpy as np\nimport neighbour_of_scores as n\ndef f(table): return np.full(len(table), n.factor)\n"
    )
    assert scored(pool, function="alone:f", columns=["caption"])["s"].to_pylist() == [4, 4, 4]


def test_a_worker_elsewhere_gets_the_source_along(beside, tmp_path_factory):
    """Another process, started in another folder, without the file."""
    source = pickle.dumps(read_source("my_scores:words"))
    assert load(pickle.loads(source))(pa.table({"caption": ["a b c"]})).tolist() == [3]
    (beside / "my_scores.py").unlink()
    program = (
        "import pickle, sys, pyarrow as pa; from curate.filters.scorers.python_function import load;"
        "print(load(pickle.load(sys.stdin.buffer))(pa.table({'caption': ['a b c']})).tolist())"
    )
    folder = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run([sys.executable, "-c", program], input=source, cwd=folder, capture_output=True, check=False)
    assert done.stdout.decode().strip() == "[3.0]", done.stderr.decode()
    assert os.getcwd() == str(beside)


def test_options_can_be_read_again_from_what_is_written_down():
    for cls, more in ((PythonFunction, {}), (PythonFilter, {}), (ImportScores, {"path": "x.parquet"})):
        named = {"function": "m:f"} if cls is not ImportScores else {}
        option = cls.model_validate({**named, **more, "columns": ["a"]})
        written = option.model_dump(mode="json")
        assert written["columns"] == ["a"]
        assert cls.model_validate(written) == option
