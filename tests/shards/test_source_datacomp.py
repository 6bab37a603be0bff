import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from curate.errors import ConfigError, DataError
from curate.shards.images.image import ImageOptions
from curate.shards.sources import DatacompSource, IngestOptions, Slot
from curate.shards.tables.npz_arrays import arrays
from curate.shards.web.fetch import FetchOptions

OPTIONS = IngestOptions(
    image=ImageOptions(size=32), fetch=FetchOptions(backoff=0.01), samples_per_shard=4, blur="face_bboxes"
)


def image(number: int = 0) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (60, 40), (number * 40 % 256, 90, 30)).save(file, "JPEG")
    return file.getvalue()


def metadata(n: int = 6) -> pa.Table:
    return pa.table(
        {
            "uid": [f"{i + 1:032x}" for i in range(n)],
            "url": [f"http://a.example/{i}" for i in range(n)],
            "text": [f"caption\n{i}" if i else None for i in range(n)],
            "original_width": pa.array([60 + i for i in range(n)], pa.int64()),
            "original_height": pa.array([40] * n, pa.int64()),
            "clip_b32_similarity_score": pa.array([i / 8 for i in range(n)], pa.float32()),
            "clip_l14_similarity_score": pa.array([i / 4 for i in range(n)], pa.float32()),
            "face_bboxes": pa.array([[[0.0, 0.0, 0.5, 0.5]] if i % 2 else [] for i in range(n)]),
            "sha256": [hashlib.sha256(image(i)).hexdigest() if i != 3 else "0" * 64 for i in range(n)],
        }
    )


def embeddings(n: int = 6) -> dict[str, np.ndarray]:
    dims = {"b32_img": 512, "b32_txt": 512, "l14_img": 768, "l14_txt": 768}
    return {**{name: np.zeros((n, d), np.float16) for name, d in dims.items()}, "dedup": np.zeros(n, bool)}


def test_metadata_alone(tmp_path: Path) -> None:
    pq.write_table(metadata(), tmp_path / "m.parquet")
    source = DatacompSource(path=str(tmp_path), images=False)
    assert not source.fetches()
    parts = source.parts(None, 4)
    assert json.loads(json.dumps(parts)) == parts
    assert [(p["start"], p["stop"]) for p in parts] == [(0, 4), (4, 6)]
    done = [
        source.ingest(p, Slot(i, f"{i:08d}", str(tmp_path / "out"), label="dc"), OPTIONS) for i, p in enumerate(parts)
    ]
    table = pa.concat_tables(one.shard.read_table() for one in done)
    given = metadata()
    assert table["uid"].to_pylist() == given["uid"].to_pylist()
    assert table["caption"].to_pylist() == given["text"].to_pylist()
    for column in ("clip_b32_similarity_score", "clip_l14_similarity_score", "face_bboxes", "sha256", "url"):
        assert table[column].to_pylist() == given[column].to_pylist()
    assert table["clip_l14_similarity_score"].type == pa.float32()
    assert table["original_width"].to_pylist() == given["original_width"].to_pylist()
    assert table["original_width"].type == pa.int32()
    assert set(table["status"].to_pylist()) == {"metadata"}
    assert set(table["error_message"].to_pylist()) == set(table["width"].to_pylist()) == {None}
    assert table["source"].to_pylist() == ["dc"] * 6
    assert table["key"].to_pylist() == [
        f"{shard:08d}{row}" for shard, row in [(0, i) for i in range(4)] + [(1, 0), (1, 1)]
    ]
    assert [one.stats for one in done] == [
        {"rows": n, "successes": 0, "bytes": 0, "animated": 0, "status": {"metadata": n}} for n in (4, 2)
    ]
    assert [len(one.shard.open().require_whole()) for one in done] == [0, 0]
    only = DatacompSource(path=str(tmp_path), images=False, extra=[]).ingest(
        parts[0], Slot(0, "0", str(tmp_path / "only")), OPTIONS
    )
    assert "clip_b32_similarity_score" not in only.shard.column_names()
    assert only.shard.read_table()["sha256"].to_pylist() == given["sha256"].to_pylist()[:4]


