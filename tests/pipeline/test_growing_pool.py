"""Pools that grow, mix sources, name one image many times, and are tried again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from little_web import LittleWeb
from small_run import curate

FETCH = {"allow_private": True, "retries": 0, "backoff": 0.01, "timeout": 5}


@pytest.fixture
def web():
    server = LittleWeb()
    yield server
    server.close()


def table(web: LittleWeb, path: Path, numbers: list[int], name: str = "picture") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [f"a {name} of number {number} in row {row}" for row, number in enumerate(numbers)]
    pq.write_table(pa.table({"url": [web.url(n) for n in numbers], "text": texts}), path)


def config(folder: Path, pool: dict[str, Any], **more: Any) -> str:
    value = {
        "name": "grown",
        "workdir": str(folder / "runs"),
        "pool": {"fetch": FETCH, "samples_per_shard": 10, "image": {"size": 32}, **pool},
        "scores": {"text": {"type": "caption_statistics"}},
        "cluster": {"address": "inline"},
        **more,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(value))
    return str(path)


def run(path: str, *arguments: str) -> str:
    done = curate("run", path, "--until", "score", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shards(folder: Path) -> dict[str, bytes]:
    """Bytes of the pool's tars and tables by their names in the run's folder."""
    root = folder / "runs" / "grown" / "shards"
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.suffix in (".tar", ".parquet")
    }


def rows(folder: Path) -> list[dict[str, Any]]:
    root = folder / "runs" / "grown" / "shards"
    return [row for p in sorted(root.rglob("*.parquet")) for row in pq.read_table(p).to_pylist()]


def receipts(folder: Path, kind: str) -> set[Path]:
    return set((folder / "runs" / "artifacts").glob(f"{kind}-*/parts/*.json"))


def test_new_files_make_new_shards_and_move_none(web, tmp_path):
    table(web, tmp_path / "pool" / "b.parquet", list(range(25)))
    path = config(tmp_path, {"source": {"type": "urls", "path": str(tmp_path / "pool")}})
    run(path)
    before = shards(tmp_path)
    scored = receipts(tmp_path, "score")
    assert len(before) == 6
    assert len(scored) == 3
    assert len(web.asked) == 25
    web.asked.clear()

    table(web, tmp_path / "pool" / "a.parquet", list(range(100, 112)))  # sorts before what was there
    table(web, tmp_path / "pool" / "c.parquet", list(range(200, 205)))
    run(path)
    after = shards(tmp_path)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == [f"0000000{i}.{kind}" for i in (3, 4, 5) for kind in ("parquet", "tar")]
    assert set(web.asked) == {f"/{n}.jpg" for n in [*range(100, 112), *range(200, 205)]}
    assert len(receipts(tmp_path, "score") - scored) == 3  # only the new shards were scored
    assert len({row["key"] for row in rows(tmp_path)}) == 42

    web.asked.clear()
    (tmp_path / "pool" / "a.parquet").unlink()  # its shards leave the pool, the others stay
    run(path)
    left = shards(tmp_path)
    assert len(left) == 8
    assert left.items() <= after.items()
    assert not web.asked


def test_sources_mix_and_keep_their_names(web, tmp_path):
    table(web, tmp_path / "cats.parquet", list(range(12)), "cat")
    table(web, tmp_path / "dogs.parquet", list(range(50, 55)), "dog")
    sources = {
        "cats": {"type": "urls", "path": str(tmp_path / "cats.parquet")},
        "dogs": {"type": "urls", "path": str(tmp_path / "dogs.parquet")},
    }
    path = config(tmp_path, {"sources": sources})
    run(path)
    assert sorted(shards(tmp_path)) == [
        "cats/00000000.parquet",
        "cats/00000000.tar",
        "cats/00000001.parquet",
        "cats/00000001.tar",
        "dogs/00000000.parquet",
        "dogs/00000000.tar",
    ]
    found = rows(tmp_path)
    assert [row["source"] for row in found] == ["cats"] * 12 + ["dogs"] * 5
    assert all(f"a {row['source'][:-1]} of" in row["caption"] for row in found)
    pool = json.loads(next((tmp_path / "runs" / "artifacts").glob("pool-*/artifact.json")).read_text())["summary"]
    assert {name: facts["rows"] for name, facts in pool["sources"].items()} == {"cats": 12, "dogs": 5}

    web.asked.clear()
    table(web, tmp_path / "birds.parquet", [80, 81], "bird")
    sources["birds"] = {"type": "urls", "path": str(tmp_path / "birds.parquet")}
    run(config(tmp_path, {"sources": sources}))  # one more source: the others are not touched
    assert set(web.asked) == {"/80.jpg", "/81.jpg"}
    assert len(rows(tmp_path)) == 19


def test_a_source_and_several_sources_exclude_each_other(tmp_path):
    source = {"type": "urls", "path": "x.parquet"}
    done = curate("run", config(tmp_path, {"source": source, "sources": {"a": source}}))
    assert done.returncode == 2
    assert "`source` (one), or `sources` (several, by name)" in done.stderr


@pytest.mark.parametrize("address", ["inline", "processes"])
def test_an_image_that_many_rows_name_is_fetched_once(web, tmp_path, address):
    web.broken = {3: 404}
    numbers = [0, 1, 2, 3, 0, *range(4, 9), 1, 20, 3, 1, *range(21, 27), 26, 3, 0]
    table(web, tmp_path / "a.parquet", numbers)
    table(web, tmp_path / "b.parquet", [2, 30, 26])
    source = {"type": "urls", "path": str(tmp_path / "*.parquet")}
    run(config(tmp_path, {"source": source}, cluster={"address": address, "workers": 2}))
    assert set(web.asked.values()) == {1}
    found = rows(tmp_path)
    assert len(found) == len(numbers) + 3
    hashes: dict[str, set[str | None]] = {}
    for row in found:
        assert row["status"] == ("failed_to_download" if "/3.jpg" in row["url"] else "success")
        assert row["error_message"] == ("http_404" if "/3.jpg" in row["url"] else None)
        hashes.setdefault(row["url"], set()).add(row["sha256"])
    assert all(len(found) == 1 for found in hashes.values())
    pool = json.loads(next((tmp_path / "runs" / "artifacts").glob("pool-*/artifact.json")).read_text())["summary"]
    assert pool["copied"] == 8  # rows 10, 12, 13 of the second shard, 20, 21, 22 of the third, 2 and 26 of b


def test_only_what_failed_is_tried_again(web, tmp_path):
    web.broken = {4: 503, 13: 503, 14: 404, 15: 410}
    web.extra = {7: {"X-Robots-Tag": "noai"}}
    table(web, tmp_path / "a.parquet", list(range(30)))
    path = config(tmp_path, {"source": {"type": "urls", "path": str(tmp_path / "a.parquet")}})
    run(path)
    before, found = shards(tmp_path), rows(tmp_path)
    assert [row["error_message"] for row in found if row["error_message"]] == [
        "http_503",
        "opted_out: noai",
        "http_503",
        "http_404",
        "http_410",
    ]
    web.asked.clear()
    web.broken = {13: 503, 15: 410}
    assert "retry: 2 rows are fetched again" in run(path, "--retry", "failed:http_503")
    assert web.asked == {"/4.jpg": 1, "/13.jpg": 1}
    again = rows(tmp_path)
    assert [row["error_message"] for row in again if row["error_message"]] == [
        "opted_out: noai",
        "http_503",
        "http_404",
        "http_410",
    ]
    assert again[4]["sha256"]
    assert [r["uid"] for r in again] == [r["uid"] for r in found]
    assert [r["key"] for r in again] == [r["key"] for r in found]
    after = shards(tmp_path)
    assert after["00000002.tar"] == before["00000002.tar"]  # a shard without such failures is the same file
    web.asked.clear()
    web.broken = {}
    run(path)  # an ordinary run does nothing more
    assert not web.asked
    assert shards(tmp_path) == after
    run(path, "--retry", "failed")
    assert set(web.asked) == {"/13.jpg", "/14.jpg", "/15.jpg"}
    assert [row["error_message"] for row in rows(tmp_path) if row["error_message"]] == ["opted_out: noai"]

    refused = curate("run", path, "--retry", "failed:opted_out")
    assert refused.returncode == 2
    assert "never fetched again" in refused.stderr
    nothing = curate("run", path, "--retry", "failed:timeout")
    assert nothing.returncode == 1
    assert "no row failed with timeout; failures: opted_out 1" in nothing.stderr


def test_a_source_column_of_its_own_is_refused(web, tmp_path):
    pq.write_table(pa.table({"url": [web.url(1)], "text": ["one"], "source": ["x"]}), tmp_path / "a.parquet")
    source = {"type": "urls", "path": str(tmp_path / "a.parquet")}
    done = curate("run", config(tmp_path, {"sources": {"a": source}}))
    assert done.returncode == 2
    assert "has a column 'source' of its own" in done.stderr


def test_scores_of_a_grown_pool_equal_those_of_the_whole(web, tmp_path):
    """Growing and starting anew give the same values for the same rows."""
    table(web, tmp_path / "grown" / "pool" / "a.parquet", list(range(15)))
    grown = config(tmp_path / "grown", {"source": {"type": "urls", "path": str(tmp_path / "grown" / "pool")}})
    run(grown)
    table(web, tmp_path / "grown" / "pool" / "b.parquet", list(range(40, 47)))
    run(grown)
    for name in "ab":
        target = tmp_path / "whole" / "pool" / f"{name}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / "grown" / "pool" / f"{name}.parquet").read_bytes())
    run(config(tmp_path / "whole", {"source": {"type": "urls", "path": str(tmp_path / "whole" / "pool")}}))
    assert shards(tmp_path / "grown") == shards(tmp_path / "whole")

    def scores(folder: Path) -> list[float]:
        files = sorted((folder / "runs" / "artifacts").glob("score-*/data/*.parquet"))
        return [v for f in files for v in pq.read_table(f)["text"].to_pylist()]

    assert scores(tmp_path / "grown") == scores(tmp_path / "whole")
    assert len(scores(tmp_path / "whole")) == 22
    assert np.isfinite(scores(tmp_path / "whole")).all()


def test_a_finished_shard_without_a_receipt_is_not_fetched_again(web, tmp_path):
    """The worker was killed between the shard's last file and its receipt."""
    web.broken = {5: 404}
    table(web, tmp_path / "a.parquet", list(range(30)))
    path = config(tmp_path, {"source": {"type": "urls", "path": str(tmp_path / "a.parquet")}})
    run(path)
    before = shards(tmp_path)
    artifact = next((tmp_path / "runs" / "artifacts").glob("ingest-*"))
    receipt = artifact / "parts" / "00000000.json"
    told = json.loads(receipt.read_text())["result"]["stats"]
    receipt.unlink()
    for done in (artifact / "receipts").iterdir():
        done.unlink()
    web.asked.clear()
    run(path)
    assert not web.asked
    assert shards(tmp_path) == before
    again = json.loads(receipt.read_text())["result"]["stats"]
    assert again == {key: told[key] for key in again}
    assert again["bytes"] > 0
