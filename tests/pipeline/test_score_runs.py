"""Scores from the command line: one pass over the pictures, nothing made twice, the same bytes whatever happens."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from score_run import config, digits_pool, encoders, make_files
from small_run import curate, outputs

LOOKING = ("embed/rn", "embed/vit", "score/quality", "score/hash")
SCORES: dict[str, Any] = {
    "rn_score": {"type": "clip_similarity", "encoder": "rn"},
    "vit_score": {"type": "clip_similarity", "encoder": "vit"},
    "dfn_score": {"type": "clip_similarity", "encoder": "dfn"},
    "quality": {"type": "image_quality"},
    "hash": {"type": "perceptual_hash"},
    "language": {"type": "language"},
    "words": {"type": "caption_statistics"},
    "contrast": {"type": "s_clip_loss", "encoder": "dfn", "batch_size": 64, "permutations": 2},
    "near": {"type": "norm_sim", "encoder": "dfn", "target": "trusted"},
    "digit": {"type": "class_prompts", "encoder": "dfn", "classes": ["zero", "one"], "templates": ["the number {c}"]},
    "mixed": {"type": "mix", "columns": ["dfn_score", "words"], "learn": {"type": "logistic", "trusted": "trusted"}},
}
SUBSETS = {"everything": [], "top": [{"type": "top_fraction", "by": "mixed", "keep": 0.3}]}


def run(path: str, *arguments: str) -> str:
    done = curate("run", path, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def artifact(workdir: Path, stage: str) -> Path:
    plan = json.loads((workdir / "scored" / "plan.json").read_text())
    return workdir / "artifacts" / next(s["artifact"] for s in plan["stages"] if s["name"] == stage)


def summary(workdir: Path, stage: str) -> dict[str, Any]:
    folder = artifact(workdir, stage) / "receipts"
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return next(receipt["summary"] for receipt in found if receipt["stage"] == stage)


def shard_names(workdir: Path) -> list[str]:
    """Of the pool alone: the folders of stages that grow hold those of the target set, too."""
    receipt = json.loads((artifact(workdir, "pool") / "artifact.json").read_text())
    return [entry["name"] for entry in receipt["summary"]["shards"]]


def column(workdir: Path, score: str, name: str | None = None) -> np.ndarray:
    folder = artifact(workdir, f"score/{score}") / "data"
    return np.concatenate(
        [pq.read_table(folder / f"{n}.parquet")[name or score].to_numpy() for n in shard_names(workdir)]
    )


def vectors(workdir: Path, encoder: str, modality: str) -> np.ndarray:
    folder = artifact(workdir, f"embed/{encoder}") / "data"
    return np.concatenate([np.load(folder / f"{n}.{modality}.npy") for n in shard_names(workdir)])


def part_seconds(workdir: Path, stage: str) -> list[float]:
    folder = artifact(workdir, stage) / "parts"
    return [json.loads((folder / f"{n}.json").read_text())["seconds"] for n in shard_names(workdir)]


@pytest.fixture(scope="session")
def scored_run(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Every kind of score over the demo pool, in one process: folder, and digest of every output."""
    folder = tmp_path_factory.mktemp("scored")
    make_files(folder)
    functions = {"vowels": {"type": "python", "function": f"{folder}/house_scores.py:vowels", "columns": ["caption"]}}
    run(config(folder, SCORES | functions, subsets=SUBSETS))
    return folder, outputs(folder / "runs")


def test_rows_without_a_picture_are_counted_nulls(scored_run):
    workdir = scored_run[0] / "runs"
    tables = sorted((workdir / "scored" / "shards").glob("*.parquet"))
    status = np.concatenate([pq.read_table(t)["status"].to_numpy(zero_copy_only=False) for t in tables])
    there = status == "success"
    assert 100 < there.sum() < len(there) == 240
    for encoder in ("rn", "vit", "dfn"):
        image, text = vectors(workdir, encoder, "image"), vectors(workdir, encoder, "text")
        assert image.dtype == text.dtype == (np.float32 if encoder == "vit" else np.float16)
        assert (np.isfinite(image).all(1) == there).all()
        assert np.allclose(np.linalg.norm(image[there].astype(np.float64), axis=1), 1, atol=1e-3)
        counts = summary(workdir, f"embed/{encoder}")
        assert counts["rows"] == 240
        assert counts["images"] == there.sum()
        assert counts["corrupt"] == counts["missing"] == counts["not_finite"] == 0
        products = np.einsum("ij,ij->i", image.astype(np.float64), text.astype(np.float64))
        assert np.allclose(column(workdir, f"{encoder}_score"), products, atol=1e-6, equal_nan=True)
    assert (np.isfinite(column(workdir, "quality")) == there).all()
    folder = artifact(workdir, "embed/rn") / "data"
    told = [pq.read_table(folder / f"{name}.status.parquet").to_pylist() for name in shard_names(workdir)]
    expected = [{"image": word, "text": word} for word in np.where(there, "ok", "not_fetched")]
    assert [row for rows in told for row in rows] == expected


