"""`--retry`: fetch again what failed, and only that.

A retry is noted in the ledgers of the pool's sources, for the shards that have such failures. From then on those shards
are others (their samples may be more), and an ordinary run makes them: it can be killed and goes on like any other.
"""

from __future__ import annotations

from ..errors import ConfigError, CurateError
from ..shards.shard import METADATA, SUCCESS
from .plan import Plan
from .stages.pool import IngestStage

FINAL = {"opted_out", "scheme_denied", "address_denied", "bad_url"}
"""Reasons that are not failures but answers, ours or the server's: asking again would be wrong or in vain."""


def parse_retry(text: str) -> list[str]:
    """The reason codes in ``failed:timeout,http_503``; none for ``failed`` (every failure that another try may heal).

    Raises:
        ConfigError: it reads otherwise, or names a reason that is never tried again.
    """
    kind, colon, names = text.partition(":")
    codes = [name.strip() for name in names.split(",") if name.strip()]
    if kind != "failed" or (colon and not codes):
        raise ConfigError(f"--retry {text!r}: write failed, or failed:CODE,CODE with reason codes such as timeout")
    for code in codes:
        if code in FINAL or code == SUCCESS:
            raise ConfigError(f"--retry: rows that ended as {code!r} are never fetched again")
    return codes


def note_retry(plan: Plan, artifacts: str, codes: list[str]) -> int:
    """Note a retry in the ledgers of the pool's sources; returns how many rows it will fetch again.

    Raises:
        CurateError: the pool is not finished yet, has nothing from the web, or no row failed like that.
    """
    pool = plan.named("pool")
    stages = [s for s in pool.inputs.values() if isinstance(s, IngestStage)]
    if not all(s.artifact(artifacts).is_done() for s in stages):
        raise CurateError("--retry: the pool is not ingested yet; run the same command without --retry first")
    web = [s for s in stages if s.source.fetches()]
    if not web:
        raise CurateError("--retry: no source of this pool fetches from the web")
    rows = 0
    failures: dict[str, int] = {}
    ledgers = []
    for stage in web:
        artifact = stage.artifact(artifacts)
        for code, count in artifact.summary["status"].items():
            if code not in (SUCCESS, METADATA):
                failures[code] = failures.get(code, 0) + count
        wanted = codes or [code for code in artifact.summary["status"] if code not in {*FINAL, SUCCESS, METADATA}]
        if not any(artifact.summary["status"].get(code) for code in wanted):
            continue
        shards = []
        for entry in artifact.summary["shards"]:
            status = artifact.part_receipt(entry["part"])["result"]["stats"]["status"]
            count = sum(status.get(code, 0) for code in wanted)
            if count:
                rows += count
                shards.append(int(entry["part"].split(".")[0]))
        ledger = stage.ledger()
        ledger.retries.append({"codes": sorted(wanted), "shards": shards})
        ledgers.append(ledger)
    if not rows:
        told = ", ".join(f"{code} {count}" for code, count in sorted(failures.items())) or "none"
        raise CurateError(
            f"--retry: no row failed with {', '.join(codes) or 'anything that can heal'}; failures: {told}"
        )
    for ledger in ledgers:  # only when nothing can be refused any more
        ledger.save()
    return rows
