import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from curate.errors import ConfigError
from curate.shards.images.image import ImageOptions
from curate.shards.sources import IngestOptions, ShardsSource, Slot, UrlsSource
from curate.shards.tar import TarWriter
from curate.shards.uid import stable_uid
from curate.shards.web.fetch import FetchOptions

OPTIONS = IngestOptions(image=ImageOptions(size=32), fetch=FetchOptions(backoff=0.01), samples_per_shard=4)


def image(number: int = 0, kind: str = "JPEG", size: tuple[int, int] = (60, 40)) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", size, (number * 40 % 256, 90, 30)).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    with TarWriter(str(path)) as tar:
        for key, members in samples.items():
            tar.write(key, members)
    return path


def take(path: Path, out: Path, number: int = 0) -> tuple[list[dict[str, Any]], Any]:
    source = ShardsSource(path=str(path))
    part = source.parts(None, 4)[number]
    assert json.loads(json.dumps(part)) == part
    done = source.ingest(part, Slot(number, f"{number:08d}", str(out)), OPTIONS)
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
    rows = {"url": [f"http://a.example/{i}" for i in range(4)], "text": [None, "b", "c", "d"], "similarity": [0.5] * 4}
    pq.write_table(pa.table(rows), tmp_path / "p.parquet")
    urls = UrlsSource(path=str(tmp_path / "p.parquet"))
    slot = Slot(0, "00000000", str(tmp_path / "one"), connect_to=web.hosts("a.example"))
    first = urls.ingest(urls.parts(None, 4)[0], slot, OPTIONS)
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


def ingest_all(source: ShardsSource, out: Path) -> list[Any]:
    parts = source.parts(None, 4)
    return [source.ingest(part, Slot(i, f"{i:08d}", str(out)), OPTIONS) for i, part in enumerate(parts)]


def test_folders_in_a_folder_and_their_uids(tmp_path: Path) -> None:
    """Samples of one name in two folders are two samples, and stay the same when folders come."""
    for folder in ("b", "b/deep", ".hidden"):
        (tmp_path / "pool" / folder).mkdir(parents=True)
        write_tar(tmp_path / "pool" / folder / "00000.tar", {"a": {"jpg": image()}})
    (tmp_path / "pool" / "b" / "._00000.tar").write_bytes(b"a Mac was here")
    source = ShardsSource(path=str(tmp_path / "pool"))
    tables = [done.shard.read_table() for done in ingest_all(source, tmp_path / "out")]
    assert [t["uid"].to_pylist() for t in tables] == [[stable_uid(f"b{d}/00000", "a")] for d in ("", "/deep")]
    before = {part["key"]: part["name"] for part in source.parts(None, 4)}
    (tmp_path / "pool" / "a").mkdir()
    write_tar(tmp_path / "pool" / "a" / "00000.tar", {"a": {"jpg": image()}})
    after = {part["key"]: part["name"] for part in source.parts(None, 4)}
    assert len(after) == 3
    assert before.items() <= after.items()
    pattern = ShardsSource(path=f"{tmp_path}/pool/*/00000.tar").parts(None, 4)
    assert [part["name"] for part in pattern] == ["a/00000", "b/00000"]


def test_tables_are_found_beside_tars_of_a_pattern(tmp_path: Path) -> None:
    for i in range(2):
        write_tar(tmp_path / f"0000{i}.tar", {"a": {"jpg": image()}})
        pq.write_table(pa.table({"key": ["a"], "caption": [f"caption {i}"]}), tmp_path / f"0000{i}.parquet")
    for path in (tmp_path / "*.tar", tmp_path / "00001.tar", tmp_path):
        parts = ShardsSource(path=str(path)).parts(None, 4)
        assert [part["table"] for part in parts] == [part["tar"].replace(".tar", ".parquet") for part in parts]


