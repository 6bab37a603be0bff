from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataError
from curate.shards import uid

UIDS = st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), max_size=50)


@given(UIDS)
def test_text_and_records_are_the_same_thing(texts: list[str]) -> None:
    records = uid.to_records(texts)
    assert records.dtype == uid.RECORD
    assert uid.to_text(records) == texts
    assert [(int(t[:16], 16), int(t[16:], 16)) for t in texts] == [(int(r["f0"]), int(r["f1"])) for r in records]


@given(UIDS)
def test_records_sort_like_text(texts: list[str]) -> None:
    records = uid.to_records(texts)
    assert uid.to_text(records[uid.argsort(records)]) == sorted(texts)


def test_short_and_wrong_uids() -> None:
    assert uid.to_text(uid.to_records(["1", "ABC"])) == ["0" * 31 + "1", "0" * 29 + "abc"]
    for wrong in ("", "g", "0x1", " 1", "1  1", "1" * 33, "-1"):
        with pytest.raises(DataError):
            uid.to_records([wrong])
        if wrong:
            with pytest.raises(DataError, match="somewhere"):
                uid.canonical([wrong], ["0" * 32], "somewhere")


def test_canonical_fills_what_is_missing() -> None:
    made = ["f" * 32] * 4
    assert uid.canonical(["1", None, "", "ABCDEF"], made, "x") == [
        "0" * 31 + "1",
        made[0],
        made[0],
        "0" * 26 + "abcdef",
    ]


def test_stable_uid_knows_where_fields_end() -> None:
    assert uid.stable_uid("a", "b") == uid.stable_uid("a", "b")
    assert len({uid.stable_uid(*f) for f in (("a", "b"), ("ab", ""), ("", "ab"), ("ab",), ())}) == 5
    assert uid.stable_uid("http://example.com/a.jpg", "a cat") == "51bcbe82acd53e8a6ff6524a41de1ffc"


@given(UIDS)
def test_subset_files_are_datacomps(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("subset") / "s.npy"
    records = uid.to_records(texts + texts[:3])
    uid.write_subset(str(path), records)
    raw = path.read_bytes()
    assert raw[:8] == b"\x93NUMPY\x01\x00"
    header = b"{'descr': [('f0', '<u8'), ('f1', '<u8')], 'fortran_order': False, 'shape': (%d,), }" % len(records)
    assert raw[10:128] == header.ljust(117) + b"\n"
    assert raw[128:] == b"".join(
        int(t[:16], 16).to_bytes(8, "little") + int(t[16:], 16).to_bytes(8, "little") for t in sorted(texts + texts[:3])
    )
    loaded = np.load(path)
    assert loaded.dtype == np.dtype("u8,u8")
    assert np.array_equal(uid.read_subset(str(path)), loaded)
    headerless = path.with_suffix(".raw")
    headerless.write_bytes(raw[128:])
    assert np.array_equal(uid.read_subset(str(headerless)), loaded)


NARROW = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40)


@given(NARROW, NARROW)
def test_lookup_finds_every_uid_as_often_as_it_is_there(listed: list, asked: list) -> None:
    subset = np.array(sorted(listed), uid.RECORD)
    place, count = uid.lookup(subset, np.array(asked, uid.RECORD))
    assert count.tolist() == [listed.count(record) for record in asked]
    assert place.tolist() == [sum(other < record for other in listed) for record in asked]
    assert uid.distinct(subset) == len(set(listed))
    for block in (1, 2, 7):
        assert uid.distinct(subset, block=block) == len(set(listed))


@given(NARROW, st.sampled_from([1, 3, 1 << 20]))
def test_unsorted_subsets_are_told(listed: list, block: int) -> None:
    if sorted(listed) != listed:
        with pytest.raises(DataError, match="here: the uids are not sorted"):
            uid.distinct(np.array(listed, uid.RECORD), "here", block)


def test_the_ends_of_the_range() -> None:
    top = "f" * 32
    subset = uid.to_records(["0", "0", "8" + "0" * 31, top])
    place, count = uid.lookup(subset, uid.to_records([top, "1", "0", "f" * 31 + "e", "8" + "0" * 31]))
    assert (place.tolist(), count.tolist()) == ([3, 2, 0, 3, 2], [1, 0, 2, 0, 1])
    assert uid.lookup(subset[:0], subset)[1].tolist() == [0] * 4
    assert uid.lookup(subset, subset[:0])[1].tolist() == []


def test_mapped_subsets(tmp_path: Path) -> None:
    records = uid.to_records([uid.stable_uid(str(i)) for i in range(100)])
    path = tmp_path / "s.npy"
    uid.write_subset(str(path), records)
    (tmp_path / "raw").write_bytes(path.read_bytes()[128:])
    (tmp_path / "empty").write_bytes(b"")
    for name in ("s.npy", "raw"):
        mapped = uid.map_subset(str(tmp_path / name))
        assert isinstance(mapped, np.memmap)
        assert not mapped.flags.writeable
        assert np.array_equal(mapped, uid.read_subset(str(path)))
        assert (uid.lookup(mapped, records)[1] == 1).all()
    assert len(uid.map_subset(str(tmp_path / "empty"))) == 0


def test_what_is_no_subset_file(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros(4))
    (tmp_path / "odd").write_bytes(bytes(17))
    for name in ("floats.npy", "odd"):
        with pytest.raises(DataError, match=name):
            uid.read_subset(str(tmp_path / name))
        with pytest.raises(DataError, match=name):
            uid.map_subset(str(tmp_path / name))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "floats.npy").read_bytes()[:20])
    with pytest.raises(DataError, match=r"cut\.npy"):
        uid.map_subset(str(tmp_path / "cut.npy"))


@given(st.lists(st.text("0123456789abcdefABCDEF", min_size=1, max_size=32), max_size=20), st.data())
def test_a_column_of_uids_is_read_as_text_is(short: list[str], data: st.DataObject) -> None:
    whole = [text.rjust(32, "0") for text in short]
    for texts in (short, whole):
        for kind in (pa.string(), pa.large_string()):
            cut = data.draw(st.integers(0, len(texts)))
            column = pa.chunked_array([pa.array(["x", *texts[:cut]], kind)[1:], pa.array(texts[cut:], kind)], kind)
            assert uid.column_records(column).tolist() == uid.to_records(texts).tolist()


@pytest.mark.parametrize("wrong", ["g" * 32, " " * 32, "é" * 16, "", "0" * 33, "0" * 31 + " "])
def test_a_column_with_a_bad_uid_is_refused(wrong: str) -> None:
    with pytest.raises(DataError, match="uid"):
        uid.column_records(pa.chunked_array([pa.array(["0" * 32, wrong])]))