def test_one_pass_serves_all_who_look(scored_run):
    workdir = scored_run[0] / "runs"
    first, *along = (part_seconds(workdir, stage) for stage in LOOKING)
    assert all(seconds > 0 for seconds in first)
    assert len(first) == 6
    assert all(seconds == [0.0] * 6 for seconds in along)  # found done


def test_a_new_encoder_and_score_leave_the_others_alone(scored_run, tmp_path):
    folder, before = scored_run
    for name in ("runs", "rn.pt", "vit.pt", "house_scores.py"):
        (shutil.copytree if name == "runs" else shutil.copy)(folder / name, tmp_path / name)
    more = encoders(tmp_path) | {"fine": {**encoders(tmp_path)["rn"], "store": "float32"}}
    scores = {k: v for k, v in SCORES.items() if k != "mixed"} | {
        "fine_score": {"type": "clip_similarity", "encoder": "fine"},
        "size": {"type": "image_size"},
    }
    path = config(tmp_path, scores, encoders=more, subsets={"everything": []})
    told = run(path)
    assert "4 stages run" in told  # embed/fine, score/fine_score, score/size, report
    after = outputs(tmp_path / "runs")
    assert all(after[name] == digest for name, digest in before.items())
    workdir = tmp_path / "runs"
    assert part_seconds(workdir, "score/size") == [0.0] * 6  # with embed/fine
    assert np.array_equal(
        vectors(workdir, "fine", "image").astype(np.float16), vectors(workdir, "rn", "image"), equal_nan=True
    )
    assert "0 stages run" in run(path)


def test_workers_do_not_matter(scored_run, tmp_path):
    folder, expected = scored_run
    make_files(tmp_path)
    shutil.copy(folder / "house_scores.py", tmp_path)
    for name in ("rn.pt", "vit.pt"):
        shutil.copy(folder / name, tmp_path / name)
    function = f"{folder}/house_scores.py:vowels"  # the path is an option, so it is part of the fingerprint
    functions = {"vowels": {"type": "python", "function": function, "columns": ["caption"]}}
    run(config(tmp_path, SCORES | functions, "processes", subsets=SUBSETS))
    assert outputs(tmp_path / "runs") == expected