def test_relative_paths_stay_usable_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "x.tar", {"a": {"jpg": image()}})
    monkeypatch.chdir(tmp_path)
    parts = [ShardsSource(path=path).parts(None, 4)[0] for path in (".", "x.tar", "*.tar", str(tmp_path))]
    assert [(part["tar"], part["name"]) for part in parts] == [(str(tmp_path / "x.tar"), "x")] * 4
    assert len({part["key"] for part in parts}) == 1


def test_gaps_in_the_numbering_are_told(tmp_path: Path) -> None:
    for name in ("00001", "00002", "00007", "00008", "x-3", "x-5", "other"):
        write_tar(tmp_path / f"{name}.tar", {"a": {"jpg": image()}})
    told = {part["name"]: part["gap"] for part in ShardsSource(path=str(tmp_path)).parts(None, 4) if part["gap"]}
    assert told == {
        "00007": "4 missing before 00007.tar: 00003.tar to 00006.tar",
        "x-5": "1 missing before x-5.tar: x-4.tar",
    }
    assert [done.stats.get("gap") is not None for done in ingest_all(ShardsSource(path=str(tmp_path)), tmp_path)] == [
        False, False, True, False, False, False, True,
    ]  # fmt: skip


def test_fewer_samples_than_the_statistics_say(tmp_path: Path) -> None:
    """A tar cut between two samples and closed again looks whole; its statistics tell."""
    write_tar(tmp_path / "x.tar", {"a": {"jpg": image()}})
    (tmp_path / "x_stats.json").write_text(json.dumps({"successes": 3}))
    _, done = take(tmp_path, tmp_path / "out")
    assert done.stats["torn"] == f"{tmp_path}/x.tar: 2 of its 3 samples are missing"
    (tmp_path / "x_stats.json").write_text("{")
    _, done = take(tmp_path, tmp_path / "out")
    assert done.stats["torn"] == f"{tmp_path}/x_stats.json: cannot be read"


def test_keys_that_the_table_spells_differently(tmp_path: Path) -> None:
    """Numbers lost their zeros; the tar has a folder."""
    write_tar(tmp_path / "x.tar", {f"./00000/{i:09d}": {"jpg": image(i)} for i in range(3)})
    pq.write_table(pa.table({"key": [2, None, 0, 7], "caption": list("cxaz")}), tmp_path / "x.parquet")
    rows, _ = take(tmp_path, tmp_path / "out")
    assert [(r["key"], r["caption"], r["status"]) for r in rows] == [
        ("00000/000000002", "c", "success"),
        ("", "x", "failed_to_download"),
        ("00000/000000000", "a", "success"),
        ("7", "z", "failed_to_download"),
        ("00000/000000001", None, "success"),
    ]


def test_failures_keep_what_was_said_about_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a": {"jpg": image()}})
    said = ["HTTP Error 404: Not Found", "two\nlines", "", None]
    table = {"key": list("abcde"), "status": ["success", *["failed_to_download"] * 3, "failed_to_resize"]}
    pq.write_table(pa.table({**table, "error_message": [None, *said]}), tmp_path / "x.parquet")
    rows, done = take(tmp_path, tmp_path / "out")
    assert [r["error_message"] for r in rows] == [None, "HTTP Error 404: Not Found", "two lines", "unknown", "unknown"]
    assert [r["status"] for r in rows] == table["status"]
    assert sum(done.stats["status"].values()) == done.stats["rows"] == 5
    assert done.stats["successes"] == 1


def test_uids_that_are_no_hexadecimal_are_hashed(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {k: {"jpg": image(), "json": json.dumps({"uid": u, "id": "7"}).encode()} for k, u in
                                   (("a", "img-12"), ("b", "AB"), ("c", None), ("d", 12))})  # fmt: skip
    source = ShardsSource(path=str(tmp_path))
    table = ingest_all(source, tmp_path / "out")[0].shard.read_table()
    expected = [stable_uid("img-12"), "ab".rjust(32, "0"), stable_uid("x", "c"), "12".rjust(32, "0")]
    assert table["uid"].to_pylist() == expected
    table = ingest_all(ShardsSource(path=str(tmp_path), uid="id"), tmp_path / "out")[0].shard.read_table()
    assert table["uid"].to_pylist() == ["7".rjust(32, "0")] * 4
    assert table["given_uid"].to_pylist() == ['"img-12"', '"AB"', None, "12"]
    table = ingest_all(ShardsSource(path=str(tmp_path), uid=None), tmp_path / "out")[0].shard.read_table()
    assert table["uid"].to_pylist() == [stable_uid("x", key) for key in "abcd"]


