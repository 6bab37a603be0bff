"""Interchange with the real img2dataset and the webdataset that it pins, in both directions.

    python benchmarks/interchange.py [--json] [--keep FOLDER]

1. Ours -> theirs: a pool is ingested by `curate run --until pool` from a loopback server, with captions of all kinds
   and URLs that fail. img2dataset in its incremental mode is then pointed at the shard folder with the same URLs and
   must find nothing to do: no request, no file changed, exit 0. (As a control, one ``_stats.json`` is taken away, and
   it must do exactly that shard.) webdataset must read every sample as our tables describe it.
2. Theirs -> ours: img2dataset ingests the same URLs, and the source `shards` takes its folder: the same rows,
   statuses, captions, hashes, sizes and bytes, ids that are the input's where it has them, and the same ids from a
   moved copy. A tear in a tar is reported and costs only what it tore.

Prints one line per check and exits with 1 if any fails. `--json` adds one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peers
import photographs
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from ingest_sides import Server

IMAGES, ROWS, PER_SHARD = 44, 50, 20  # of the rows, the last ones have no image
NO_IMAGE = b"<html>this is no image</html>"

READ_WEBDATASET = """
import hashlib, json, sys, webdataset as wds
data = wds.WebDataset(sys.argv[1:], shardshuffle=False).decode("pil", only=["jpg"])
for s in data:
    print(json.dumps({
        "key": s["__key__"], "size": s["jpg"].size, "mode": s["jpg"].mode, "txt": s["txt"].decode(),
        "json": json.loads(s["json"]),
    }))
