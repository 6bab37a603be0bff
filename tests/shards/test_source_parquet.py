import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from curate.errors import ConfigError, DataError
from curate.shards.images.image import ImageOptions
from curate.shards.ingest import Copies
from curate.shards.sources import IngestOptions, ParquetSource, Slot
from curate.shards.web.fetch import FetchOptions

OPTIONS = IngestOptions(image=ImageOptions(size=32), fetch=FetchOptions(max_bytes=50_000), samples_per_shard=4)


def image(number: int = 0, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (60, 40), (number * 40 % 256, 90, 30)).save(file, kind)
    return file.getvalue()


def take(source: ParquetSource, out: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    parts = source.parts(None, 4)
    assert json.loads(json.dumps(parts)) == parts
    done = [source.ingest(part, Slot(i, f"{i:08d}", str(out)), OPTIONS) for i, part in enumerate(parts)]
    return [row for one in done for row in one.shard.read_table().to_pylist()], done


@pytest.mark.parametrize("struct", [False, True])
def test_images_in_parquet(tmp_path: Path, struct: bool) -> None:
    bodies = [image(i, "PNG" if i % 2 else "JPEG") for i in range(10)]
    images = pa.array([{"bytes": body, "path": "x.jpg"} for body in bodies]) if struct else pa.array(bodies)
    table = pa.table({"image": images, "text": [f"caption {i}" for i in range(10)], "score": list(range(10))})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=3)
    rows, done = take(ParquetSource(path=str(tmp_path)), tmp_path / "out")
    assert [one.stats["rows"] for one in done] == [4, 4, 2]
    assert [r["status"] for r in rows] == ["success"] * 10
    assert [r["caption"] for r in rows] == table["text"].to_pylist()
    assert [r["score"] for r in rows] == list(range(10))
    assert len({r["uid"] for r in rows}) == 10
    colours = []
    for one in done:
        tar = one.shard.open()
        colours += [Pillow.open(io.BytesIO(tar.read(key, "jpg") or b"")).getpixel((5, 5))[0] for key in tar.keys]  # type: ignore[index]
    assert np.allclose(colours, [i * 40 % 256 for i in range(10)], atol=3)


def test_bad_images_are_rows_with_reasons(tmp_path: Path) -> None:
    images = [image(), None, b"", b"<html>", bytes(60_000), image()[:200]]
    pq.write_table(pa.table({"image": pa.array(images, pa.large_binary())}), tmp_path / "p.parquet")
    rows, _ = take(ParquetSource(path=str(tmp_path), caption=None), tmp_path / "out")
    assert [r["error_message"] and r["error_message"].split(":")[0] for r in rows] == [
        None, "empty", "empty", "not_image", "too_large", "truncated",
    ]  # fmt: skip
    structs = [None, {"bytes": None, "path": "/etc/passwd"}, {"bytes": image(), "path": None}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(structs, kind)}), tmp_path / "p.parquet")
    rows, _ = take(ParquetSource(path=str(tmp_path), caption=None), tmp_path / "again")
    assert [r["error_message"] for r in rows] == ["empty: no image in the file"] * 2 + [None]


def test_img2dataset_parquet_output(tmp_path: Path) -> None:
    table = {
        "caption": ["a", "b"],
        "url": ["http://x/a", "http://x/b"],
        "key": ["0", "1"],
        "status": ["success", "failed_to_download"],
        "error_message": [None, "HTTP Error 404"],
        "width": [60, None],
        "sha256": ["s" * 64, None],
        "jpg": [image(), None],
    }
    pq.write_table(pa.table(table), tmp_path / "00000.parquet")
    rows, _ = take(ParquetSource(path=str(tmp_path), image="jpg", caption="caption", url="url"), tmp_path / "out")
    assert [(r["url"], r["status"], r["given_error_message"]) for r in rows] == [
        ("http://x/a", "success", None),
        ("http://x/b", "failed_to_download", "HTTP Error 404"),
    ]
    assert "jpg" not in rows[0]
    with pytest.raises(ConfigError, match="no column 'image'; did you mean 'jpg'"):
        ParquetSource(path=str(tmp_path)).parts(None, 4)


def test_rows_that_are_left_out_are_not_read(tmp_path: Path) -> None:
    """As when a killed shard goes on, or other shards have the images."""
    pq.write_table(pa.table({"image": [image(i) for i in range(8)]}), tmp_path / "p.parquet", row_group_size=2)
    source = ParquetSource(path=str(tmp_path), caption=None)
    part = source.parts(None, 8)[0]
    options = OPTIONS.model_copy(update={"samples_per_shard": 8})
    bodies = source.bodies(part, source.table(part), Slot(0, "0", str(tmp_path)), options)
    assert bodies is not None
    assert [(found.index, found.body) for found in bodies([3, 6])] == [(3, image(3)), (6, image(6))]
    whole = source.ingest(part, Slot(0, "whole", str(tmp_path / "out")), options)
    copies = Copies(np.array([1, 5]), np.array([0, 0]), np.array([0, 7]), {0: whole.shard})
    some = source.ingest(part, Slot(0, "some", str(tmp_path / "out")), options, copies)
    hashes = whole.shard.read_table()["sha256"].to_pylist()
    expected = [hashes[i] for i in (0, 0, 2, 3, 4, 7, 6, 7)]
    assert some.shard.read_table()["sha256"].to_pylist() == expected


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["text"], "text": ["x"], "n": [1]}), tmp_path / "p.parquet")
    for name, kind in (("image", "string"), ("n", "int64")):
        with pytest.raises(ConfigError, match=f"column '{name}' holds {kind}, no encoded images"):
            ParquetSource(path=str(tmp_path), image=name).parts(None, 4)
    empty = pa.table({"image": pa.array([], pa.binary()), "text": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "p.parquet")
    with pytest.raises(ConfigError, match="no column 'caption'"):
        ParquetSource(path=str(tmp_path), caption="caption").parts(None, 4)
    with pytest.raises(DataError, match="pool is empty"):
        ParquetSource(path=str(tmp_path)).parts(None, 4)


def test_keys_stay_when_files_come(tmp_path: Path) -> None:
    table = pa.table({"image": [image(i) for i in range(6)]})
    source = ParquetSource(path=str(tmp_path), caption=None)
    pq.write_table(table, tmp_path / "m.parquet")
    before = {part["key"] for part in source.parts(None, 4)}
    for i, name in enumerate("az"):
        pq.write_table(table.slice(i), tmp_path / f"{name}.parquet")
        assert before < {part["key"] for part in source.parts(None, 4)}


def test_a_large_row_group_is_not_held_in_memory(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(1 << 19)
    bodies = [noise[i:] + noise[:i] for i in range(400)]
    pq.write_table(pa.table({"image": bodies}), tmp_path / "p.parquet", use_dictionary=False, compression="none")
    code = (
        "import resource, sys\n"
        "from curate.shards.sources import *\n"
        "source = ParquetSource(path=sys.argv[1], caption=None)\n"
        "part = source.parts(None, 1000)[0]\n"
        "rows, slot = source.table(part), Slot(0, '0', '')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "size = sum(len(f.body) for f in source.bodies(part, rows, slot, IngestOptions())(range(400)))\n"
        "print(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    size, memory = map(int, told.split())
    assert size == 200 << 20
    assert memory < 130_000  # KiB
