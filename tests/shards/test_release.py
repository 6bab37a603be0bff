import subprocess
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import DataError
from curate.shards.release import (
    Datasheet,
    FunnelStep,
    datasheet,
    seal,
    sha256,
    verify,
    write_datasheet,
    write_metadata,
    write_provenance,
    write_release_subset,
)
from curate.shards.uid import read_subset, to_records

SHEET = Datasheet(
    name="digits-curated",
    summary="Handwritten digits with captions.",
    samples=1234,
    unique=1200,
    shards=2,
    bytes=2_500_000,
    sources=["digits.test"],
    pool=4000,
    funnel=[FunnelStep("basic", 3000, {"language": 600, "words": 400}), FunnelStep("top_fraction by dfn_score", 1200)],
    columns={"uid": "id", "dfn_score": "similarity"},
    licence="Metadata: CC-BY-4.0.",
    opt_out="X-Robots-Tag was honoured.",
    limits="Ten classes.",
)


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "00000000.tar").write_bytes(b"tar bytes")
    table = pa.table({"uid": ["a" * 32, "b" * 32], "score": pa.array([0.5, None], pa.float32())})
    write_metadata(str(folder), "00000000", table.replace_schema_metadata({"made": "by chance"}))
    write_release_subset(str(folder), "curated", to_records(["b" * 32, "a" * 32]))
    write_provenance(str(folder), {"seed": 0, "stages": [{"name": "ingest"}]})
    write_datasheet(str(folder), SHEET)
    return folder


def test_files_are_readable_and_sealed(tmp_path: Path) -> None:
    folder = make(tmp_path / "release")
    sums = seal(str(folder))
    assert list(sums) == ["00000000.tar", "README.md", "curated.npy", "metadata/00000000.parquet", "provenance.json"]
    assert pq.read_table(folder / "metadata/00000000.parquet").to_pydict()["score"] == [0.5, None]
    assert len(read_subset(str(folder / "curated.npy"))) == 2
    assert verify(str(folder)) == []


def test_sha256sum_agrees(tmp_path: Path) -> None:
    folder = make(tmp_path / "release")
    seal(str(folder))
    run = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(": OK") == 5


def test_verify_names_every_kind_of_problem(tmp_path: Path) -> None:
    folder = make(tmp_path / "release")
    seal(str(folder))
    (folder / "00000000.tar").write_bytes(b"tar bytez")
    (folder / "curated.npy").unlink()
    (folder / "metadata" / "stray.txt").write_text("x")
    (folder / ".tmp-123-torn").write_text("left by a killed writer")
    assert verify(str(folder)) == ["changed: 00000000.tar", "missing: curated.npy", "extra: metadata/stray.txt"]


def test_same_inputs_same_bytes_and_resealing_changes_nothing(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    assert seal(str(one)) == seal(str(two)) == seal(str(one))
    assert (one / "SHA256SUMS").read_bytes() == (two / "SHA256SUMS").read_bytes()


def test_known_digests_are_not_read_again(tmp_path: Path) -> None:
    folder = make(tmp_path / "release")
    known = {"00000000.tar": sha256(str(folder / "00000000.tar"))}
    seen = []
    assert (
        seal(str(folder), known, lambda done, total: seen.append((done, total)))["00000000.tar"]
        == known["00000000.tar"]
    )
    assert seen[-1] == (5, 5)
    assert verify(str(folder)) == []


def test_works_on_an_object_store(tmp_path: Path) -> None:
    import fsspec

    folder = "memory://releases/one"
    write_provenance(folder, {"seed": 0})
    write_datasheet(folder, SHEET)
    assert list(seal(folder)) == ["README.md", "provenance.json"]
    assert verify(folder) == []
    fsspec.filesystem("memory").pipe("/releases/one/provenance.json", b"{}")
    assert verify(folder) == ["changed: provenance.json"]


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file"):
        seal(str(tmp_path))
    with pytest.raises(DataError, match="no finished release"):
        verify(str(tmp_path))
    (tmp_path / "SHA256SUMS").write_text("not a sum\n")
    with pytest.raises(DataError, match="line 1"):
        verify(str(tmp_path))


def test_datasheet_tells_the_funnel() -> None:
    text = datasheet(SHEET)
    assert "| basic | language 600, words 400 | 3,000 | 1,000 |" in text
    assert "| top\\_fraction by dfn\\_score |  | 1,200 | 1,800 |" in text
    assert "| samples | 1,234 |" in text
    assert "| size | 2.5 MB |" in text
    assert "{00000000..00000001}.tar" in text
    assert "## Citation" not in text
    for section in ("Licence", "Opting out", "Limits", "Composition"):
        assert f"\n## {section}\n" in text


def test_names_cannot_break_out_of_a_table() -> None:
    text = datasheet(replace(SHEET, name="a\n# b", facts={"x": "<script>|\n[l](http://h)"}))
    assert text.startswith("# a # b\n")
    assert "| x | \\<script\\>\\| \\[l\\](http://h) |" in text