def test_with_images(web: Any, respond: Any, tmp_path: Path) -> None:
    for i in range(6):
        web[f"/{i}"] = respond(200, image(i)) if i != 5 else respond(404)
    pq.write_table(metadata(), tmp_path / "m.parquet")

    def take(**options: Any) -> list[dict[str, Any]]:
        source = DatacompSource(path=str(tmp_path), **options)
        assert source.fetches()
        rows = []
        for i, part in enumerate(source.parts(None, 4)):
            slot = Slot(i, f"{i:08d}", str(tmp_path / "out"), connect_to=web.hosts("a.example"))
            rows += source.ingest(part, slot, OPTIONS).shard.read_table().to_pylist()
        return rows

    rows = take()
    assert [r["error_message"] for r in rows] == [None] * 5 + ["http_404"]
    assert [r["original_width"] for r in rows] == [60] * 5 + [None]
    assert [r["given_original_width"] for r in rows] == [60 + i for i in range(6)]
    assert rows[1]["face_bboxes"] == [[0.0, 0.0, 0.5, 0.5]]
    assert [r["caption"] for r in rows] == metadata()["text"].to_pylist()
    for options in ({}, {"extra": []}):
        rows = take(verify=True, **options)
        assert [(r["error_message"] or "").split(":")[0] for r in rows] == ["", "", "", "hash_mismatch", "", "http_404"]
    assert take(extra=["clip_l14_similarity_score"])[3]["clip_l14_similarity_score"] == 0.75


def test_discovery(tmp_path: Path) -> None:
    """Every name with `.parquet` in it, in the folder itself; or else in the folders `part_*`."""
    for name in ("b.parquet", "a.snappy.parquet", "c.parquet.x"):
        pq.write_table(metadata(2), tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "part_0").mkdir()
    pq.write_table(metadata(2), tmp_path / "part_0" / "z.parquet")
    parts = DatacompSource(path=str(tmp_path)).parts(None, 4)
    assert [Path(p["path"]).name for p in parts] == ["a.snappy.parquet", "b.parquet", "c.parquet.x"]
    for name in ("b.parquet", "a.snappy.parquet", "c.parquet.x"):
        (tmp_path / name).unlink()
    parts = DatacompSource(path=str(tmp_path)).parts(None, 4)
    assert [Path(p["path"]).name for p in parts] == ["z.parquet"]
    (tmp_path / "part_0" / "z.parquet").unlink()
    with pytest.raises(ConfigError, match=r"no \.parquet file"):
        DatacompSource(path=str(tmp_path)).parts(None, 4)
    pq.write_table(metadata(2).drop_columns("uid"), tmp_path / "m.parquet")
    with pytest.raises(ConfigError, match="no column 'uid'"):
        DatacompSource(path=str(tmp_path)).parts(None, 4)


def test_embeddings_beside_the_metadata(tmp_path: Path) -> None:
    for name, n in (("a", 6), ("b", 2)):
        pq.write_table(metadata(n), tmp_path / f"{name}.parquet")
    np.savez(tmp_path / "a.npz", **embeddings(6))
    source = DatacompSource(path=str(tmp_path), images=False)
    parts = source.parts(None, 4)
    names = ["b32_img", "b32_txt", "l14_img", "l14_txt", "dedup"]
    where = {"path": str(tmp_path / "a.npz"), "names": names}
    assert [source.embeddings(part) for part in parts] == [
        {**where, "start": 0, "stop": 4},
        {**where, "start": 4, "stop": 6},
        None,
    ]
    np.savez(tmp_path / "b.npz", **embeddings(3))
    part = source.parts(None, 4)[2]
    for use in (source.embeddings, source.table):
        with pytest.raises(DataError, match=r"b\.npz: array 'b32_img' has shape \(3, 512\).*has 2 rows"):
            use(part)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"b\.npz: cannot be read as npz"):
        source.table(part)


def test_npz_files_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", fine=np.zeros((2, 3), np.float32), objects=np.array([{}, {}], object))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("readme.txt", "x")
    assert [(a.name, a.shape, a.dtype) for a in arrays(str(tmp_path / "a.npz"))] == [("fine", (2, 3), "<f4")]


def test_keys_stay_when_files_come(tmp_path: Path) -> None:
    source = DatacompSource(path=str(tmp_path))
    pq.write_table(metadata(), tmp_path / "m.parquet")
    before = {part["key"] for part in source.parts(None, 4)}
    np.savez(tmp_path / "m.npz", **embeddings())
    assert {part["key"] for part in source.parts(None, 4)} == before
    for n, name in enumerate("az", 2):
        pq.write_table(metadata(n), tmp_path / f"{name}.parquet")
        assert before < {part["key"] for part in source.parts(None, 4)}
