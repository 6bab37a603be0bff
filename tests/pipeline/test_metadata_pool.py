"""DataComp's metadata alone: parquet in, a subset file out, and no image is asked for."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from small_run import curate

from curate.shards.uid import to_records


def test_a_subset_file_from_metadata(tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.Philox(key=5))
    tables = []
    for i in range(3):
        n = 400
        score = rng.random(n).astype(np.float32)
        table = pa.table(
            {
                "uid": [f"{i:08x}{row:024x}" for row in range(n)],
                "url": [f"http://dead.invalid/{i}/{row}" for row in range(n)],
                "text": ["a picture of two cats" if row % 3 else "cats" for row in range(n)],
                "original_width": rng.integers(100, 900, n),
                "original_height": rng.integers(100, 900, n),
                "clip_l14_similarity_score": score,
                "sha256": ["0" * 64] * n,
            }
        )
        pq.write_table(table, tmp_path / f"{i}.parquet")
        tables.append(table)
    config = {
        "name": "metadata",
        "workdir": str(tmp_path / "runs"),
        "pool": {"source": {"type": "datacomp", "path": str(tmp_path), "images": False}, "samples_per_shard": 150},
        "subsets": {
            "top": [{"type": "top_fraction", "by": "clip_l14_similarity_score", "keep": 0.3}],
            "basic": [
                {"type": "basic", "languages": [], "min_words": 3, "min_chars": 6, "min_side": 200, "max_aspect": 3.0}
            ],
        },
        "cluster": {"address": "inline"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = curate("run", str(tmp_path / "config.yaml"))
    assert done.returncode == 0, done.stderr
    whole = pa.concat_tables(tables)
    uids = np.array(whole["uid"].to_pylist())
    scores = whole["clip_l14_similarity_score"].to_numpy()
    threshold = np.sort(scores)[::-1][int(len(scores) * 0.3)]
    width, height = (whole[f"original_{side}"].to_numpy() for side in ("width", "height"))
    words = np.array([len(text.split()) for text in whole["text"].to_pylist()])
    small, large = np.minimum(width, height), np.maximum(width, height)
    expected = {
        "top": scores >= threshold,
        "basic": (words > 2) & (small >= 200) & (large <= 3.0 * small),
    }
    for name, keep in expected.items():
        subset = np.load(tmp_path / "runs" / "metadata" / "subsets" / f"{name}.npy")
        assert keep.sum() > 100
        assert np.array_equal(subset, np.sort(to_records(uids[keep].tolist()), order=["f0", "f1"]))
