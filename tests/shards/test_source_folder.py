import csv
import io
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from curate.errors import ConfigError
from curate.shards.images.image import ImageOptions
from curate.shards.sources import FolderSource, IngestOptions, Slot
from curate.shards.sources.stable_cuts import cut
from curate.shards.uid import stable_uid
from curate.shards.web.fetch import FetchOptions

OPTIONS = IngestOptions(image=ImageOptions(size=32), fetch=FetchOptions(max_bytes=50_000), samples_per_shard=4)


def image(number: int = 0, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (60, 40), (number * 40 % 256, 90, 30)).save(file, kind)
    return file.getvalue()


def fill(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def take(source: FolderSource, out: Path, options: IngestOptions = OPTIONS) -> tuple[list[dict[str, Any]], list[Any]]:
    """All rows of a source, ingested."""
    parts = source.parts(None, options.samples_per_shard)
    assert json.loads(json.dumps(parts)) == parts
    done = [source.ingest(part, Slot(i, f"{i:08d}", str(out)), options) for i, part in enumerate(parts)]
    return [row for one in done for row in one.shard.read_table().to_pylist()], done


def test_images_with_captions_beside_them(tmp_path: Path) -> None:
    uid = "ab" * 16
    folder = fill(
        tmp_path / "in",
        {
            "a.jpg": image(0), "a.txt": "a caption\n",
            "b/b.PNG": image(1, "PNG"), "b/b.json": json.dumps({"caption": "from json", "uid": uid, "url": "http://x/b"}),
            "b/c.webp": image(2, "WEBP"), "b/c.txt": "from txt", "b/c.json": '{"caption": "not this"}',
            "b/deep/d.jpeg": image(3), "b/deep/d.json": "{broken",
            "e.gif": image(4, "GIF"), "notes.md": "x", ".hidden.jpg": image(), "lonely.txt": "no image",
        },
    )  # fmt: skip
    rows, done = take(FolderSource(path=str(folder)), tmp_path / "out")
    assert [r["url"] for r in rows] == ["a.jpg", "http://x/b", "b/c.webp", "b/deep/d.jpeg", "e.gif"]
    assert [r["caption"] for r in rows] == ["a caption", "from json", "from txt", None, None]
    assert rows[1]["uid"] == uid
    assert rows[0]["uid"] == stable_uid("a.jpg", "a caption")
    assert [r["status"] for r in rows] == ["success"] * 5
    assert [(r["original_width"], r["original_height"]) for r in rows] == [(60, 40)] * 5
    assert sum(len(one.shard.open()) for one in done) == 5


def test_folders_as_classes(tmp_path: Path) -> None:
    folder = fill(
        tmp_path / "in", {"big_cat/1.jpg": image(), "dog/x/2.jpg": image(), "dog/x/2.txt": "mine", "3.jpg": image()}
    )
    rows, _ = take(FolderSource(path=str(folder), classes=True), tmp_path / "one")
    assert [(r["label"], r["caption"]) for r in rows] == [
        (None, None), ("big_cat", "a photo of a big cat"), ("dog", "mine"),
    ]  # fmt: skip
    rows, _ = take(FolderSource(path=str(folder), classes=True, template=None), tmp_path / "two")
    assert [r["caption"] for r in rows] == [None, None, "mine"]


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.csv", "captions.tsv", "deep/captions.csv.gz"])
def test_a_file_with_all_captions(tmp_path: Path, name: str) -> None:
    """Images may have several captions or none; captions may have no image."""
    folder = fill(tmp_path / "in", {f"{c}.jpg": image(i) for i, c in enumerate("abc")})
    table = [("./a.jpg", "one", 0.5), ("gone.jpg", "lost", 1), ("a.jpg", "two", 2), ("x/../c.jpg", "see", None)]
    rows = [dict(zip(("file_name", "text", "score"), row, strict=True)) for row in table]
    text = io.StringIO()
    if name.endswith("jsonl"):
        text.write("\n".join(map(json.dumps, rows)))
    else:
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if name.endswith("tsv") else ",")
        writer.writeheader()
        writer.writerows(rows)
    if name.endswith(".gz"):
        import gzip

        fill(folder, {name: gzip.compress(text.getvalue().encode())})
    else:
        fill(folder, {name: text.getvalue()})
    found, _ = take(FolderSource(path=str(folder), captions=name), tmp_path / "out")
    assert [(r["url"], r["caption"], r["score"], r["error_message"]) for r in found] == [
        ("a.jpg", "one", 0.5, None),
        ("a.jpg", "two", 2.0, None),
        ("b.jpg", None, None, None),
        ("c.jpg", "see", None, None),
        ("gone.jpg", "lost", 1.0, "unreadable: not there"),
    ]
    assert len({r["uid"] for r in found}) == 5


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    def error(match: str, **options: Any) -> None:
        with pytest.raises(ConfigError, match=match):
            FolderSource(**{"path": str(tmp_path), **options}).parts(None, 4)

    error("nothing is there", path=str(tmp_path / "none"))
    error("no image at")
    fill(tmp_path, {"a.jpg": image(), "c.csv": "file,text,label\na.jpg,x,y", "c.txt": ""})
    error("nothing is there.*none.csv", captions="none.csv")
    error("is no csv, tsv, jsonl or json file", captions="c.txt")
    error("no column 'file_name'", captions="c.csv")
    error("has a column 'label' already", captions="c.csv", file="file", classes=True)


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    secret = fill(tmp_path / "secret", {"s.jpg": image(), "s.txt": "secret"})
    folder = fill(
        tmp_path / "in", {"good.jpg": image(), "captions.csv": "file_name,text\n../secret/s.jpg,x\n/etc/passwd,y\n"}
    )
    (folder / "link.jpg").symlink_to(secret / "s.jpg")
    (folder / "inside.jpg").symlink_to(folder / "good.jpg")
    (folder / "good.txt").symlink_to(secret / "s.txt")
    (folder / "tree").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(secret / "none.jpg")
    os.mkfifo(folder / "pipe.jpg")
    rows, _ = take(FolderSource(path=str(folder)), tmp_path / "out")
    assert {r["url"]: (r["error_message"], r["caption"]) for r in rows} == {
        "good.jpg": (None, None),
        "inside.jpg": (None, None),
        "link.jpg": ("unreadable: lies outside the folder", None),
    }
    rows, _ = take(FolderSource(path=str(folder), captions="captions.csv"), tmp_path / "again")
    assert {r["url"]: r["error_message"] for r in rows if r["caption"]} == {
        "../secret/s.jpg": "unreadable: not there",
        "/etc/passwd": "unreadable: not there",
    }


