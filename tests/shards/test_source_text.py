"""Rows of text files: exact, whatever lies in them and wherever a part begins."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import DataError
from curate.shards.tables import text_records, text_types, url_table

TEXT = ("url", "text")
FIELD = st.text(st.sampled_from('ab",\n\r\tü\0'), max_size=6)


def columns(path: Path, per: int = 3, **options: Any) -> list[dict[str, Any]]:
    """All rows of a file, read part by part."""
    counted = url_table.count(str(path), per, text=TEXT, **options)
    parts = [json.loads(json.dumps(part)) for part in counted.parts(per)]
    tables = [url_table.read(str(path), part, TEXT) for part in parts]
    assert len({str(table.schema) for table in tables}) <= 1
    assert [part["stop"] - part["start"] for part in parts[:-1]] == [per] * (len(parts) - 1)
    assert sum(table.num_rows for table in tables) == counted.rows
    return [row for table in tables for row in table.to_pylist()]


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(FIELD, FIELD), max_size=12),
    per=st.integers(1, 5),
    block=st.integers(1, 40),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], per: int, block: int, ending: str
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator=ending).writerows([("url", "text"), *rows])
    path = write(tmp_path_factory.mktemp("csv"), "a.csv", file.getvalue())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_records, "_BLOCK", block)
        assert columns(path, per) == [{"url": url, "text": text} for url, text in rows]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["url", "text", "x{"]), FIELD, min_size=1), max_size=9),
    per=st.integers(1, 5),
    block=st.integers(1, 40),
    form=st.sampled_from(["lines", "array", "indented"]),
)
def test_json_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], per: int, block: int, form: str
) -> None:
    data = json.dumps(rows, indent=1 if form == "indented" else None, ensure_ascii=False)
    if form == "lines":
        data = "".join(f"{json.dumps(row)}\r\n\n" for row in rows)
    path = write(tmp_path_factory.mktemp("json"), "a.json", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_records, "_BLOCK", block)
        found = columns(path, per)
    assert [{k: v for k, v in row.items() if v is not None} for row in found] == rows


@settings(max_examples=150, deadline=None)
@given(
    data=st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"\t", b"a", b"{", b"}", b"[", b":", b"\xff", b"\0"])),
    name=st.sampled_from(["a.csv", "a.tsv", "a.txt", "a.jsonl"]),
    per=st.integers(1, 4),
    block=st.integers(1, 9),
)
def test_any_bytes_are_rows_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes], name: str, per: int, block: int
) -> None:
    path = write(tmp_path_factory.mktemp("any"), name, b'{"url": 1}\n' * (name == "a.jsonl") + b"".join(data))
    outcomes: list[Any] = []
    for size, rows in ((1 << 20, 1000), (block, per)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text_records, "_BLOCK", size)
            try:
                outcomes.append(columns(path, rows, columns=TEXT if name in ("a.csv", "a.tsv") else None))
            except DataError as error:
                outcomes.append(str(path) in str(error))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] is not False


def test_bad_rows_are_rows_and_never_shift_the_others(tmp_path: Path) -> None:
    nothing = {"url": None, "text": None}
    good = [{"url": "u1", "text": "one"}, {"url": "u9", "text": "nine"}]
    bad = ["u2", "u3,x,y", 'u4,"quoted"garbage', "u5,\xff"]
    data = "\n".join(["url,text", "u1,one", *bad, "u9,nine"]).encode("latin-1")
    assert columns(write(tmp_path, "a.csv", data)) == [good[0], *[nothing] * 4, good[1]]
    bad = ["u2", "u3\tx\ty", "u5\t\xff"]
    data = "\r\n".join(["url\ttext", "u1\tone", *bad, "", "u9\tnine"]).encode("latin-1")
    assert columns(write(tmp_path, "a.tsv", data)) == [good[0], *[nothing] * 3, good[1]]
    bad = ["{", "[1]", "7", '{"url": 5, "text": ["x"]}', '{"url": "\\ud800"}', "[" * 100_000]
    lines = [json.dumps(good[0]), *bad, json.dumps(good[1])]
    number = {"url": "5", "text": None}
    assert columns(write(tmp_path, "a.jsonl", "\n".join(lines))) == [
        good[0], nothing, nothing, nothing, number, nothing, nothing, good[1],
    ]  # fmt: skip


def test_an_unbalanced_quote_takes_one_row_with_it_or_is_an_error(tmp_path: Path) -> None:
    rows = ["url,text", "u1,one", 'u2,"two', 'u3,"three"', "u4,four"]
    found = columns(write(tmp_path, "a.csv", "\n".join(rows)))
    assert [row["url"] for row in found] == ["u1", None, "u4"]
    path = write(tmp_path, "b.csv", "\n".join(["url,text", "u1,one", 'u2,"two', "u3,three"]))
    with pytest.raises(DataError, match=r"b\.csv: row 2 opens a quote that is never closed"):
        columns(path)
    path = write(tmp_path, "c.csv", "\n".join(["url,text", 'u1,"one', *["u,text"] * 300_000, 'u,"x"']))
    with pytest.raises(DataError, match="row 1 has a quoted field that goes on for more than 1 MiB"):
        columns(path)


def test_damaged_files_are_one_clear_error(tmp_path: Path) -> None:
    def error(name: str, data: bytes, match: str) -> None:
        path = write(tmp_path, name, data)
        with pytest.raises(DataError, match=f"{name}: .*{match}"):
            columns(path)

    long = b"x" * (text_records.MAX_ROW + 1)
    error("long.txt", b"http://a/1\n" + long, "row 1 is longer than 16 MiB")
    error("long.tsv", b"url\ttext\nu\tt\n" + long + b"\nu\tt\n", "row 2 is longer than 16 MiB")
    error("wide.csv", "url,text\nu,t\n".encode("utf-16"), "is UTF-16")
    error("twice.csv", b"url,url\nu,t\n", "several columns named 'url'")
    error("cut.json", b'[{"url": "u"}, {"url": "v', "object 1 of the array is cut off")
    error("pretty.json", b'{\n"url": "u"\n}', "first row is no JSON object")
    error("head.csv", b'ur"l,\xff\nu,t\n', "header line is no UTF-8 text")
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(b"url,text\n" + bytes(range(256)) * 50)[:-40])
    with pytest.raises(DataError, match=r"torn\.csv\.gz: cannot be unpacked"):
        columns(tmp_path / "torn.csv.gz")
    (tmp_path / "no.csv.gz").write_bytes(b"url,text\nu,t\n")
    with pytest.raises(DataError, match=r"no\.csv\.gz: cannot be unpacked"):
        columns(tmp_path / "no.csv.gz")


def test_marks_endings_and_empty_lines(tmp_path: Path) -> None:
    rows = [{"url": "u1", "text": "a"}, {"url": "u2", "text": ""}, {"url": "u3", "text": "c\0d"}]
    for name, mark in (("a.csv", ","), ("a.tsv", "\t")):
        lines = [f"url{mark}text", "", f"u1{mark}a", f"u2{mark}", "", "", f"u3{mark}c\0d"]
        for ending in ("\n", "\r\n"):
            assert columns(write(tmp_path, name, "\ufeff" + ending.join(lines))) == rows
            assert columns(write(tmp_path, name, ending.join([*lines, "", ""])), per=1) == rows


def test_txt_is_lines_and_nothing_else(tmp_path: Path) -> None:
    urls = ["http://a/1,2", '"http://a/2', "http://a/3\tx", "http://a/4 5"]
    data = f"{urls[0]}\n\n{urls[1]}\r\n   \n  {urls[2]} \n{urls[3]}"
    assert columns(write(tmp_path, "a.txt", data), per=2) == [{"url": url} for url in urls]
    assert columns(write(tmp_path, "a.txt.gz", data), per=3) == [{"url": url} for url in urls]


def test_a_part_reads_only_its_bytes(tmp_path: Path) -> None:
    lines = [f"http://a/{i:04d},caption {i}" for i in range(100)]
    path = write(tmp_path, "a.csv", "\n".join(["url,text", *lines]))
    parts = list(url_table.count(str(path), 10, text=TEXT).parts(10))
    data = bytearray(path.read_bytes())
    first, last = parts[4]["span"]
    data[:first], data[last:] = b"\xff" * first, b"\xff" * (len(data) - last)
    path.write_bytes(data)
    assert url_table.read(str(path), parts[4], TEXT)["url"].to_pylist() == [f"http://a/{i:04d}" for i in range(40, 50)]
    path.write_bytes(data[: first + 20])
    with pytest.raises(DataError, match="replaced"):
        url_table.read(str(path), parts[4], TEXT)


def typed(rows: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Type and values of a column, found from text and from JSON."""
    texts = [None if row is None else str(row) for row in rows]
    found = [(text_types.of_texts(texts), text_types.from_texts), (text_types.of_values(rows), text_types.from_values)]
    return [(kind, make(values, kind).to_pylist()) for (kind, make), values in zip(found, (texts, rows), strict=True)]


