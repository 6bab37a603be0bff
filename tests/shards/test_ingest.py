import hashlib
import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from curate.errors import ConfigError, DataError
from curate.shards import row_table
from curate.shards.images.image import ImageOptions, decode_rgb
from curate.shards.ingest import Copies, ingest_rows, journal_path, settle_rows
from curate.shards.journal import Journal
from curate.shards.shard import Shard, succeeded
from curate.shards.sources.base import Ingested, IngestOptions, Slot, labelled
from curate.shards.uid import stable_uid
from curate.shards.web.fetch import FetchOptions

OPTIONS = IngestOptions(
    image=ImageOptions(size=64), fetch=FetchOptions(backoff=0.01, timeout=5.0), samples_per_shard=10_000
)


def jpeg(number: int, size: tuple[int, int] = (120, 90)) -> bytes:
    pixels = np.full((size[1], size[0], 3), (number * 37 % 256, number * 91 % 256, number * 11 % 256), np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


CAPTIONS = [
    "a cat",
    None,
    "zwei\nZeilen",
    'quote " and \\ back',
    "nul \0 emoji 🐈",
    "gone",
    "broken",
    "no image",
    "a cat",
]


@pytest.fixture
def rows(web, respond) -> pa.Table:
    """Nine rows: five images, a dead link, a truncated image, a page, and the first image's URL again."""
    for i in range(5):
        web[f"/{i}.jpg"] = respond(200, jpeg(i))
    web["/6.jpg"] = respond(200, jpeg(6)[:-50])
    web["/7.jpg"] = respond(200, b"<html>Not found</html>")
    urls = [f"http://a.example/{i}.jpg" for i in (*range(8), 0)]
    return pa.table(
        {
            "uid": [stable_uid(str(i)) for i in range(9)],
            "url": urls,
            "caption": CAPTIONS,
            "similarity": pa.array([0.5, None, float("nan"), 1, 2, 3, 4, 5, 6], pa.float64()),
            "boxes": pa.array([[[0.0, 0.5]], [], None, *[[[1.0]]] * 6], pa.list_(pa.list_(pa.float64()))),
        }
    )


def slot(web: Any, out: str, number: int = 3, **more: Any) -> Slot:
    return Slot(number, f"{number:08d}", out, connect_to=web.hosts("a.example"), **more)


def run(rows: pa.Table, web: Any, out: str, number: int = 3, options: IngestOptions = OPTIONS, **more: Any) -> Ingested:
    return ingest_rows(rows, slot(web, out, number, **more), options)


STATUS = ["success"] * 5 + ["failed_to_download", "failed_to_resize", "failed_to_resize", "success"]
MESSAGES = [None] * 5 + ["http_404", "truncated: JPEG data", "not_image: html", None]


def test_a_shard_end_to_end(web, rows: pa.Table, tmp_path: Path) -> None:
    done = run(rows, web, str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000003.parquet", "00000003.tar", "00000003_stats.json"]
    assert done.shard == Shard("00000003", f"{tmp_path}/00000003.tar", f"{tmp_path}/00000003.parquet")

    table = done.shard.read_table()
    assert table.column_names == ["uid", "similarity", "boxes", *row_table.OUTCOME]
    assert [table.schema.field(name).type for name in row_table.OUTCOME] == list(row_table.OUTCOME.values())
    assert table["uid"].to_pylist() == rows["uid"].to_pylist()
    assert table["url"].to_pylist() == rows["url"].to_pylist()
    assert table["caption"].to_pylist() == CAPTIONS
    assert table["status"].to_pylist() == STATUS
    assert table["error_message"].to_pylist() == MESSAGES
    assert table["key"].to_pylist() == [f"{3 * 10_000 + row:012d}" for row in range(9)]
    good = succeeded(table)
    sizes = {"width": 64, "height": 48, "original_width": 120, "original_height": 90}
    for column, value in sizes.items():
        assert table[column].to_pylist() == [value if ok else None for ok in good]
    hashes = [hashlib.sha256(jpeg(i)).hexdigest() if ok else None for i, ok in zip([*range(8), 0], good, strict=True)]
    assert table["sha256"].to_pylist() == hashes

    tar = done.shard.open().require_whole()
    assert tar.keys == [key for key, ok in zip(table["key"].to_pylist(), good, strict=True) if ok]
    for row, key in enumerate(table["key"].to_pylist()):
        if not good[row]:
            continue
        assert list(tar.extensions(key)) == ["jpg", "json", "txt"]
        assert (tar.read(key, "txt") or b"").decode() == (CAPTIONS[row] or "")
        assert decode_rgb(tar.read(key, "jpg") or b"").shape == (48, 64, 3)
        fields = json.loads(tar.read(key, "json") or b"")
        assert list(fields) == table.column_names
        assert list(fields)[-1] == "sha256"
        assert fields["caption"] == CAPTIONS[row]
        assert fields["similarity"] == (0.5, None, None, 1, 2, 3, 4, 5, 6)[row]
        assert fields["boxes"] == table["boxes"][row].as_py()

    stats = json.loads((tmp_path / "00000003_stats.json").read_text())
    expected = {"success": 6, "http_404": 1, "truncated": 1, "not_image": 1}
    assert stats["status_dict"] == expected
    assert (stats["count"], stats["successes"]) == (9, 6)
    assert (stats["failed_to_download"], stats["failed_to_resize"]) == (1, 2)
    assert {"duration", "start_time", "end_time"} < set(stats)
    stored = sum(len(tar.read(key, "jpg") or b"") for key in tar.keys)
    assert done.stats == {"rows": 9, "successes": 6, "bytes": stored, "animated": 0, "status": expected}
    assert web.hits["/0.jpg"] == 1


def test_webdataset_reads_the_shard(web, rows: pa.Table, tmp_path: Path) -> None:
    done = run(rows, web, str(tmp_path))
    samples = list(webdataset.WebDataset(done.shard.tar, shardshuffle=False).decode("pil", only=["jpg", "json"]))
    assert len(samples) == 6
    assert samples[0]["jpg"].size == (64, 48)
    assert samples[0]["json"]["key"] == samples[0]["__key__"]


def test_the_same_answers_give_the_same_bytes_in_any_order_of_arrival(web, rows: pa.Table, tmp_path: Path) -> None:
    digests = []
    for attempt in range(3):
        rng = random.Random(attempt)
        for path, route in list(web.routes.items()):
            delay = rng.random() * 0.1
            web.routes[path] = lambda seen, r=route, d=delay: [d, *r(seen)]
        out = tmp_path / str(attempt)
        run(rows, web, str(out))
        files = [out / "00000003.tar", out / "00000003.parquet"]
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1] == digests[2]


def test_object_stores_are_written_to(web, rows: pa.Table, tmp_path: Path) -> None:
    fsspec.filesystem("memory").store.clear()
    remote = run(rows, web, "memory://bucket/pool")
    local = run(rows, web, str(tmp_path))
    assert remote.shard.tar == "memory://bucket/pool/00000003.tar"
    tables = [done.shard.read_table().drop_columns("similarity") for done in (remote, local)]  # it holds a NaN
    assert tables[0].equals(tables[1])
    assert remote.shard.open().keys == local.shard.open().keys


def test_a_failure_publishes_nothing(web, rows: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(rows, web, str(tmp_path), progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_rows(web, rows: pa.Table, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    run(rows, web, str(tmp_path), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 9) for i in range(1, 10)]


def test_rows_of_nothing_but_failures_are_still_rows(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "uid": ["0" * 32] * 3,
            "url": [None, "http://127.0.0.1/x", "file:///etc/passwd"],
            "caption": pa.nulls(3, pa.string()),
        }
    )
    done = ingest_rows(rows, Slot(0, "00000000", str(tmp_path)), OPTIONS)
    assert done.stats["status"] == {"address_denied": 1, "bad_url": 1, "scheme_denied": 1}
    assert len(done.shard.open().require_whole()) == 0
    assert done.shard.rows() == 3


@pytest.mark.parametrize("encode", ["png", "webp"])
def test_members_are_named_for_their_format(web, respond, encode: Any, tmp_path: Path) -> None:
    web["/x"] = respond(200, jpeg(1))
    rows = pa.table({"uid": ["0" * 32], "url": ["http://a.example/x"], "caption": ["c"]})
    options = OPTIONS.model_copy(update={"image": ImageOptions(encode=encode)})
    tar = run(rows, web, str(tmp_path), options=options).shard.open()
    assert sorted(tar.extensions(tar.keys[0])) == sorted([encode, "json", "txt"])


# --- going on after a kill, and images of other shards


def settle_some(web: Any, rows: pa.Table, out: Path, scratch: Path, count: int) -> None:
    """Ingest until `count` rows are settled, then die as a killed worker does: without a word."""

    class Killed(BaseException):
        pass

    def stop(done: int, total: int) -> None:
        if done == count:
            raise Killed

    with pytest.raises(Killed):
        run(rows, web, str(out), scratch=str(scratch), progress=stop)


def test_a_killed_shard_goes_on_and_fetches_nothing_twice(web, rows: pa.Table, tmp_path: Path) -> None:
    whole = run(rows, web, str(tmp_path / "whole"))
    web.seen.clear()
    for count in (1, 3, 6):
        settle_some(web, rows, tmp_path / "out", tmp_path / "scratch", count)
        with Journal(journal_path(str(tmp_path / "scratch"), 3)) as journal:
            settled = {rows["url"][row].as_py() for row in range(9) if row in journal}
        assert len(settled) >= count - 1  # the first URL stands in two rows
        for url in settled:
            web.routes.pop("/" + url.rsplit("/", 1)[-1], None)  # whoever asks again gets an error
    done = run(rows, web, str(tmp_path / "out"), scratch=str(tmp_path / "scratch"))
    assert done.stats == whole.stats
    for name in ("00000003.tar", "00000003.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_failures_of_the_connection_are_asked_again_after_a_kill(web, respond, tmp_path: Path) -> None:
    web["/1.jpg"] = respond(200, jpeg(1))
    rows = pa.table(
        {
            "uid": ["0" * 32, "1" * 32],
            "url": ["http://dead.example/0.jpg", "http://a.example/1.jpg"],
            "caption": ["", ""],
        }
    )
    options = OPTIONS.model_copy(update={"fetch": FetchOptions(retries=0, timeout=5)})
    nobody = {"dead.example:80": "127.0.0.1:1"}
    broken = Slot(0, "00000000", str(tmp_path), str(tmp_path / "s"), connect_to=nobody | web.hosts("a.example"))

    def untrustworthy() -> None:
        raise DataError("the server went away")

    with pytest.raises(DataError):
        ingest_rows(rows, broken, options, check=untrustworthy)
    web["/0.jpg"] = respond(200, jpeg(0))
    web.seen.clear()
    healed = Slot(0, "00000000", str(tmp_path), str(tmp_path / "s"), connect_to=web.hosts("a.example", "dead.example"))
    assert ingest_rows(rows, healed, options).stats["successes"] == 2
    assert web.hits == {"/0.jpg": 1}


@pytest.mark.parametrize("finished", [True, False])
def test_copies_take_the_image_of_another_shard(web, rows: pa.Table, tmp_path: Path, finished: bool) -> None:
    scratch = str(tmp_path / "scratch")
    first = slot(web, str(tmp_path), 1, scratch=scratch)
    given: dict[str, Any] = {}
    if finished:
        given["shards"] = {1: ingest_rows(rows, first, OPTIONS).shard}
    else:
        settle_rows(rows, first, OPTIONS)
        given["journals"] = {1: journal_path(scratch, 1)}
    web.seen.clear()
    later = pa.table(
        {
            "uid": [stable_uid(f"later {i}") for i in range(3)],
            "url": [f"http://a.example/{i}.jpg" for i in (2, 6, 4)],
            "caption": ["two", "six", "four"],
        }
    )
    copies = Copies(np.array([0, 1]), np.array([1, 1]), np.array([2, 6]), **given)
    done = ingest_rows(later, slot(web, str(tmp_path / "later"), 2), OPTIONS, copies=copies)
    assert web.hits == {"/4.jpg": 1}
    table = done.shard.read_table()
    assert table["error_message"].to_pylist() == [None, "truncated: JPEG data", None]
    assert table["sha256"].to_pylist()[0] == hashlib.sha256(jpeg(2)).hexdigest()
    tar = done.shard.open()
    assert (tar.read("000000020000", "txt"), tar.read("000000020002", "txt")) == (b"two", b"four")
    assert (decode_rgb(tar.read("000000020000", "jpg") or b"") == decode_rgb(_stored(jpeg(2)))).all()


def _stored(body: bytes) -> bytes:
    from curate.shards.images.image import process

    return process(body, OPTIONS.image).data


def test_the_source_is_kept_where_a_pool_has_several(web, rows: pa.Table, tmp_path: Path) -> None:
    named = slot(web, str(tmp_path), label="cats")
    done = ingest_rows(labelled(rows, named), named, OPTIONS)
    assert done.shard.column_names() == ["uid", "similarity", "boxes", "source", *row_table.OUTCOME]
    assert set(done.shard.read_table(["source"])["source"].to_pylist()) == {"cats"}
    with pytest.raises(ConfigError, match="of its own"):
        labelled(labelled(rows, named), named)


# --- keys, messages and JSON


@pytest.mark.parametrize(
    ("shard", "row", "per_shard", "key"),
    [
        (1, 3, 10_000, "000000010003"),
        (1, 3, 500, "00000001003"),
        (0, 0, 10_001, "0000000000000"),
        (7, 99, 100, "0000000799"),
        (7, 0, 1, "00000007"),
    ],
)
def test_keys_follow_img2dataset(shard: int, row: int, per_shard: int, key: str) -> None:
    assert row_table.sample_key(shard, row, per_shard) == key


@given(st.text(max_size=400))
def test_messages_are_one_short_line(detail: str) -> None:
    text = row_table.message("tls", detail)
    assert text.isprintable()
    assert len(text) < 260
    assert row_table.reason(text) == "tls"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), JSON, min_size=1, max_size=6))
def test_sample_json_is_json_with_indent_4(row: dict[str, Any]) -> None:
    assert row_table.sample_json(row).decode() == json.dumps(row, indent=4)


def test_sample_json_is_strict() -> None:
    import datetime
    import decimal

    row = {
        "nan": float("nan"),
        "nested": [float("inf"), {"a": float("-inf")}],
        "when": datetime.datetime(2024, 1, 2, 3, 4, 5),
        "bytes": b"\x00\xff",
        "money": decimal.Decimal("1.50"),
    }
    expected = {
        "nan": None,
        "nested": [None, {"a": None}],
        "when": "2024-01-02T03:04:05",
        "bytes": "AP8=",
        "money": "1.50",
    }
    assert json.loads(row_table.sample_json(row)) == expected


def test_the_table_keeps_no_metadata_of_its_input(tmp_path: Path) -> None:
    outcome = {name: [None] for name in row_table.OUTCOME}
    table = row_table.build({"x": pa.array([1]), "uid": pa.array(["0" * 32])}, outcome)
    row_table.write(str(tmp_path / "t.parquet"), table.replace_schema_metadata({"pandas": "{}"}))
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert schema.metadata is None
    assert Counter(schema.names) == Counter(["uid", "x", *row_table.OUTCOME])