def test_bad_files_are_rows_with_reasons(tmp_path: Path) -> None:
    folder = fill(
        tmp_path / "in",
        {
            "a.jpg": image(), "b.jpg": b"", "c.jpg": "<html>", "d.jpg": bytes(60_000), "e.jpg": image()[:200],
            "f.jpg": image(), "f.txt": b"caf\xe9", "g.jpg": image(),
        },
    )  # fmt: skip
    source = FolderSource(path=str(folder))
    parts = source.parts(None, 10)
    (folder / "g.jpg").unlink()
    options = OPTIONS.model_copy(update={"samples_per_shard": 10})
    done = source.ingest(parts[0], Slot(0, "00000000", str(tmp_path / "out")), options)
    rows = done.shard.read_table().to_pylist()
    assert [r["error_message"] and r["error_message"].split(":")[0] for r in rows] == [
        None, "empty", "not_image", "too_large", "truncated", None, "unreadable",
    ]  # fmt: skip
    assert rows[5]["caption"] == "caf\ufffd"
    assert done.stats["rows"] == sum(done.stats["status"].values()) == 7


def test_names_that_are_no_text(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", {"ü b.jpg": image()})
    try:
        with open(os.fsencode(folder) + b"/\xff.jpg", "wb") as file:
            file.write(image())
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    rows, _ = take(FolderSource(path=str(folder), classes=True), tmp_path / "out")
    assert sorted((r["url"], r["status"]) for r in rows) == [("ü b.jpg", "success"), ("\ufffd.jpg", "success")]


def test_a_remote_folder(tmp_path: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.store.clear()
    files: dict[str, bytes | str] = {"a.jpg": image(), "a.txt": "A", "b/b.jpg": image(1), "big.jpg": bytes(60_000)}
    folder = fill(tmp_path / "in", files)
    for name in files:
        fs.pipe(f"/folder/{name}", (folder / name).read_bytes())
    here, there = FolderSource(path=str(folder)), FolderSource(path="memory://folder")
    assert [p["key"] for p in here.parts(None, 4)] == [p["key"] for p in there.parts(None, 4)]
    mine, _ = take(here, tmp_path / "here")
    theirs, _ = take(there, tmp_path / "there")
    assert mine == theirs
    assert [r["caption"] for r in theirs] == ["A", None, None]


@given(
    names=st.lists(st.text("abc", max_size=5), unique=True, max_size=80).map(sorted),
    most=st.integers(1, 9),
    added=st.lists(st.text("abc", max_size=5), max_size=3),
)
def test_cuts_are_whole_bounded_and_in_order(names: list[str], most: int, added: list[str]) -> None:
    parts = cut(names, most)
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(len(names)))
    assert all(stop - start <= most for start, stop in parts)
    assert all(stop - start >= max(1, most // 2) for start, stop in parts[:-1])
    assert cut(names, most) == parts


def test_an_addition_changes_the_part_that_it_falls_into(tmp_path: Path) -> None:
    """Of 40 parts, hardly more than one; counting off would move half of them on average."""
    draw = random.Random(1)
    names = sorted(f"{draw.randrange(10**6):06d}.jpg" for _ in range(3000))

    def pieces(names: list[str]) -> set[tuple[str, ...]]:
        return {tuple(names[start:stop]) for start, stop in cut(names, 100)}

    before = pieces(names)
    assert len(before) >= 30
    lost = [len(before - pieces(sorted([*names, f"{draw.randrange(10**6):06d}x.jpg"]))) for _ in range(50)]
    assert sum(lost) / len(lost) < 1.6
    assert len(before - pieces([*names, *(f"z{i:03d}" for i in range(500))])) <= 1
    assert len(before - pieces(names[:700] + names[800:])) <= 4


def test_keys_stay_when_images_come(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", {f"{c}/{i:02d}.jpg": image(i) for c in "bdf" for i in range(12)})
    source = FolderSource(path=str(folder))

    def keys() -> list[str]:
        return [part["key"] for part in source.parts(None, 4)]

    before = keys()
    assert keys() == before
    for added in ("a/00.jpg", "d/055.jpg", "g/00.jpg"):
        fill(folder, {added: image()})
        after = keys()
        assert len(set(before) - set(after)) <= 2
        before = after
    moved = folder.rename(tmp_path / "moved")
    source = FolderSource(path=str(moved))
    assert keys() == before
    fill(moved, {"d/03.jpg": image(7)})
    assert len(set(before) - set(keys())) == 1
    fill(moved, {"d/04.txt": "a caption"})
    assert len(set(before) - set(keys())) in (1, 2)
    before = keys()
    fill(moved, {"d/04.txt": "another"})
    assert len(set(before) - set(keys())) == 1
    assert source.fingerprint() != FolderSource(path=str(moved / "b")).fingerprint()
