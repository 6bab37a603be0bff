from pathlib import Path

import numpy as np
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


def test_what_is_no_subset_file(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros(4))
    (tmp_path / "odd").write_bytes(bytes(17))
    for name in ("floats.npy", "odd"):
        with pytest.raises(DataError, match=name):
            uid.read_subset(str(tmp_path / name))
