"""The journal of a shard in the making: what was appended is there again, whatever tore its end."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.shards.journal import Journal, Settled

FACTS = st.tuples(
    *[st.none() | st.integers(0, 2**31 - 1)] * 4, st.none() | st.text(max_size=30), st.none() | st.text(max_size=64)
)
SETTLED = st.builds(
    Settled,
    status=st.sampled_from(["success", "failed_to_download"]),
    message=st.none() | st.text(max_size=40),
    facts=FACTS,
    extension=st.sampled_from(["", "jpg", "webp"]),
    data=st.binary(max_size=300),
    passing=st.just(False),
)


@given(st.dictionaries(st.integers(0, 10_000), SETTLED, max_size=12))
def test_what_is_appended_is_there_again(tmp_path_factory, rows: dict[int, Settled]) -> None:
    path = str(tmp_path_factory.mktemp("journal") / "0.journal")
    with Journal(path) as journal:
        for row, settled in rows.items():
            journal.append(row, settled)
        assert all(journal.read(row) == settled for row, settled in rows.items())
    with Journal(path) as again:
        assert len(again) == len(rows)
        assert all(again.read(row) == settled for row, settled in rows.items())


def record(row: int, passing: bool = False) -> Settled:
    return Settled("success", None, (1, 2, 3, 4, "{}", "ab"), "jpg", bytes([row]) * 200, passing)


def test_a_torn_end_costs_only_the_last_row(tmp_path: Path) -> None:
    path = str(tmp_path / "0.journal")
    with Journal(path) as journal:
        sizes = []
        for row in range(5):
            journal.append(row, record(row))
            sizes.append(os.path.getsize(path))
    whole = Path(path).read_bytes()
    for size in range(sizes[2], len(whole)):
        Path(path).write_bytes(whole[:size])
        with Journal(path) as torn:
            known = [row for row in range(5) if row in torn]
            assert known == list(range(3 if size < sizes[3] else 4))
            torn.append(4, record(9))  # and it can be written on
            assert torn.read(4) == record(9)
        with Journal(path) as again:
            assert [row for row in range(5) if row in again] == [*known, 4]


@pytest.mark.parametrize("at", [0, 20, 60, -5])
def test_a_damaged_record_ends_the_journal(tmp_path: Path, at: int) -> None:
    path = tmp_path / "0.journal"
    with Journal(str(path)) as journal:
        journal.append(0, record(0))
        size = path.stat().st_size
        journal.append(1, record(1))
    data = bytearray(path.read_bytes())
    data[size + at if at >= 0 else at] ^= 0xFF
    path.write_bytes(data)
    with Journal(str(path)) as damaged:
        assert 0 in damaged
        assert 1 not in damaged


def test_passing_failures_count_only_once_it_is_sealed(tmp_path: Path) -> None:
    path = str(tmp_path / "0.journal")
    with Journal(path) as journal:
        journal.append(0, record(0))
        journal.append(1, record(1, passing=True))
        assert 1 in journal
    with Journal(path) as killed:
        assert 1 not in killed
        assert not killed.sealed
        killed.append(1, record(2))
        killed.append(3, record(3, passing=True))
        killed.seal()
    with Journal(path) as sealed:
        assert sealed.sealed
        assert sealed.read(1) == record(2)  # the later, final one
        assert sealed.read(3) == record(3, passing=True)


def test_two_writers_find_their_own_records(tmp_path: Path) -> None:
    path = str(tmp_path / "0.journal")
    with Journal(path) as late, Journal(path) as successor:
        for row in range(20):
            late.append(row, record(row))
            successor.append(row, record(row + 100))
        assert all(late.read(row) == record(row) for row in range(20))
        assert all(successor.read(row) == record(row + 100) for row in range(20))
    with Journal(path) as again:
        assert [again.read(row) for row in range(20)] == [record(row) for row in range(20)]
