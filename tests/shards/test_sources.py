from curate.shards.sources import SOURCES


def test_all_sources_are_registered() -> None:
    assert set(SOURCES) == {"urls", "shards", "folder", "parquet", "datacomp", "demo"}
