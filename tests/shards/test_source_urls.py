import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from curate.errors import ConfigError, DataError
from curate.shards.images.image import ImageOptions
from curate.shards.sources import IngestOptions, Slot, UrlsSource
from curate.shards.uid import stable_uid
from curate.shards.web.fetch import FetchOptions

OPTIONS = IngestOptions(image=ImageOptions(size=32), fetch=FetchOptions(backoff=0.01), samples_per_shard=4)


def image(number: int = 0, kind: str = "JPEG", size: tuple[int, int] = (60, 40)) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", size, (number * 40 % 256, 90, 30)).save(file, kind)
    return file.getvalue()


def pool(n: int = 10) -> pa.Table:
    return pa.table(
        {
            "url": [f"http://a.example/{i}" for i in range(n)],
            "text": [f"caption {i}" if i % 4 else None for i in range(n)],
            "similarity": pa.array([i / 7 for i in range(n)], pa.float32()),
        }
    )


def all_rows(source: UrlsSource, per_shard: int = 4) -> pa.Table:
    tables = [source.table(part) for part in source.parts(None, per_shard)]
    return pa.concat_tables(tables)


def write_table(path: Path, table: pa.Table) -> Path:
    """Write a pool in the format that the file's name says."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=3)
        return path
    if name.endswith(".jsonl"):
        text = "\n\n".join(json.dumps(row) for row in table.to_pylist())
    elif name.endswith(".tsv"):
        lines = [
            table.column_names,
            *(["" if v is None else str(v) for v in row.values()] for row in table.to_pylist()),
        ]
        text = "".join("\t".join(line) + "\n" for line in lines)
    else:
        file = io.BytesIO()
        pacsv.write_csv(table, file)
        text = file.getvalue().decode()
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["p.parquet", "p.csv", "p.tsv", "p.jsonl", "p.csv.gz", "p.tsv.gz", "p.jsonl.gz"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    table = pool()
    source = UrlsSource(path=str(write_table(tmp_path / name, table)))
    parts = source.parts(None, 4)
    assert [(p["start"], p["stop"]) for p in parts] == [(0, 4), (4, 8), (8, 10)]
    assert json.loads(json.dumps(parts)) == parts
    rows = all_rows(source)
    assert rows["url"].to_pylist() == table["url"].to_pylist()
    captions = [c or "" for c in rows["caption"].to_pylist()]
    assert captions == [c or "" for c in table["text"].to_pylist()]
    assert np.allclose(rows["similarity"].to_numpy(), table["similarity"].to_numpy())
    expected = [stable_uid(url, text) for url, text in zip(table["url"].to_pylist(), captions, strict=True)]
    assert rows["uid"].to_pylist() == expected


def test_csv_and_tsv_quoting(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('url,text\nhttp://a/1,"two\nlines, ""quoted"""\nhttp://a/2,2024-01-01\n')
    (tmp_path / "b.tsv").write_text('url\ttext\nhttp://a/1\t"unbalanced, quote\nhttp://a/2\t007\n')
    assert all_rows(UrlsSource(path=str(tmp_path / "a.csv")))["caption"].to_pylist() == [
        'two\nlines, "quoted"',
        "2024-01-01",
    ]
    assert all_rows(UrlsSource(path=str(tmp_path / "b.tsv")))["caption"].to_pylist() == ['"unbalanced, quote', "007"]


def test_jsonl_captions_that_look_like_something_else_stay_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"url": "http://a/1", "text": "2024-01-01", "uid": "00ff"}\n{"url": "http://a/2"}'
    )
    rows = all_rows(UrlsSource(path=str(tmp_path)))
    assert rows["caption"].to_pylist() == ["2024-01-01", None]
    assert rows["uid"].to_pylist() == ["00ff".rjust(32, "0"), stable_uid("http://a/2", "")]


