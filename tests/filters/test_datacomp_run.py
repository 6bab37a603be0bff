"""A DataComp pool's metadata and one config: subset files, without an image or a score being asked for."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from small_run import curate

from curate.filters.scorers.language import identify
from curate.shards.uid import to_records

CAPTIONS = [
    "a photo of two cats on the sofa",
    "a dog\nin the park with its owner",
    "eine Katze sitzt auf dem Tisch im Garten",
    "the dog",
    "\n\n\n\n\n\n",
]


def write_metadata(folder: Path) -> pa.Table:
    """Two parquet files with npz beside them; the first rows' uids begin with zeros, and one file lost them."""
    folder.mkdir()
    rng = np.random.Generator(np.random.Philox(key=9))
    tables = []
    for i in range(2):
        n = 300
        score = (rng.integers(20, 40, n) / np.float32(100)).astype(np.float32)
        score[rng.random(n) < 0.05] = np.nan
        image = rng.standard_normal((n, 4)).astype(np.float16)
        uids = [f"{row * 2 + i:032x}" for row in range(n)]
        table = pa.table(
            {
                "uid": uids if i else [uid.lstrip("0") or "0" for uid in uids],
                "url": [f"http://dead.invalid/{i}/{row}" for row in range(n)],
                "text": [CAPTIONS[k] for k in rng.integers(0, len(CAPTIONS), n)],
                "original_width": rng.choice([0, 199, 200, 600, 601], n),
                "original_height": rng.choice([200, 300], n),
                "clip_l14_similarity_score": score,
                "clip_b32_similarity_score": score[::-1].copy(),
                "sha256": ["0" * 64] * n,
            }
        )
        pq.write_table(table, folder / f"{i}.parquet")
        np.savez(folder / f"{i}.npz", l14_img=image, l14_txt=image, b32_img=image, b32_txt=image, dedup=np.zeros(n))
        tables.append(table.append_column("image", pa.array(list(image.astype(np.float32)))))
    return pa.concat_tables(tables)


def test_subset_files_in_one_command(tmp_path: Path) -> None:
    whole = write_metadata(tmp_path / "metadata")
    centroids = np.random.Generator(np.random.Philox(key=2)).standard_normal((6, 4)).astype(np.float32)
    np.save(tmp_path / "centroids.npy", centroids)
    np.save(tmp_path / "targets.npy", np.array([0, 2, 5]))
    files = {"centroids": str(tmp_path / "centroids.npy"), "target_clusters": str(tmp_path / "targets.npy")}
    subsets = {
        "basic": [{"type": "datacomp", "baseline": "basic_filter"}],
        "clip30": [{"type": "datacomp", "baseline": "clip_score", "arch": "l14", "fraction": 0.3}],
        "laion": [{"type": "datacomp", "baseline": "laion2b", "language_by": "fasttext"}],
        "image": [{"type": "datacomp", "baseline": "image_based", "encoder": "l14", **files}],
        "both": [{"type": "subsets", "op": "intersection", "of": ["basic", "clip30"]}],
        "sql": [{"type": "where", "sql": "clip_l14_similarity_score >= 0.29 AND subset.basic = 1"}],
        "best": [{"type": "top_k", "by": "clip_l14_similarity_score", "count": 37}],
        "each": [{"type": "quota", "per": "caption", "count": 11}],
    }
    config = {
        "name": "metadata",
        "workdir": str(tmp_path / "runs"),
        "pool": {
            "source": {"type": "datacomp", "path": str(tmp_path / "metadata"), "images": False},
            "samples_per_shard": 120,
        },
        "encoders": {"l14": {"embeddings": {"type": "datacomp", "path": str(tmp_path / "metadata"), "arch": "l14"}}},
        "subsets": subsets,
        "cluster": {"address": "inline"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = curate("run", str(tmp_path / "config.yaml"))
    assert done.returncode == 0, done.stderr

    records = to_records(whole["uid"].to_pylist())
    captions = whole["text"].to_pylist()
    l14, b32 = (whole[f"clip_{arch}_similarity_score"].to_numpy() for arch in ("l14", "b32"))
    width, height = (whole[f"original_{side}"].to_numpy() for side in ("width", "height"))
    asked = identify(captions)[0].to_pylist()
    english = np.array([c == "en" or not t.strip() for c, t in zip(asked, captions, strict=True)])
    words = np.array([len(t.split()) for t in captions])
    small, large = np.minimum(width, height), np.maximum(width, height)
    basic = english & (words > 2) & (small >= 200) & (large <= 3 * small)
    ranked = np.sort(l14[~np.isnan(l14)])[::-1]
    clip30 = l14 >= ranked[int(len(l14) * 0.3)]
    cluster = (np.stack(whole["image"].to_pylist()).astype(np.float32) @ centroids.T).argmax(axis=1)
    long = np.array([len(t) > 5 for t in captions])  # two tokens all of them have
    order = np.lexsort((records["f1"], records["f0"], -np.nan_to_num(l14, nan=-9.0)))
    best = np.zeros(len(l14), bool)
    best[order[:37]] = True
    expected = {
        "basic": basic,
        "clip30": clip30,
        "laion": english & (b32 >= np.float32(0.28)),
        "image": english & long & np.isin(cluster, [0, 2, 5]),
        "both": basic & clip30,
        "sql": basic & (l14 >= np.float32(0.29)),
        "best": best,
    }
    found = {name: np.load(tmp_path / "runs" / "metadata" / "subsets" / f"{name}.npy") for name in subsets}
    for name, keep in expected.items():
        assert 0 < keep.sum() < len(keep), name
        assert np.array_equal(found[name], np.sort(records[keep], order=["f0", "f1"])), name
    assert len(found["each"]) == 11 * len(CAPTIONS)


def test_slips_of_the_pen_are_found_before_work_starts(tmp_path: Path) -> None:
    write_metadata(tmp_path / "metadata")
    config = {
        "name": "slips",
        "workdir": str(tmp_path / "runs"),
        "pool": {"source": {"type": "datacomp", "path": str(tmp_path / "metadata"), "images": False}},
        "scores": {"language": {"type": "language"}},
        "subsets": {"sql": [{"type": "where", "sql": "langage = 'en'"}]},
        "cluster": {"address": "inline"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = curate("plan", str(tmp_path / "config.yaml"))
    assert done.returncode == 2
    assert "unknown column 'langage'; did you mean 'language'?" in done.stderr.replace("\n", " ")
