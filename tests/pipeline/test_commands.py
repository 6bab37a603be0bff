"""The commands around a run, and what they print for wrong input."""

import json
import os
import stat

import numpy as np
import pytest
from small_run import curate, write_config

from curate import __version__
from curate.shards.uid import to_text

pytestmark = pytest.mark.slow


def test_plan_tells_what_is_reused(reference_run, tmp_path):
    config, _, _ = reference_run
    assert "nothing to run" in curate("plan", config).stdout
    fresh = curate("plan", config, f"workdir={tmp_path}").stdout
    assert "no earlier run to estimate from" in fresh
    assert "subset/curated/5-concept_clusters" in fresh


def test_explain_names_filter_and_value(reference_run):
    config, workdir, _ = reference_run
    kept = to_text(np.load(workdir / "small" / "subsets" / "curated.npy"))[0]
    told = curate("explain", config, kept)
    assert told.returncode == 0
    assert f"sample {kept}" in told.stdout
    line = next(line for line in told.stdout.splitlines() if line.startswith("curated"))
    assert "kept" in line
    import duckdb

    fates = next(p for p in (workdir / "artifacts").glob("subset-*") if _labels(p))
    query = f"select uid, value from '{fates}/data/*.parquet' where dropped_by = '4-top_fraction' order by uid"
    uid, value = duckdb.execute(query).fetchall()[0]
    told = curate("explain", config, uid).stdout
    line = next(line for line in told.splitlines() if line.startswith("curated") and "4-top_fraction" in line)
    assert "dropped" in line
    assert f"{value:.6g}" in line
    assert curate("explain", config, "f" * 32).returncode == 1
    assert curate("explain", config, "xyz").returncode == 2


def _labels(artifact):
    return len(json.loads((artifact / "artifact.json").read_text())["identity"]["labels"]) == 6


def test_status_of_a_finished_run(reference_run):
    config, _, _ = reference_run
    told = curate("status", config).stdout
    assert "run small: done" in told
    assert "eval/curated" in told


def test_report_is_rebuilt_on_demand(reference_run):
    config, workdir, _ = reference_run
    page = workdir / "small" / "report" / "index.html"
    page.unlink()
    assert curate("report", config).returncode == 0
    assert page.stat().st_size > 100_000


def test_init_check_schema(tmp_path):
    path = tmp_path / "new.yaml"
    assert curate("init", str(path)).returncode == 0
    assert curate("init", str(path)).returncode == 2
    checked = curate("check", str(path))
    assert checked.returncode == 2
    assert "pool/*.parquet" in checked.stderr
    schema = json.loads(curate("schema").stdout)
    assert "subsets" in schema["properties"]
    assert curate("check", write_config(tmp_path)).returncode == 0


@pytest.mark.parametrize(
    ("changes", "code", "expected"),
    [
        ({"pool__source": {"type": "urls", "path": "/nowhere/*.parquet"}}, 2, "/nowhere/*.parquet"),
        ({"pretrain__model": "ViT-B-33"}, 2, "ViT-B-3"),
        ({"encoders__dfn": {"model": "ViT-B-32", "pretrained": "/nowhere/w.pt"}}, 2, "/nowhere/w.pt"),
        ({"eval__data": ["/nowhere/sets"]}, 2, "/nowhere/sets"),
        ({"eval__data": ["digts"]}, 2, "digits"),
        ({"subsets__curated__4__kep": 0.5}, 2, "unknown key 'kep'; did you mean 'keep'?"),
        ({"subsets__curated__3__by": "dfn_scor"}, 2, "unknown column 'dfn_scor'; did you mean 'dfn_score'?"),
        ({"scores": {"dfn_score": {"type": "clip_similarity", "encoder": "dfn"}}}, 2, "add `language"),
    ],
)
def test_bad_configs_are_one_clear_line(tmp_path, changes, code, expected):
    for command in ("check", "run"):
        done = curate(command, write_config(tmp_path, **changes))
        assert done.returncode == code, done.stderr
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "runs" / "artifacts").exists()


def one_subset(filters, **more):
    return {"subsets": {"only": filters}, "release": None, "pretrain": None, "eval": None, **more}


def test_a_filter_that_keeps_nothing_says_so_and_keeps_what_is_done(tmp_path):
    config = write_config(tmp_path, **one_subset([{"type": "basic", "languages": [], "min_words": 500}]))
    done = curate("run", config)
    assert done.returncode == 1
    assert "subset/only/1-basic" in done.stderr
    assert "keeps nothing" in done.stderr
    assert "Traceback" not in done.stderr
    pools = list((tmp_path / "runs" / "artifacts").glob("pool-*/artifact.json"))
    assert len(pools) == 2  # the pool and the trusted data are kept


def test_a_column_that_the_pool_lacks_is_named(tmp_path):
    config = write_config(tmp_path, **one_subset([{"type": "threshold", "by": "sharpness", "at_least": 1}]))
    done = curate("run", config)
    assert done.returncode == 2
    assert "subset/only/1-threshold" in done.stderr
    assert "unknown column 'sharpness'" in done.stderr
    assert "Traceback" not in done.stderr


def test_empty_pool_and_pool_without_a_good_sample(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"url": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    pq.write_table(table, tmp_path / "empty.parquet")
    source = {"type": "urls", "path": str(tmp_path / "empty.parquet")}
    only = {"encoders": {}, "scores": {}, **one_subset([])}
    done = curate("run", write_config(tmp_path, pool__source=source, **only))
    assert done.returncode == 1
    assert "empty" in done.stderr
    assert "Traceback" not in done.stderr

    table = pa.table({"url": ["http://127.0.0.1:9/a.jpg", "file:///etc/passwd"], "text": ["a", "b"]})
    pq.write_table(table, tmp_path / "bad.parquet")
    source["path"] = str(tmp_path / "bad.parquet")
    done = curate("run", write_config(tmp_path, pool__source=source, **only))
    assert done.returncode == 1
    assert "no good sample" in done.stderr
    assert "address_denied 1" in done.stderr
    assert "scheme_denied 1" in done.stderr


def test_read_only_and_full_disks(tmp_path):
    config = write_config(tmp_path)
    runs = tmp_path / "runs"
    runs.mkdir()
    if os.geteuid() == 0:  # root writes anywhere: use a file in the way instead of permissions
        done = curate("run", config, f"workdir={config}")
        assert "choose another workdir" in done.stderr
    else:
        runs.chmod(stat.S_IRUSR | stat.S_IXUSR)
        done = curate("run", config)
        assert "cannot be written" in done.stderr
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_usage_errors_are_exit_code_two():
    assert curate("run").returncode == 2
    assert curate("rnu", "x.yaml").returncode == 2
    assert curate("--version").stdout == f"curate {__version__}\n"