def test_other_column_names_and_a_pool_without_captions(tmp_path: Path) -> None:
    table = pa.table({"URL": ["http://a/1"], "TEXT": ["t"], "HASH": ["ABC"], "punsafe": [0.1]})
    path = str(write_table(tmp_path / "laion.parquet", table))
    rows = all_rows(UrlsSource(path=path, url="URL", caption="TEXT", uid="HASH"))
    assert rows.column_names == ["uid", "url", "caption", "punsafe"]
    assert rows["uid"].to_pylist() == ["abc".rjust(32, "0")]
    rows = all_rows(UrlsSource(path=path, url="URL", caption=None, extra=[]))
    assert rows.to_pylist() == [{"uid": stable_uid("http://a/1", ""), "url": "http://a/1", "caption": None}]


def test_only_the_row_groups_that_a_part_needs_are_read(tmp_path: Path) -> None:
    """Row groups outside the part may be garbage."""
    path = tmp_path / "p.parquet"
    table = pa.table({"url": [f"http://a.example/{i:04d}" for i in range(400)], "text": ["x"] * 400})
    pq.write_table(table, path, row_group_size=100, compression="none", use_dictionary=False)
    source = UrlsSource(path=str(path))
    parts = source.parts(None, 100)
    group = pq.read_metadata(path).row_group(3).column(0)
    data = bytearray(path.read_bytes())
    start = group.data_page_offset
    data[start : start + group.total_compressed_size] = bytes(group.total_compressed_size)
    path.write_bytes(data)
    assert source.table(parts[1])["url"][0].as_py() == "http://a.example/0100"
    with pytest.raises((DataError, OSError)):
        source.table(parts[3])


def test_folders_globs_and_strays(tmp_path: Path) -> None:
    write_table(tmp_path / "b.parquet", pool(3))
    write_table(tmp_path / "a.csv", pool(2))
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "empty.jsonl").write_text("")
    parts = UrlsSource(path=str(tmp_path)).parts(None, 4)
    assert [(p["path"].rsplit("/", 1)[-1], p["stop"]) for p in parts] == [("a.csv", 2), ("b.parquet", 3)]
    parts = UrlsSource(path=str(tmp_path / "*.parquet")).parts(None, 2)
    assert [(p["start"], p["stop"]) for p in parts] == [(0, 2), (2, 3)]