def test_types_are_those_of_the_whole_file(tmp_path: Path) -> None:
    lines = ["url,text,score,id,flag,mixed", "u,2024-01-01,1,007,true,1", "u,1,,8,False,x", "u,x,2.5,9,,"]
    found = columns(write(tmp_path, "a.csv", "\n".join(lines)), per=1)
    assert [row["score"] for row in found] == [1.0, None, 2.5]
    assert [row["id"] for row in found] == ["007", "8", "9"]
    assert [row["flag"] for row in found] == [True, False, None]
    assert [row["mixed"] for row in found] == ["1", "x", ""]
    assert [row["text"] for row in found] == ["2024-01-01", "1", "x"]
    rows = [
        {"url": "u", "n": 1, "boxes": [[1, 2, 3, 4]], "mixed": {"a": 1}, "late": None},
        {"url": "u", "n": 0.5, "boxes": [], "mixed": "text"},
        {"url": "u", "boxes": [[0.5]], "mixed": 10**30, "late": "x"},
    ]
    found = columns(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))), per=1)
    assert [row["n"] for row in found] == [1.0, 0.5, None]
    assert [row["boxes"] for row in found] == [[[1.0, 2.0, 3.0, 4.0]], [], [[0.5]]]
    assert [row["mixed"] for row in found] == ['{"a": 1}', '"text"', str(10**30)]
    assert [row["late"] for row in found] == [None, None, "x"]


@given(st.lists(st.none() | st.integers(-(10**18) + 1, 10**18 - 1)))
def test_whole_numbers_stay_whole(rows: list[int | None]) -> None:
    assert typed(rows) == [("int64" if any(r is not None for r in rows) else "null", rows)] * 2


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_fractions_stay_as_they_are(rows: list[float]) -> None:
    for kind, values in typed(rows):
        assert (kind, values) == ("double", rows) or (kind == "string" and [float(v) for v in values] == rows)


def test_numbers_that_would_lose_something_stay_text() -> None:
    for rows in (["007"], ["12345678901234567890"], ["1", "x"], ["2024-01-01"], ["1_000"], [" 1"]):
        assert text_types.of_texts(rows) == "string"
        assert text_types.from_texts(rows, "string").to_pylist() == rows