def test_a_users_function_is_part_of_the_fingerprint(tmp_path):
    make_files(tmp_path)
    function = {"type": "python", "function": f"{tmp_path}/house_scores.py:vowels", "columns": ["caption"]}
    path = config(tmp_path, {"vowels": function}, encoders={}, targets={})
    run(path)
    before = column(tmp_path / "runs", "vowels")
    source = tmp_path / "house_scores.py"
    source.write_text(source.read_text().replace("[aeiou]", "[aeiouy]"))
    assert "2 stages run" in run(path)  # the score and the report
    assert (column(tmp_path / "runs", "vowels") >= before).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": {"n": {"type": "norm_sim", "encoder": "rn", "target": "trustd"}}}, "did you mean 'trusted'"),
        ({"scores": {"s": {"type": "clip_similarity", "encoder": "vitt"}}}, "did you mean 'vit'"),
        (
            {
                "scores": {
                    "s": {"type": "s_clip_loss", "encoder": "rn"},
                    "m": {"type": "mix", "columns": ["s"], "learn": {"type": "logistic", "trusted": "trusted"}},
                }
            },
            "depends on the whole pool",
        ),
        (
            {
                "encoders": {"eye": {"model": "timm:resnet10t", "pretrained": "pyproject.toml"}},
                "scores": {"s": {"type": "clip_similarity", "encoder": "eye"}},
            },
            "makes no text embeddings",
        ),
        ({"encoders": {"x": {"of": "rn", "mask_text": True}}}, "unknown encoder 'rn'"),
        ({"encoders": {"x": {"model": "RN-mini-32"}}}, "exactly one of"),
        (
            {
                "scores": {
                    "m": {
                        "type": "mix",
                        "columns": ["x"],
                        "learn": {"type": "m_flyt", "downstream": "digits", "step": 4},
                    }
                }
            },
            "did you mean 'steps'",
        ),
        ({"scores": {"p": {"type": "python", "function": "nowhere:f", "columns": ["caption"]}}}, "nowhere"),
        ({"scores": {"a": {"type": "aesthetic", "encoder": "rn", "weights": "gone.npz"}}}, "gone.npz"),
    ],
)
def test_mistakes_are_told_before_any_work(tmp_path, changes, said):
    make_files(tmp_path)
    path = config(tmp_path, changes.pop("scores", {}), **changes)
    done = curate("check", path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_shard_stops_only_itself(tmp_path):
    make_files(tmp_path)
    path = config(tmp_path, {"quality": {"type": "image_quality"}}, encoders={}, targets={})
    run(path, "--until", "pool")
    receipt = json.loads((artifact(tmp_path / "runs", "pool") / "artifact.json").read_text())
    tar = tmp_path / "runs" / "artifacts" / receipt["summary"]["shards"][2]["tar"]
    whole = tar.read_bytes()
    tar.unlink()
    done = curate("run", path, "--until", "score")
    assert done.returncode == 1
    assert "1 of 6 parts failed" in done.stderr
    assert shard_names(tmp_path / "runs")[2] in done.stderr
    tar.write_bytes(whole)
    run(path, "--until", "score")
    assert len(column(tmp_path / "runs", "quality")) == 240


@pytest.mark.slow
def test_kills_in_the_image_pass_change_no_byte(tmp_path):
    make_files(tmp_path)
    pool = digits_pool(tmp_path / "pool", shards=30, rows=120)
    scores = {name: SCORES[name] for name in ("rn_score", "vit_score", "quality", "hash", "words")}
    options = {
        "pool": {"source": {"type": "shards", "path": str(pool)}},
        "encoders": {name: encoders(tmp_path)[name] for name in ("rn", "vit")},
        "targets": {},
    }
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    for folder in (quiet, disturbed):
        folder.mkdir()
    run(config(quiet, scores, "processes", **options), "--until", "score")
    expected = outputs(quiet / "runs")

    path = config(disturbed, scores, "processes", **options)
    command = [sys.executable, "-m", "curate.pipeline.cli", "run", path, "--until", "score"]
    moments = random.Random("image pass")
    hit = {"driver": 0, "worker": 0}
    for kill in range(8):
        with open(disturbed / "log", "a") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ))
        _wait_for_parts(driver, disturbed / "runs", moments.randrange(1, 40))
        if driver.poll() is not None:
            break
        family = psutil.Process(driver.pid).children(recursive=True)
        if kill % 2 and family:
            os.kill(moments.choice(family).pid, signal.SIGKILL)
            hit["worker"] += 1
            time.sleep(moments.uniform(0, 1))
        hit["driver"] += driver.poll() is None
        driver.kill()
        driver.wait()
        for process in family:
            if process.is_running():
                process.kill()
        psutil.wait_procs(family, timeout=10)
    assert hit["driver"] >= 3
    run(path, "--until", "score")
    assert outputs(disturbed / "runs") == expected


def _wait_for_parts(driver: subprocess.Popen, workdir: Path, more: int) -> None:
    """Until the run has so many more receipts of looking stages than now, or has ended."""

    def receipts() -> int:
        return sum(1 for kind in ("embed", "score") for _ in workdir.glob(f"artifacts/{kind}-*/parts/*.json"))

    before, deadline = receipts(), time.monotonic() + 60
    while driver.poll() is None and receipts() < before + more and time.monotonic() < deadline:
        time.sleep(0.02)


def test_scores_that_train_and_a_filter_of_the_users_reach_the_report(tmp_path):
    make_files(tmp_path)
    pool = digits_pool(tmp_path / "pool", shards=2, rows=40)
    (tmp_path / "keep.py").write_text(
        "import pyarrow.compute as pc\n\n\ndef keep(t):\n    return pc.less(t['hard'], 5)\n"
    )
    training = {"downstream": "digits", "steps": 3, "batch_size": 16, "downstream_batch": 16}
    scores = {
        "rn_score": SCORES["rn_score"],
        "words": SCORES["words"],
        "learned": {
            "type": "mix",
            "columns": ["rn_score", "words"],
            "learn": {"type": "m_flyt", "encoder": "rn", **training},
        },
        "head": {"type": "flyt", "features": "rn", "train": {"model": "RN-mini-32", **training}},
        "hard": {"type": "el2n", "label": "caption", "seeds": 1, "epochs": 1},
    }
    chosen = [{"type": "python", "function": f"{tmp_path}/keep.py:keep", "columns": ["hard"]}]
    more = {"encoders": {"rn": encoders(tmp_path)["rn"]}, "targets": {}, "subsets": {"kept": chosen}}
    run(config(tmp_path, scores, pool={"source": {"type": "shards", "path": str(pool)}}, **more))
    workdir = tmp_path / "runs"
    for name in ("learned", "head", "hard"):
        assert np.isfinite(column(workdir, name)).sum() > 60
    report = json.loads((workdir / "scored" / "report" / "report.json").read_text())
    assert "keep.py:keep" in json.dumps(report)