def test_images_broken_inside_are_found_when_asked_for(tmp_path: Path) -> None:
    good = image(1, size=(300, 200))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(noise).save(file, "JPEG")
    png = bytearray(image(2, "PNG"))
    png[60] ^= 0xFF
    samples = {"a": {"jpg": good}, "b": {"jpg": file.getvalue()[:-900]}, "c": {"png": bytes(png)}}
    write_tar(tmp_path / "x.tar", samples)
    rows, _ = take(tmp_path, tmp_path / "out")
    assert [r["status"] for r in rows] == ["success"] * 3
    done = ingest_all(ShardsSource(path=str(tmp_path), decode=True), tmp_path / "out")[0]
    assert done.shard.read_table()["status"].to_pylist() == ["success", "failed_to_resize", "failed_to_resize"]
    assert done.stats["successes"] == 1


def test_only_the_beginning_of_an_image_is_read_when_its_hash_is_known(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[270] = "x" * 60_000  # the size comes behind it
    file = io.BytesIO()
    Pillow.new("RGB", (50, 30)).save(file, "JPEG", exif=exif)
    write_tar(tmp_path / "x.tar", {"a": {"jpg": file.getvalue()}, "b": {"jpg": image() + bytes(100_000)}})
    pq.write_table(pa.table({"key": ["a", "b"], "sha256": ["1" * 64, "2" * 64]}), tmp_path / "x.parquet")
    rows, _ = take(tmp_path, tmp_path / "out")
    assert [(r["width"], r["height"], r["sha256"][0]) for r in rows] == [(50, 30, "1"), (60, 40, "2")]


def test_tables_that_cannot_be_joined_or_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"a": {"jpg": image(), "txt": b"caption"}})
    pq.write_table(pa.table({"url": ["u"]}), tmp_path / "x.parquet")
    rows, done = take(tmp_path, tmp_path / "out")
    assert rows[0]["caption"] == "caption"
    assert "has no column 'key'" in done.stats["torn"]
    offsets, data = pa.array([0, 1, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff\xfe")
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, data])
    pq.write_table(pa.table({"key": ["a", "b"], "caption": broken, "more": broken}), tmp_path / "x.parquet")
    rows, _ = take(tmp_path, tmp_path / "out")
    assert [(r["caption"], r["more"]) for r in rows] == [("a", "a"), (None, None)]


def test_members_of_any_size_cost_little_memory(tmp_path: Path) -> None:
    """Sparse files: sizes that a hostile header may really have."""
    with open(tmp_path / "x.tar", "wb") as file:
        for name, size, data in (("a.jpg", 3 << 30, b"\xff\xd8\xff"), ("b.txt", 1 << 30, b"x"), ("b.jpg", 0, image())):
            info = tarfile.TarInfo(name)
            info.size = size or len(data)
            file.write(info.tobuf(tarfile.USTAR_FORMAT))
            start = file.tell()
            file.write(data)
            file.seek(start + -(-info.size // 512) * 512)
        file.write(bytes(1024))
    code = (
        "import resource, sys\n"
        "from curate.shards.existing import read_existing\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "table, stats = read_existing(sys.argv[1], None)\n"
        "print(table['caption'].to_pylist(), stats['status'])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.tar")], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert told[0] == "[None, None] {'success': 1, 'too_large': 1}"
    assert int(told[1]) < 100_000  # KiB
