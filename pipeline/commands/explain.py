"""`curate explain UID`: one sample's fate in every subset, from the decision tables."""

from __future__ import annotations

import math
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import ConfigError, CurateError
from ...shards import storage
from ..config import Config, load
from ..plan import Plan, make_plan
from ..run_folder import RunFolder
from ..stages.filtering import SubsetStage
from ..stages.pool import shards_of
from ..stages.scoring import ScoreStage

MAX_MATCHES = 20
SHOWN = ("url", "caption", "key", "status", "error_message", "original_width", "original_height", "sha256")


def explain_sample(path: str, uid: str, out: Console) -> None:
    """Print what the pool knows of the samples whose uid starts with `uid`, and their fate in every subset.

    Raises:
        CurateError: the pool is not ingested yet, or has no such sample.
    """
    uid = uid.lower()
    if not uid or uid.strip("0123456789abcdef") or len(uid) > 32:
        raise ConfigError(f"{uid!r} is not a uid: give 32 hexadecimal characters, or the first few")
    config, _ = load(path)
    plan = make_plan(config)
    found = find_samples(config, plan, uid)
    if not found:
        raise CurateError(f"the pool has no sample whose uid starts with {uid!r}")
    for i, sample in enumerate(found):
        if i:
            out.print()
        _print(sample, out)
    if len(found) == MAX_MATCHES:
        out.print(f"... the first {MAX_MATCHES} matches; give more characters of the uid")


def find_samples(config: Config, plan: Plan, uid: str) -> list[dict[str, Any]]:
    """Samples whose uid starts with `uid`: row-table fields, scores, and the fate in each finished subset."""
    folder = RunFolder.of(config)
    pool = folder.artifact(plan.named("pool"))
    if not pool.is_done():
        raise CurateError("the pool is not ingested yet; `curate run` first")
    samples: list[dict[str, Any]] = []
    with duckdb.connect() as db:
        for shard in shards_of(pool):
            rows = db.execute(
                f"select *, file_row_number from read_parquet(?, file_row_number=true) "
                f"where starts_with(uid, ?) limit {MAX_MATCHES}",
                [storage.local(shard.table), uid],
            )
            names = [d[0] for d in rows.description]
            for values in rows.fetchall():
                fields = dict(zip(names, values, strict=True))
                row = fields.pop("file_row_number")
                sample: dict[str, Any] = {"shard": shard.name, "row": row, "fields": fields, "scores": {}, "fates": {}}
                for stage in plan.of(ScoreStage):
                    artifact = folder.artifact(stage)
                    if stage.inputs["pool"] is plan.named("pool") and artifact.is_done():  # not of a target set
                        table = storage.local(storage.join(artifact.data, f"{shard.name}.parquet"))
                        sample["scores"] |= _row(db, table, row)
                for subset in plan.of(SubsetStage):
                    artifact = folder.artifact(subset)
                    if artifact.is_done():
                        table = storage.local(storage.join(artifact.data, f"{shard.name}.parquet"))
                        sample["fates"][subset.name.removeprefix("subset/")] = _row(db, table, row)
                samples.append(sample)
                if len(samples) == MAX_MATCHES:
                    return samples
    return samples


def _row(db: duckdb.DuckDBPyConnection, table: str, row: int) -> dict[str, Any]:
    found = db.execute(
        "select * exclude (file_row_number) from read_parquet(?, file_row_number=true) where file_row_number = ?",
        [table, row],
    )
    names = [d[0] for d in found.description]
    return dict(zip(names, found.fetchone() or (), strict=True))


def _print(sample: dict[str, Any], out: Console) -> None:
    fields = sample["fields"]
    out.print(f"sample {fields['uid']}  (shard {sample['shard']}, row {sample['row']})", markup=False, emoji=False)
    width = max(map(len, (*SHOWN, *sample["scores"])))
    for name in SHOWN:
        if fields.get(name) not in (None, ""):
            out.print(f"  {name:{width}} {visible(fields[name])}", markup=False, emoji=False, soft_wrap=True)
    for name, value in sample["scores"].items():
        out.print(f"  {name:{width}} {_number(value)}", markup=False, emoji=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("subset", "fate", "filter", "reason", "value"):
        table.add_column(column)
    for name, fate in sample["fates"].items():
        kept = f"kept x{fate['times']}" if fate["times"] > 1 else "kept"
        cells = (name, kept if fate["kept"] else "dropped", fate["dropped_by"], fate["reason"])
        table.add_row(*(Text(visible(cell or "")) for cell in cells), _number(fate["value"]))
    out.print(table)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else visible(value)


def visible(value: Any) -> str:
    """Text from the web without the control characters that could drive a terminal."""
    text = str(value)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