print(json.dumps(wds.__version__))
"""


class Checks:
    """Named checks: shown as they are made, counted at the end."""

    def __init__(self) -> None:
        self.results: dict[str, bool] = {}

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        self.results[name] = bool(passed)
        print(f"  {'ok' if passed else 'FAILED':8}{name}{f': {detail}' if detail else ''}", flush=True)

    def equal(self, name: str, found: Any, expected: Any) -> None:
        same = found == expected
        self.check(name, same, "" if same else f"{_short(found)} instead of {_short(expected)}")


def _short(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) > 3:
        return f"[{', '.join(map(repr, value[:3]))}, ... {len(value)}]"
    return repr(value)[:300]


def pool_rows(port: int) -> pa.Table:
    """The input of both: ids, URLs (six of them dead) and captions (empty, null, with line breaks, far from ASCII)."""
    odd = [None, "", "two\nlines", "Ünïcode – 猫 \U0001f408", 'with "quotes", commas', "a.dot", " space "]
    texts = [odd[i] if i < len(odd) else f"a picture of scene {i}" for i in range(ROWS)]
    uids = [hashlib.blake2b(str(i).encode(), digest_size=16).hexdigest() for i in range(ROWS)]
    urls = [f"http://127.0.0.1:{port}/images/{i}.jpg" for i in range(ROWS)]
    return pa.table({"uid": uids, "url": urls, "text": pa.array(texts, pa.string())})


def curate(folder: Path, source: dict[str, Any]) -> tuple[list[tuple[Path, Path]], dict[str, Any]]:
    """Run the pool of a config with that source; returns tar and table of each shard, and the pool's summary."""
    folder.mkdir(parents=True)
    config = {
        "name": "interchange",
        "workdir": str(folder / "runs"),
        "pool": {
            "source": source,
            "image": {"size": 256, "resize": "keep_ratio", "only_if_bigger": False},
            "fetch": {"allow_private": True, "retries": 0},
            "samples_per_shard": PER_SHARD,
        },
        "cluster": {"address": "inline"},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    _run([sys.executable, "-m", "curate.pipeline.cli", "run", str(path), "--until", "pool"])
    artifacts = folder / "runs" / "artifacts"
    summary = json.loads(next(artifacts.glob("pool-*/artifact.json")).read_text())["summary"]
    return [(artifacts / s["tar"], artifacts / s["table"]) for s in summary["shards"]], summary


def img2dataset(python: Path, urls: Path, out: Path) -> None:
    """img2dataset in its default, incremental mode."""
    options = {
        "url_list": urls,
        "input_format": "parquet",
        "caption_col": "text",
        "save_additional_columns": '["uid"]',
        "output_format": "webdataset",
        "output_folder": out,
        "number_sample_per_shard": PER_SHARD,
        "oom_shard_count": 8,
        "resize_mode": "keep_ratio",
        "thread_count": 8,
    }
    _run([str(python.parent / "img2dataset"), *(f"--{name}={value}" for name, value in options.items())])


def _run(command: list[str]) -> str:
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise SystemExit(f"{' '.join(command[:5])} ... ended with {result.returncode}:\n{result.stderr[-3000:]}")
    return result.stdout


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows_of(tables: list[Path]) -> list[dict[str, Any]]:
    """Rows of several row tables."""
    return [row for table in tables for row in pq.read_table(table).to_pylist()]


def payloads(tars: list[Path]) -> dict[str, bytes]:
    """Stored images by key, read by the standard library."""
    import tarfile

    found = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    file = tar.extractfile(member)
                    assert file is not None
                    found[member.name.removesuffix(".jpg")] = file.read()
    return found


def ours_to_theirs(check: Checks, python: Path, urls: Path, folder: Path, server: Server) -> None:
    print("our shards, their tools")
    shards, _ = curate(folder / "ours", {"type": "urls", "path": str(urls)})
    copy = folder / "ours-for-img2dataset"
    shutil.copytree(shards[0][0].parent, copy)
    foreign = [p.name for p in copy.glob("*.json") if not p.name.partition("_")[0].isdigit()]
    check.equal("no foreign .json at the top of the shard folder", foreign, [])
    before, asked = contents(copy), server.cpu()
    img2dataset(python, urls, copy)
    after = {name: digest for name, digest in contents(copy).items() if not name.startswith("_tmp")}
    check.equal("img2dataset, incremental: finds nothing to do, changes no file", after, before)
    check.check("img2dataset, incremental: asks the server for nothing", server.cpu() - asked < 0.02)
    (copy / "00000001_stats.json").unlink()
    img2dataset(python, urls, copy)
    changed = sorted(name for name, digest in contents(copy).items() if before.get(name) != digest)
    again = [f"00000001{end}" for end in (".parquet", ".tar", "_stats.json")]
    check.equal("control: without one _stats.json it does that shard alone", changed, again)

    rows = [row for row in rows_of([table for _, table in shards]) if row["status"] == "success"]
    expected = [
        (r["key"], (r["width"], r["height"]), r["caption"] or "", r["uid"], r["url"], r["sha256"]) for r in rows
    ]
    for name, reader in (("pinned by img2dataset", python), ("current", Path(sys.executable))):
        lines = _run([str(reader), "-c", READ_WEBDATASET, *(str(tar) for tar, _ in shards)]).splitlines()
        version = json.loads(lines.pop())
        samples = [json.loads(line) for line in lines]
        found = [
            (s["key"], tuple(s["size"]), s["txt"], s["json"]["uid"], s["json"]["url"], s["json"]["sha256"])
            for s in samples
        ]
        check.equal(f"webdataset {version} ({name}) reads {len(expected)} samples as our tables say", found, expected)
    order = ["uid", "caption", "url", "key", "status", "error_message", "width", "height"]
    order += ["original_width", "original_height", "exif", "sha256"]
    check.equal("json members have img2dataset's keys in its order", list(samples[0]["json"]), order)


def theirs_to_ours(check: Checks, python: Path, urls: Path, folder: Path) -> None:
    print("their shards, our source")
    out = folder / "theirs"
    img2dataset(python, urls, out)
    tables = sorted(out.glob("*.parquet"))
    theirs = rows_of(tables)
    shards, _ = curate(folder / "import", {"type": "shards", "path": str(out)})
    ours = rows_of([table for _, table in shards])
    check.equal("as many rows", len(ours), len(theirs))
    check.equal("as many rows as the input", len(theirs), ROWS)

    def by_url(rows: list[dict[str, Any]], value: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        return {row["url"]: value(row) for row in rows}

    check.equal("ids are the input's", by_url(ours, lambda r: r["uid"]), by_url(theirs, lambda r: r["uid"]))
    for name in ("status", "caption", "width", "height", "original_width", "original_height", "sha256", "key"):
        check.equal(f"column {name}", by_url(ours, lambda r: r[name]), by_url(theirs, lambda r: r[name]))  # noqa: B023
    expected = payloads([table.with_suffix(".tar") for table in tables])
    found = payloads(list(dict.fromkeys(tar for tar, _ in shards)))
    check.equal("bytes of all images", found == expected, True)
    check.check("their files are used in place", all(tar.parent.resolve() == out.resolve() for tar, _ in shards))

    bare = folder / "theirs-without-uid"
    shutil.copytree(out, bare, ignore=shutil.ignore_patterns("_tmp"))
    for table in bare.glob("*.parquet"):
        pq.write_table(pq.read_table(table).drop_columns(["uid"]), table)
    moved = folder / "elsewhere" / "moved"
    shutil.copytree(bare, moved)
    first, second = (
        rows_of([table for _, table in curate(folder / f"import-{name}", {"type": "shards", "path": str(place)})[0]])
        for name, place in (("bare", bare), ("moved", moved))
    )
    check.equal("made ids are the same from a moved copy", [r["uid"] for r in first], [r["uid"] for r in second])
    check.equal("made ids are distinct", len({r["uid"] for r in first}), ROWS)

    torn = bare / "00000001.tar"
    torn.write_bytes(torn.read_bytes()[:-30_000])
    shards, summary = curate(folder / "import-torn", {"type": "shards", "path": str(bare)})
    good = [r for r in rows_of([table for _, table in shards]) if r["status"] == "success"]
    lost = len([r for r in theirs if r["status"] == "success"]) - len(good)
    reported = any(torn.name in sentence for sentence in summary["torn"])
    check.check(
        "a torn shard: what it has is used, the tear is reported", lost > 0 and reported, f"{lost} image(s) lost"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--keep", type=Path, help="work in this new folder and leave everything there")
    parser.add_argument("--cache", help="folder for environments and images (default: the user's cache)")
    options = parser.parse_args()
    python = peers.venv("img2dataset", peers.IMG2DATASET, options.cache, below=(3, 13))
    check = Checks()
    with tempfile.TemporaryDirectory(prefix="curate-interchange-") as place:
        folder = options.keep or Path(place)
        folder.mkdir(exist_ok=True)
        files = photographs.load(photographs.photographs(IMAGES, peers.cache(options.cache)))
        files += [NO_IMAGE, files[0][:4000]]
        images = folder / "images.npz"
        np.savez(images, data=np.frombuffer(b"".join(files), np.uint8), ends=np.cumsum([len(f) for f in files]))
        with Server(images, False) as server:
            urls = folder / "urls.parquet"
            pq.write_table(pool_rows(server.ports["http"]), urls)
            ours_to_theirs(check, python, urls, folder, server)
            theirs_to_ours(check, python, urls, folder)
    failed = [name for name, passed in check.results.items() if not passed]
    print(f"{len(check.results) - len(failed)} of {len(check.results)} checks passed")
    if options.json:
        print(json.dumps({"passed": len(check.results) - len(failed), "failed": failed}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
