import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from curate.errors import ConfigError, DataError
from curate.shards.fetch import FetchOptions
from curate.shards.image import ImageOptions
from curate.shards.sources import SOURCES, IngestOptions, ShardsSource, UrlsSource
from curate.shards.tar import TarWriter
from curate.shards.uid import stable_uid

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
    tables = [source.rows(part) for part in source.parts(None, per_shard)]
    return pa.concat_tables(tables)


def test_all_sources_are_registered() -> None:
    assert {"urls", "shards", "demo"} <= set(SOURCES)


# --- urls


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
    assert source.rows(parts[1])["url"][0].as_py() == "http://a.example/0100"
    with pytest.raises((DataError, OSError)):
        source.rows(parts[3])


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
    urls = [url for part in source.parts(None, 4) for url in source.rows(part)["url"].to_pylist()]
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
    reserved = pool().append_column("sha256", pa.array(["x"] * 10)).append_column("width", pa.array([1] * 10))
    write_table(tmp_path / "r.parquet", reserved)
    error(ConfigError, "fills itself: sha256, width", path=str(tmp_path / "r.parquet"))
    assert UrlsSource(path=str(tmp_path / "r.parquet"), extra=["similarity"]).parts(None, 4)
    write_table(tmp_path / "empty.parquet", pool(0))
    error(DataError, "pool is empty", path=str(tmp_path / "empty.parquet"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    error(DataError, r"bad\.parquet: cannot be read as parquet", path=str(tmp_path / "bad.parquet"))
    (tmp_path / "notes.md").write_text("x")
    error(ConfigError, "no .parquet, .csv, .tsv, .jsonl file", path=str(tmp_path / "notes.md"))
    numbers = write_table(tmp_path / "n.parquet", pa.table({"url": [[1]], "text": ["x"]}))
    with pytest.raises(ConfigError, match="no text"):
        UrlsSource(path=str(numbers)).rows({"path": str(numbers), "start": 0, "stop": 1})
    with pytest.raises(DataError, match="replaced"):
        UrlsSource(path=str(path)).rows({"path": str(path), "start": 8, "stop": 12})
    wrong = write_table(tmp_path / "u.parquet", pool(1).append_column("uid", pa.array(["not hex"])))
    with pytest.raises(DataError, match="not hex"):
        all_rows(UrlsSource(path=str(wrong)))


def test_urls_are_ingested(web, respond, tmp_path: Path) -> None:
    for i in range(10):
        web[f"/{i}"] = respond(200, image(i)) if i != 5 else respond(404)
    source = UrlsSource(path=str(write_table(tmp_path / "p.parquet", pool())))
    part = source.parts(None, 4)[1]
    done = source.ingest(part, "00000001", str(tmp_path / "out"), OPTIONS, web.hosts("a.example"))
    table = done.shard.read_table()
    assert table["key"].to_pylist() == [f"00000001{row}" for row in range(4)]
    assert table["status"].to_pylist() == ["success", "failed_to_download", "success", "success"]
    assert table["caption"].to_pylist() == pool()["text"].to_pylist()[4:8]
    assert table["similarity"].type == pa.float32()
    assert done.stats["status"] == {"http_404": 1, "success": 3}


# --- shards


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    with TarWriter(str(path)) as tar:
        for key, members in samples.items():
            tar.write(key, members)
    return path


def take(path: Path, out: Path, number: int = 0) -> tuple[list[dict[str, Any]], Any]:
    source = ShardsSource(path=str(path))
    part = source.parts(None, 4)[number]
    assert json.loads(json.dumps(part)) == part
    done = source.ingest(part, f"{number:08d}", str(out), OPTIONS, {})
    return done.shard.read_table().to_pylist(), done


def test_plain_tars_are_used_where_they_lie(tmp_path: Path) -> None:
    uid = "ab" * 16
    samples = {
        "a": {
            "jpg": image(1),
            "txt": b"a caption",
            "json": json.dumps({"uid": uid, "score": 0.5, "url": "u"}).encode(),
        },
        "b": {"png": image(2, "PNG"), "json": json.dumps({"caption": "from json", "sha256": "s" * 64}).encode()},
        "c": {"webp": image(3, "WEBP"), "txt": b"\xff broken"},
        "d": {"jpg": b"<html>", "txt": b"no image"},
        "e": {"txt": b"no image at all"},
    }
    tar = write_tar(tmp_path / "x.tar", samples)
    before = tar.read_bytes()
    rows, done = take(tmp_path, tmp_path / "out")
    assert tar.read_bytes() == before
    assert done.shard.tar == str(tar)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["00000000.parquet"]
    assert [r["key"] for r in rows] == ["a", "b", "c", "d"]
    assert [r["caption"] for r in rows] == ["a caption", "from json", "\ufffd broken", "no image"]
    assert [r["uid"] for r in rows] == [uid, *(stable_uid("x", key) for key in "bcd")]
    assert [r["status"] for r in rows] == ["success"] * 3 + ["failed_to_resize"]
    assert [(r["width"], r["height"], r["original_width"]) for r in rows] == [(60, 40, 60)] * 3 + [(None, None, None)]
    assert [r["score"] for r in rows] == [0.5, None, None, None]
    assert rows[0]["sha256"] == hashlib.sha256(image(1)).hexdigest()
    assert rows[1]["sha256"] == "s" * 64
    assert done.stats["status"] == {"not_image": 1, "success": 3}
    assert "torn" not in done.stats
    assert done.shard.open().read("b", "png") == image(2, "PNG")


def test_what_we_ingest_can_be_taken_up_again(web, respond, tmp_path: Path) -> None:
    for i in range(4):
        web[f"/{i}"] = respond(200, image(i)) if i != 2 else respond(404)
    urls = UrlsSource(path=str(write_table(tmp_path / "p.parquet", pool(4))))
    first = urls.ingest(urls.parts(None, 4)[0], "00000000", str(tmp_path / "one"), OPTIONS, web.hosts("a.example"))
    table = first.shard.read_table()
    rows, again = take(tmp_path / "one", tmp_path / "two")
    assert again.shard.read_table().equals(table)
    assert again.stats == first.stats
    (tmp_path / "one" / "00000000.parquet").unlink()
    rows, again = take(tmp_path / "one", tmp_path / "three")
    kept = [row for row in table.to_pylist() if row["status"] == "success"]
    assert rows == [{**row, "caption": row["caption"] or ""} for row in kept]


def test_img2dataset_tables_with_other_columns(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", {f"00000000{i}": {"jpg": image(i), "txt": b"txt"} for i in (0, 2, 9)})
    table = pa.table(
        {
            "NSFW": ["UNLIKELY", "NSFW", "UNLIKELY"],
            "url": ["u0", "u1", "u2"],
            "key": [f"00000000{i}" for i in (0, 1, 2)],
            "status": ["success", "failed_to_download", "success"],
            "error_message": [None, "HTTP Error 404: Not Found", None],
            "width": pa.array([1, None, 1], pa.int64()),
            "original_width": pa.array([600, None, float("nan")], pa.float64()),
            "original_height": pa.array([400, None, 400], pa.float64()),
            "md5": ["m"] * 3,
        }
    )
    pq.write_table(table, tmp_path / "00000.parquet")
    rows, _ = take(tmp_path, tmp_path / "out")
    assert [r["key"][-1] for r in rows] == ["0", "1", "2", "9"]
    assert [r["status"] for r in rows] == ["success", "failed_to_download", "success", "success"]
    assert rows[1]["error_message"] == "HTTP Error 404: Not Found"
    assert [r["caption"] for r in rows] == ["txt", None, "txt", "txt"]
    assert [r["width"] for r in rows] == [60, None, 60, 60]
    assert [r["original_width"] for r in rows] == [600, None, 60, 60]
    assert [r["NSFW"] for r in rows] == ["UNLIKELY", "NSFW", "UNLIKELY", None]
    assert [r["md5"] for r in rows] == ["m", "m", "m", None]


def test_torn_tars_keep_their_good_samples_and_are_reported(tmp_path: Path) -> None:
    samples = {f"{i}": {"jpg": image(i), "json": b"{}", "txt": f"caption {i}".encode()} for i in range(4)}
    whole = write_tar(tmp_path / "x.tar", samples).read_bytes()
    one = len(whole) // 4
    for cut in (0, 100, 512, one - 400, one + 700, 2 * one, len(whole) - 1500, len(whole) - 1024):
        (tmp_path / "x.tar").write_bytes(whole[:cut])
        rows, done = take(tmp_path / "x.tar", tmp_path / "out")
        assert str(tmp_path / "x.tar") in done.stats["torn"]
        good = [r for r in rows if r["status"] == "success"]
        assert [r["caption"] for r in good] == [f"caption {i}" for i in range(len(good))]
        assert len(rows) - len(good) <= 1
        assert all(r["error_message"] == "torn" for r in rows if r["status"] != "success")


def test_a_torn_table_gives_way_to_the_tar(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a": {"jpg": image(), "txt": b"caption"}})
    (tmp_path / "x.parquet").write_bytes(b"PAR1 half a file")
    rows, done = take(tmp_path, tmp_path / "out")
    assert [r["caption"] for r in rows] == ["caption"]
    assert "x.parquet" in done.stats["torn"]


def test_rows_whose_image_is_missing(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a": {"jpg": image()}})
    pq.write_table(pa.table({"key": ["a", "b"], "caption": ["A", "B"]}), tmp_path / "x.parquet")
    rows, _ = take(tmp_path, tmp_path / "out")
    assert [(r["status"], r["error_message"]) for r in rows] == [
        ("success", None),
        ("failed_to_download", "missing_in_tar"),
    ]


def test_hostile_members(tmp_path: Path) -> None:
    """Nothing in a tar is run, and no JSON can break a table."""
    members = {
        "a.jpg": image(),
        "a.pkl": b"cos\nsystem\n(S'touch pwned'\ntR.",
        "a.json": b'{"x": [1], "key": "other", "status": 7, "width": "wide", "caption": ["a"], "uid": null}',
        "b.jpg": image(),
        "b.json": b'{"x": "text", "big": 100000000000000000000000}',
        "c.jpg": image(),
        "c.json": b"[" * 100_000,
    }
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    rows, _ = take(tmp_path, tmp_path / "out")
    assert [r["key"] for r in rows] == ["a", "b", "c"]
    assert [r["status"] for r in rows] == ["success"] * 3
    assert [r["x"] for r in rows] == ["[1]", '"text"', None]
    assert rows[0]["caption"] == '["a"]'
    assert list(Path.cwd().glob("pwned")) == []


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is there"):
        ShardsSource(path=str(tmp_path / "none")).parts(None, 4)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"no \.tar"):
        ShardsSource(path=str(tmp_path)).parts(None, 4)


def test_fingerprint_of_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a": {"jpg": image()}})
    source = ShardsSource(path=str(tmp_path))
    before = source.fingerprint()
    assert source.fingerprint() == before
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "x.parquet")
    assert source.fingerprint() != before
