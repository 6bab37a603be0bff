"""The demo as a source, end to end: every planted fault is met over HTTP and ends as the truth says."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.errors import DataError
from curate.shards.row_table import reason
from curate.shards.shard import succeeded
from curate.shards.sources import SOURCES
from curate.shards.sources.base import Ingested, IngestOptions, Slot
from curate.shards.sources.demo import DemoSource

OPTIONS = IngestOptions.model_validate(
    {"image": {"size": 32, "resize": "keep_ratio"}, "fetch": {"retries": 0}, "samples_per_shard": 150}
)
OUTCOMES = {
    "ok": {"success"},
    "redirect": {"success"},
    "not_found": {"http_404"},
    "server_error": {"http_500"},
    "refused": {"refused"},
    "redirect_loop": {"too_many_redirects"},
    "truncated": {"truncated", "corrupt"},
    "cut_off": {"incomplete_read"},
    "mislabelled": {"not_image", "corrupt"},
    "oversized": {"too_many_pixels"},
    "private": {"address_denied"},
    "opted_out": {"opted_out"},
}


def source(**options: object) -> DemoSource:
    found = SOURCES["demo"].model_validate({"type": "demo", "rows": 400, "trusted_rows": 40, **options})
    assert isinstance(found, DemoSource)
    return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("prepared"))
    source().prepare(out, 3)
    return out


def ingest(demo: DemoSource, prepared: str, out: Path) -> list[Ingested]:
    with demo.online(prepared) as routes:
        parts = demo.parts(prepared, OPTIONS.samples_per_shard)
        slots = [Slot(i, f"{i:08d}", str(out), connect_to=routes) for i in range(len(parts))]
        return [demo.ingest(part, slot, OPTIONS) for part, slot in zip(parts, slots, strict=True)]


@pytest.fixture(scope="module")
def pool(prepared: str, tmp_path_factory: pytest.TempPathFactory) -> list[Ingested]:
    return ingest(source(), prepared, tmp_path_factory.mktemp("pool"))


def truth_of(prepared: str, split: str) -> list[dict]:
    path = source().truth(prepared)
    assert path is not None
    return [row for row in pq.read_table(path).to_pylist() if row["split"] == split]


def test_every_row_ends_as_the_truth_says(pool: list[Ingested], prepared: str) -> None:
    truth = truth_of(prepared, "pool")
    rows = [row for done in pool for row in done.shard.read_table().to_pylist()]
    assert [row["uid"] for row in rows] == [row["uid"] for row in truth]
    for row, real in zip(rows, truth, strict=True):
        assert reason(row["error_message"]) in OUTCOMES[real["fetch"]], (row["url"], real["fetch"])
        assert (row["status"] == "success") == real["readable"]
    assert sum(done.stats["successes"] for done in pool) == sum(row["readable"] for row in truth)
    assert Counter(len(done.shard.read_table()) for done in pool) == {150: 2, 100: 1}


def test_extra_columns_and_captions_are_carried(pool: list[Ingested], prepared: str) -> None:
    given = pq.read_table(f"{prepared}/pool.parquet")
    tables = [done.shard.read_table() for done in pool]
    assert [t for table in tables for t in table["caption"].to_pylist()] == given["text"].to_pylist()
    assert [t for table in tables for t in table["site"].to_pylist()] == given["site"].to_pylist()


def test_hashes_show_the_exact_copies(pool: list[Ingested], prepared: str) -> None:
    truth = truth_of(prepared, "pool")
    hashes = [h for done in pool for h in done.shard.read_table()["sha256"].to_pylist()]
    first: dict[str, int] = {}
    for row, digest in zip(truth, hashes, strict=True):
        if row["readable"]:
            assert row["group_exact"] == first.setdefault(digest, row["row"])


def test_trusted_pairs_share_the_prepared_web_and_are_clean(prepared: str, tmp_path: Path) -> None:
    trusted = source(split="trusted")
    assert trusted.preparation() == source().preparation() != source(rows=500).preparation()
    assert "split" not in trusted.preparation()
    assert trusted.fingerprint() == source().fingerprint()
    done = ingest(trusted, prepared, tmp_path)
    assert [d.stats["successes"] for d in done] == [40]
    table = done[0].shard.read_table()
    assert succeeded(table).all()
    assert table["uid"].to_pylist() == [row["uid"] for row in truth_of(prepared, "trusted")]


def test_parts_are_the_same_whatever_happens(prepared: str) -> None:
    assert source().parts(prepared, 150) == source().parts(prepared, 150)
    assert len(source().parts(prepared, 400)) == 1


def test_ingesting_again_gives_the_same_tars(pool: list[Ingested], prepared: str, tmp_path: Path) -> None:
    for before, after in zip(pool, ingest(source(), prepared, tmp_path), strict=True):
        assert Path(before.shard.tar).read_bytes() == Path(after.shard.tar).read_bytes()
        assert Path(before.shard.table).read_bytes() == Path(after.shard.table).read_bytes()


def test_a_dead_server_is_an_error_not_a_pool_of_dead_links(prepared: str, tmp_path: Path) -> None:
    demo = source()
    with demo.online(prepared) as routes:
        part = demo.parts(prepared, 20)[0]
    with pytest.raises(DataError, match="went away"):
        demo.ingest(part, Slot(0, "00000000", str(tmp_path), connect_to=routes), OPTIONS)


def test_tars_hold_what_the_table_says(pool: list[Ingested]) -> None:
    for done in pool:
        table, tar = done.shard.read_table(), done.shard.open()
        good = table.filter(succeeded(table))
        assert tar.keys == good["key"].to_pylist()
        sides = np.minimum(good["width"].to_numpy(), good["height"].to_numpy())
        assert sides.max() == 32