def test_remote_pools(tmp_path: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pipe("/pool/p.parquet", write_table(tmp_path / "p.parquet", pool()).read_bytes())
    fs.pipe("/pool/q.csv", write_table(tmp_path / "q.csv", pool(2)).read_bytes())
    source = UrlsSource(path="memory://pool")
    assert len(source.parts(None, 4)) == 4
    urls = [url for part in source.parts(None, 4) for url in source.table(part)["url"].to_pylist()]
    assert urls == pool()["url"].to_pylist() + pool(2)["url"].to_pylist()
    assert source.fingerprint() == UrlsSource(path=str(tmp_path)).fingerprint()


def test_fingerprints_follow_the_data(tmp_path: Path) -> None:
    write_table(tmp_path / "p.parquet", pool())
    source = UrlsSource(path=str(tmp_path))
    before = source.fingerprint()
    (tmp_path / "notes.md").write_text("x")
    assert source.fingerprint() == before
    write_table(tmp_path / "q.parquet", pool(2))
    assert source.fingerprint() != before
    (tmp_path / "q.parquet").unlink()
    write_table(tmp_path / "p.parquet", pool(9))
    assert source.fingerprint() != before


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    path = write_table(tmp_path / "p.parquet", pool())

    def error(kind: type[Exception], match: str, **options: Any) -> None:
        with pytest.raises(kind, match=match):
            UrlsSource(**{"path": str(path), **options}).parts(None, 4)

    error(ConfigError, "nothing is there.*none.parquet", path=str(tmp_path / "none.parquet"))
    error(ConfigError, r"nothing is there.*\*\.csv", path=str(tmp_path / "*.csv"))
    error(ConfigError, "cannot look at nowhere://x", path="nowhere://x")
    error(ConfigError, "no column 'txt'; did you mean 'text'", caption="txt")
    error(ConfigError, "no column 'link'; it has: url, text", url="link")
    error(ConfigError, "no column 'id'", uid="id")
    error(ConfigError, "no column 'similarty'; did you mean 'similarity'", extra=["similarty"])
    write_table(tmp_path / "empty.parquet", pool(0))
    error(DataError, "pool is empty", path=str(tmp_path / "empty.parquet"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    error(DataError, r"bad\.parquet: cannot be read as parquet", path=str(tmp_path / "bad.parquet"))
    (tmp_path / "notes.md").write_text("x")
    error(ConfigError, "no .parquet, .csv, .tsv, .txt, .jsonl, .json file", path=str(tmp_path / "notes.md"))
    numbers = write_table(tmp_path / "n.parquet", pa.table({"url": [[1]], "text": ["x"]}))
    with pytest.raises(ConfigError, match="no text"):
        all_rows(UrlsSource(path=str(numbers)))
    with pytest.raises(DataError, match="replaced"):
        UrlsSource(path=str(path)).table({**UrlsSource(path=str(path)).parts(None, 4)[2], "stop": 12})
    wrong = write_table(tmp_path / "u.parquet", pool(1).append_column("uid", pa.array(["not hex"])))
    with pytest.raises(DataError, match="not hex"):
        all_rows(UrlsSource(path=str(wrong)))


def test_urls_are_ingested(web, respond, tmp_path: Path) -> None:
    for i in range(10):
        web[f"/{i}"] = respond(200, image(i)) if i != 5 else respond(404)
    source = UrlsSource(path=str(write_table(tmp_path / "p.parquet", pool())))
    part = source.parts(None, 4)[1]
    done = source.ingest(part, Slot(1, "00000001", str(tmp_path / "out"), connect_to=web.hosts("a.example")), OPTIONS)
    table = done.shard.read_table()
    assert table["key"].to_pylist() == [f"00000001{row}" for row in range(4)]
    assert table["status"].to_pylist() == ["success", "failed_to_download", "success", "success"]
    assert table["caption"].to_pylist() == pool()["text"].to_pylist()[4:8]
    assert table["similarity"].type == pa.float32()
    assert done.stats["status"] == {"http_404": 1, "success": 3}


def test_columns_with_names_of_the_pool_are_carried_under_another(tmp_path: Path) -> None:
    table = pool(2).append_column("sha256", pa.array(["x", "y"])).append_column("width", pa.array([7, 8]))
    path = str(write_table(tmp_path / "r.parquet", table))
    rows = all_rows(UrlsSource(path=path))
    assert rows.column_names == ["uid", "url", "caption", "similarity", "given_sha256", "given_width"]
    assert rows["given_width"].to_pylist() == [7, 8]
    assert all_rows(UrlsSource(path=path, extra=["width"])).column_names == ["uid", "url", "caption", "given_width"]
    both = table.append_column("given_width", pa.array([1, 2]))
    with pytest.raises(ConfigError, match="two columns for 'given_width'"):
        UrlsSource(path=str(write_table(tmp_path / "b.parquet", both))).parts(None, 4)


def test_well_known_names_are_hinted_at(tmp_path: Path) -> None:
    laion = str(write_table(tmp_path / "l.parquet", pa.table({"URL": ["u"], "TEXT": ["t"]})))
    with pytest.raises(ConfigError, match="no column 'url'; did you mean 'URL'"):
        UrlsSource(path=laion).parts(None, 4)
    with pytest.raises(ConfigError, match="no column 'text'; did you mean 'TEXT'"):
        UrlsSource(path=laion, url="URL").parts(None, 4)
    other = str(write_table(tmp_path / "o.parquet", pa.table({"image_url": ["u"], "caption": ["t"]})))
    with pytest.raises(ConfigError, match="did you mean 'image_url'"):
        UrlsSource(path=other).parts(None, 4)
    with pytest.raises(ConfigError, match="did you mean 'caption'"):
        UrlsSource(path=other, url="image_url").parts(None, 4)


def test_conceptual_captions_have_no_header(tmp_path: Path) -> None:
    (tmp_path / "cc3m.tsv").write_text('a "cat", asleep\thttp://a/1\ndog\thttp://a/2\n')
    (tmp_path / "cc12m.tsv.gz").write_bytes(gzip.compress(b"http://a/1\ta cat\n"))
    source = UrlsSource(path=str(tmp_path / "cc3m.tsv"), columns=["text", "url"])
    assert all_rows(source, 1)["caption"].to_pylist() == ['a "cat", asleep', "dog"]
    source = UrlsSource(path=str(tmp_path / "cc12m.tsv.gz"), columns=["url", "text"])
    assert all_rows(source)["url"].to_pylist() == ["http://a/1"]
    write_table(tmp_path / "p.parquet", pool(1))
    with pytest.raises(ConfigError, match=r"p\.parquet is no csv or tsv file"):
        UrlsSource(path=str(tmp_path / "p.parquet"), columns=["url", "text"]).parts(None, 4)


def test_files_of_bare_urls(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("http://a/1,2\n\nhttp://a/3\n")
    write_table(tmp_path / "b.parquet", pool(1))
    rows = all_rows(UrlsSource(path=str(tmp_path / "a.txt"), url="link"))
    assert rows.drop_columns("uid").to_pylist() == [
        {"url": "http://a/1,2", "caption": None},
        {"url": "http://a/3", "caption": None},
    ]
    assert len(UrlsSource(path=str(tmp_path)).parts(None, 4)) == 2
    with pytest.raises(ConfigError, match=r"a\.txt has nothing but URLs"):
        UrlsSource(path=str(tmp_path / "a.txt"), extra=["similarity"]).parts(None, 4)


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl.gz"])
def test_keys_stay_when_files_come(tmp_path: Path, name: str) -> None:
    def parts_by_key() -> dict[str, tuple[int, int]]:
        return {p["key"]: (p["start"], p["stop"]) for p in UrlsSource(path=str(tmp_path)).parts(None, 4)}

    write_table(tmp_path / name, pool())
    write_table(tmp_path / "z.csv", pool(3))
    before = parts_by_key()
    assert len(before) == 4
    for added in ("a.csv", "n.parquet", "zz.jsonl"):
        write_table(tmp_path / added, pool(5))
        after = parts_by_key()
        assert before.items() <= after.items()
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert {p["key"] for p in UrlsSource(path=f"file://{moved}").parts(None, 4)} == set(after)


def test_equal_files_have_different_keys(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_table(tmp_path / folder / "p.csv", pool(2))
    parts = UrlsSource(path=str(tmp_path / "*" / "p.csv")).parts(None, 4)
    assert len({p["key"] for p in parts}) == 2


def test_text_in_parquet_that_is_no_text(tmp_path: Path) -> None:
    """Parquet does not look inside its strings."""
    good, bad = b"http://a/1", b"http://a/\xff"
    texts = pa.array([b"one", b"two", b"\xfe"], pa.binary())
    table = pa.table({"url": pa.array([good, bad, good], pa.binary()), "text": texts, "x": texts})
    strings = pa.table(
        {c: pa.Array.from_buffers(pa.string(), 3, table[c].chunk(0).buffers()) for c in table.column_names}
    )
    for name, given in (("a.parquet", table), ("b.parquet", strings)):
        pq.write_table(given, tmp_path / name)
        rows = all_rows(UrlsSource(path=str(tmp_path / name)))
        assert rows["url"].to_pylist() == ["http://a/1", None, None]
        assert rows["caption"].to_pylist() == ["one", None, None]
    assert rows["x"].to_pylist() == ["one", "two", None]


def test_kinds_of_parquet_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "url": pa.array(["u", "u", None]).dictionary_encode(),
            "text": pa.array(["a", None, "c"], pa.large_string()),
            "uid": pa.array([1, None, 17], pa.int64()),
            "boxes": pa.array([[[0.5, 0.5, 1.0, 1.0]], [], None]),
        }
    )
    rows = all_rows(UrlsSource(path=str(write_table(tmp_path / "p.parquet", table))), 2)
    assert rows["url"].to_pylist() == ["u", "u", None]
    assert rows["caption"].to_pylist() == ["a", None, "c"]
    assert rows["uid"].to_pylist() == ["1".rjust(32, "0"), stable_uid("u", ""), "17".rjust(32, "0")]
    assert rows["boxes"].to_pylist() == table["boxes"].to_pylist()


def test_bad_rows_end_with_a_reason(web, respond, tmp_path: Path) -> None:
    web["/1"] = respond(200, image(1))
    lines = ["url,text", "http://a.example/1,good", "http://a.example/1,torn,row", ",no url", "ftp://a.example/1,ftp"]
    (tmp_path / "p.csv").write_text("\n".join([*lines, "http://a.example/1,last"]))
    source = UrlsSource(path=str(tmp_path / "p.csv"))
    slot = Slot(0, "00000000", str(tmp_path / "out"), connect_to=web.hosts("a.example"))
    options = OPTIONS.model_copy(update={"samples_per_shard": 10})
    done = source.ingest(source.parts(None, 10)[0], slot, options)
    assert done.stats["status"] == {"bad_url": 2, "scheme_denied": 1, "success": 2}
    assert done.shard.read_table()["caption"].to_pylist() == ["good", None, "no url", "ftp", "last"]


def test_hashes_can_be_verified(web, respond, tmp_path: Path) -> None:
    for i in range(4):
        web[f"/{i}"] = respond(200, image(i))
    hashes = [hashlib.sha256(image(0)).hexdigest().upper(), "0" * 64, None, hashlib.sha256(image(3)).hexdigest()]
    table = pool(4).append_column("sha256", pa.array(hashes))
    source = UrlsSource(path=str(write_table(tmp_path / "p.parquet", table)), verify="sha256", extra=[])
    slot = Slot(0, "00000000", str(tmp_path / "out"), connect_to=web.hosts("a.example"))
    found = source.ingest(source.parts(None, 4)[0], slot, OPTIONS).shard.read_table()
    assert found["status"].to_pylist() == ["success", "failed_to_download", "success", "success"]
    assert found["error_message"][1].as_py() == f"hash_mismatch: sha256 {hashlib.sha256(image(1)).hexdigest()}"
    assert found["given_sha256"].to_pylist() == hashes


def test_remote_files_are_read_in_place(tmp_path: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for name in ("p.csv", "p.tsv.gz", "p.jsonl", "p.parquet"):
        fs.pipe(f"/pool/{name}", write_table(tmp_path / name, pool()).read_bytes())
    here, there = UrlsSource(path=str(tmp_path)), UrlsSource(path="memory://pool/p.*")
    assert [p["key"] for p in here.parts(None, 4)] == [p["key"] for p in there.parts(None, 4)]
    for mine, theirs in zip(here.parts(None, 4), there.parts(None, 4), strict=True):
        assert here.table(mine).equals(there.table(theirs))


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request per file only for what the file is; none to ask whether it is there."""
    from fsspec.implementations.memory import MemoryFileSystem

    fs = MemoryFileSystem()
    fs.store.clear()
    data = write_table(tmp_path / "p.parquet", pool()).read_bytes()
    for i in range(20):
        fs.pipe(f"/many/{i:02d}.parquet", data)
    calls: list[str] = []

    def count_calls(name: str) -> None:
        real = getattr(MemoryFileSystem, name)

        def counted(self: Any, *args: Any, **options: Any) -> Any:
            calls.append(name)
            return real(self, *args, **options)

        monkeypatch.setattr(MemoryFileSystem, name, counted)

    for name in ("ls", "exists", "isfile", "isdir", "info", "size"):
        count_calls(name)
    UrlsSource(path="memory://many").fingerprint()
    assert len(calls) < 8, calls


def test_verified_rows_take_no_image_from_elsewhere() -> None:
    """Rows that name one URL may expect different bytes."""
    assert UrlsSource(path="p.parquet").shares()
    assert not UrlsSource(path="p.parquet", verify="sha256").shares()
