"""`curate reshard SUBSET POOL OUT`: the samples of a subset file, from a folder of shards, as new shards.

Two passes, each a call per shard on an engine: match every input shard with the subset, then write every output shard.
What is done is a file in OUT, so the same command goes on after a kill, and the bytes do not depend on how often it was
killed or on the number of workers. Notes lie in ``OUT/.reshard``; they say what OUT is made of, so that another subset,
pool or setting is refused instead of mixed in.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from fsspec.core import url_to_fs
from rich.console import Console

from ...errors import ConfigError, CurateError, DataError
from ...shards import storage
from ...shards.match import FoundPool, Settled, find_pool, kept_by_match, match_shard, settle
from ...shards.reshard import Kept, ReshardPlan, finish_shards, plan_shards, unwritten, write_shard
from ...shards.shard import Shard
from ...shards.uid import distinct, map_subset, write_subset
from ..calls import Call, Engine, Outcome
from ..inline import InlineEngine
from ..lock import locked
from ..progress import Progress

NOTES = ".reshard"
MATCH, WRITE = "match shards with the subset", "write shards"
SHOWN = 5  # names or sentences of one kind that are printed
VERSION = 1  # bump when the same input would give other bytes


def reshard_subset(
    subset: str,
    pool: str,
    out: str,
    samples_per_shard: int,
    shuffle: bool,
    seed: int,
    workers: int,
    console: Console,
    err: Console,
) -> None:
    """Make, or go on making, `out`; prints what was written, repeated, missing, and what was wrong in the pool.

    Raises:
        ConfigError: an input is not there, or `out` holds something else.
        CurateError: a shard could not be read or written; what was finished is kept.
    """
    began = time.monotonic()
    if samples_per_shard < 1:
        raise ConfigError(f"--samples-per-shard {samples_per_shard}: give at least 1")
    if not storage.exists(subset):
        raise ConfigError(f"{subset}: no such subset file")
    found = find_pool(pool)
    different = distinct(map_subset(subset), subset)
    settings: dict[str, Any] = {
        "subset": storage.identity(subset),
        "pool": _pool_identity(found),
        "samples_per_shard": samples_per_shard,
        "shuffle": shuffle,
        "seed": seed,
        "version": VERSION,
    }
    with locked(storage.local(storage.join(out, NOTES)), "reshard") if storage.is_local(out) else nullcontext():
        if _claim(out, settings):
            _tell_again(out, console)
            return
        storage.remove_temporaries(out)
        summary = _make(found, subset, pool, out, settings, different, workers, err)
    console.print(f"done in {time.monotonic() - began:.1f} s", markup=False)
    _tell(summary, out, console)


def _make(
    found: FoundPool,
    subset: str,
    pool: str,
    out: str,
    settings: dict[str, Any],
    different: int,
    workers: int,
    err: Console,
) -> dict[str, Any]:
    """Do what is not done yet; returns the summary."""
    samples_per_shard, shuffle, seed = settings["samples_per_shard"], settings["shuffle"], settings["seed"]
    folder = storage.join(out, NOTES, "match")
    engine = _engine(workers, (subset, pool, out))
    try:
        with Progress("reshard", [MATCH, WRITE], None, err) as progress:
            known = set(storage.list_names(folder))
            todo = [s for s in found.shards if f"{s.name}.json" not in known]
            calls = [Call(s.name, match_shard, (s, subset, folder, shuffle)) for s in todo]
            _run(engine, calls, progress, MATCH, len(found.shards))
            settled = settle(found.shards, subset, folder, shuffle)
            if len(settled.missing):
                write_subset(storage.join(out, "missing_uids.npy"), settled.missing)
            if not sum(settled.counts):
                raise DataError(f"{pool} has none of the {different} uids of {subset}; is it the right pool?")
            plan = plan_shards(settled.counts, samples_per_shard, shuffle=shuffle, seed=seed)
            kept = kept_by_match(folder, [s.name for s in settled.shards])
            calls = [Call(plan.name(k), _write, (plan, k, settled.shards, kept, out)) for k in unwritten(plan, out)]
            _run(engine, calls, progress, WRITE, len(plan))
    finally:
        engine.close()
    summary = _summary(found, settled, plan, different)
    facts = {
        "input_dir": pool,
        "output_dir": out,
        "subset_file": subset,
        "samples_per_shard": str(samples_per_shard),
        "shuffle": str(shuffle),
        "seed": str(seed),
        "processed_count": settled.samples,
        "blur_count": 0,
        "blur_time": 0,
        "worker_success": len(plan),
    }
    storage.write_json(storage.join(out, NOTES, "summary.json"), summary)
    finish_shards(plan, out, subset, facts)
    fs, path = url_to_fs(folder)
    fs.rm(path, recursive=True)
    return summary


def _tell_again(out: str, console: Console) -> None:
    console.print(f"{out} is finished already", soft_wrap=True, markup=False)
    _tell(storage.read_json(storage.join(out, NOTES, "summary.json")), out, console)


def _pool_identity(found: FoundPool) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for shard in found.shards:
        digest.update(f"{shard.name}\0{shard.size}\0{shard.table is not None}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _claim(out: str, settings: dict[str, Any]) -> bool:
    """Take the folder for these settings; returns whether it is finished.

    Raises:
        ConfigError: it holds something else.
    """
    path = storage.join(out, NOTES, "settings.json")
    names = storage.list_names(out)
    if not storage.exists(path):
        if any(name.endswith((".tar", ".json")) for name in names):
            raise ConfigError(f"{out} holds files that `curate reshard` did not write; choose an empty folder")
        storage.write_json(path, settings)
        return False
    before = storage.read_json(path)
    changed = [name.replace("_", " ") for name in settings if before.get(name) != settings[name]]
    if changed:
        raise ConfigError(
            f"{out} was begun with another {' and another '.join(changed)}; "
            "give the same ones to go on, or choose another folder"
        )
    return "sizes.json" in names


def _engine(workers: int, paths: Sequence[str]) -> Engine:
    """Worker processes; this process alone for one worker, or for storage that lives in it."""
    if workers == 1 or any(path.startswith("memory://") for path in paths):
        return InlineEngine()
    from ..processes import ProcessEngine

    return ProcessEngine(workers)


def _run(engine: Engine, calls: list[Call], progress: Progress, stage: str, total: int) -> None:
    """Run all calls; raises the first failure when the others have ended."""
    progress.started(stage)
    progress.parts(stage, total - len(calls), total)
    futures = []
    for call in calls:
        future = engine.submit(call)
        future.add_done_callback(_advance(progress, stage, call.label))
        futures.append(future)
    outcomes = [future.result() for future in futures]
    failed = [(c, o) for c, o in zip(calls, outcomes, strict=True) if o.error is not None]
    if not failed:
        progress.finished(stage)
        return
    progress.failed(stage, str(failed[0][1].error))
    raise _failure(stage, failed)


def _advance(progress: Progress, stage: str, label: str) -> Callable[[Any], None]:
    return lambda _: progress.advance(stage, label)


def _failure(stage: str, failed: list[tuple[Call, Outcome]]) -> BaseException:
    call, outcome = failed[0]
    assert outcome.error is not None
    if not isinstance(outcome.error, CurateError):
        outcome.error.add_note(outcome.trace)
        return outcome.error
    more = f" ({len(failed) - 1} more shards failed)" if len(failed) > 1 else ""
    return type(outcome.error)(f"{stage}, {call.label}: {outcome.error}{more}")


def _write(plan: ReshardPlan, k: int, shards: Sequence[Shard], kept: Kept, out: str) -> None:
    write_shard(plan, k, shards, kept, out)


def _summary(found: FoundPool, settled: Settled, plan: ReshardPlan, different: int) -> dict[str, Any]:
    return {
        "input_shards": len(found.shards),
        "input_samples": settled.samples,
        "output_shards": len(plan),
        "written": plan.total,
        "repeated": settled.repeated,
        "subset_uids": different,
        "missing": len(settled.missing),
        "without_uid": settled.without_uid,
        "gaps": found.gaps,
        "no_stats": found.no_stats,
        "torn": settled.torn,
    }


def _tell(summary: dict[str, Any], out: str, console: Console) -> None:
    def line(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    line(
        f"  {summary['written']:,} samples in {summary['output_shards']} shards, of {summary['input_samples']:,} in "
        f"{summary['input_shards']}" + (f"; {summary['repeated']:,} of them repeats" if summary["repeated"] else "")
    )
    if summary["missing"]:
        place = storage.join(out, "missing_uids.npy")
        line(f"  missing: {summary['missing']:,} of {summary['subset_uids']:,} uids are not in the pool; see {place}")
    if summary["without_uid"]:
        line(f"  without uid: {summary['without_uid']:,} samples of the pool could not be matched")
    if summary["gaps"]:
        line(f"  gaps: no shard with number {_some(summary['gaps'])}; all that are there were used")
    if summary["no_stats"]:
        line(f"  no statistics: {_some(summary['no_stats'])}; perhaps not finished, used as far as they go")
    for sentence in summary["torn"][:SHOWN]:
        line(f"  torn: {sentence}; what comes before was used")
    if len(summary["torn"]) > SHOWN:
        line(f"  torn: {len(summary['torn']) - SHOWN} more")
    line(f"  shards   {out if '://' in out else os.path.join(out, '')}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
