"""SIGKILL again and again while a pool is fetched: nothing lost, nothing twice, nothing fetched that was finished."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from little_web import LittleWeb
from small_run import curate

from curate.shards.journal import Journal

pytestmark = pytest.mark.slow

ROWS, PER_SHARD, CONCURRENCY, KILLS = 3000, 250, 16, 10


def make_pool(web: LittleWeb, folder: Path) -> str:
    """3,000 rows over some 2,600 pictures in three files; every 41st is gone, every 97th answers with an error."""
    web.broken = {n: 404 if n % 41 == 0 else 503 for n in range(ROWS) if n % 41 == 0 or n % 97 == 0}
    moments = random.Random(7)
    numbers = [n if moments.random() < 0.85 else moments.randrange(ROWS) for n in range(ROWS)]
    for i in range(3):
        part = numbers[i * 1000 : (i + 1) * 1000]
        texts = [f"picture {n} in row {row} of file {i}" for row, n in enumerate(part)]
        (folder / "pool").mkdir(parents=True, exist_ok=True)
        table = pa.table({"url": [web.url(n) for n in part], "text": texts})
        pq.write_table(table, folder / "pool" / f"{i}.parquet")
    return str(folder / "pool")


def config(folder: Path, pool: str, address: str) -> str:
    fetch = {"allow_private": True, "retries": 0, "concurrency": CONCURRENCY, "timeout": 10}
    value = {
        "name": "killed",
        "workdir": str(folder / "runs"),
        "pool": {
            "source": {"type": "urls", "path": pool},
            "fetch": fetch,
            "samples_per_shard": PER_SHARD,
            "image": {"size": 32},
        },
        "cluster": {"address": address, "workers": 2},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(value))
    return str(path)


def files(folder: Path) -> dict[str, bytes]:
    """The shards, without the durations in their statistics."""
    root = folder / "runs" / "killed" / "shards"
    return {p.name: p.read_bytes() for p in sorted(root.iterdir()) if p.suffix in (".tar", ".parquet")}


def finished_urls(folder: Path) -> set[str]:
    """URLs whose image is in a finished shard, or in a journal."""
    found: set[str] = set()
    for artifact in (folder / "runs" / "artifacts").glob("ingest-*"):
        for stats in (artifact / "data").glob("*_stats.json"):
            rows = pq.read_table(str(stats).replace("_stats.json", ".parquet")).to_pylist()
            found |= {row["url"] for row in rows if row["status"] == "success"}
        for journal in (artifact / "journals").glob("*.journal"):
            number = int(journal.name.split(".")[0])
            source = pq.read_table(folder.parent / "pool" / f"{number // 4}.parquet")["url"].to_pylist()
            with Journal(str(journal)) as opened:
                for row in range(PER_SHARD):
                    if row in opened and opened.read(row).status == "success":
                        found.add(source[number % 4 * PER_SHARD + row])
    return found


def end(driver: subprocess.Popen) -> None:
    """SIGKILL the driver and everything that it started."""
    family = psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
    driver.kill()
    driver.wait()
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)


def test_ten_kills_end_in_the_same_bytes(tmp_path):
    web = LittleWeb()
    pool = make_pool(web, tmp_path)
    quiet = config(tmp_path / "quiet", pool, "processes")
    done = curate("run", quiet, "--until", "pool")
    assert done.returncode == 0, done.stderr
    expected = files(tmp_path / "quiet")
    assert len(expected) == 24
    distinct = len(web.asked)
    assert distinct > 2000
    assert set(web.asked.values()) == {1}

    web.asked.clear()
    web.delay = 0.02  # so that there is something to kill
    disturbed = config(tmp_path / "disturbed", pool, "processes")
    command = [sys.executable, "-m", "curate.pipeline.cli", "run", disturbed, "--until", "pool"]
    moments = random.Random("kills")
    killed = 0
    for _ in range(KILLS):
        with open(tmp_path / "log", "a") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ))
        time.sleep(moments.uniform(1.0, 2.5))
        if moments.random() < 0.5 or driver.poll() is not None:
            killed += driver.poll() is None
            end(driver)
        else:  # one worker alone; the run goes on, and is killed a little later
            children = [c for c in psutil.Process(driver.pid).children(recursive=True) if c.status() != "zombie"]
            if children:
                os.kill(moments.choice(children).pid, signal.SIGKILL)
                killed += 1
            time.sleep(0.5)
            end(driver)
        finished = finished_urls(tmp_path / "disturbed")
        before = Counter(web.asked)
        web.asked = Counter(before)
        for url in finished:  # from here on nobody asks for these again
            web.closed.add("/" + url.rsplit("/", 1)[-1])
    assert killed >= KILLS // 2
    web.delay = 0.0
    last = curate("run", disturbed, "--until", "pool")
    assert last.returncode == 0, last.stderr
    assert not web.asked_again, f"fetched though it was finished: {sorted(web.asked_again)[:5]}"
    assert files(tmp_path / "disturbed") == expected
    assert sum(web.asked.values()) <= distinct + killed * 2 * 2 * CONCURRENCY + ROWS // 10  # in flight, and dead links
    assert not list((tmp_path / "disturbed").rglob(".tmp-*"))
    assert not list((tmp_path / "disturbed").rglob("*.journal"))
    web.close()
