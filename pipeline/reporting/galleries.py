"""Galleries: a few samples that each filter kept and dropped, with their pictures."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ...eval.report.data import Card, Gallery, Picture
from ...shards.images.image import ImageError, read_size
from ...shards.shard import IMAGE_EXTENSIONS
from ..decisions import read_decision
from .source import Link, RunData
from .truth import Truth

MIMES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
MAX_PICTURE_BYTES = 200_000  # larger ones would make the page heavy; the card then has no picture


def galleries(run: RunData, truth: Truth | None) -> list[Gallery]:
    """Examples of every filter's decisions, drawn at random from the run's seed."""
    size = run.config.report.gallery
    return [_gallery(run, link, truth, size) for link in run.distinct_links] if size else []


def _gallery(run: RunData, link: Link, truth: Truth | None, size: int) -> Gallery:
    rng = np.random.Generator(np.random.Philox(key=run.config.seed))
    part_of, row_of, keep, value, reason = [], [], [], [], []
    for i, shard in enumerate(run.shards):
        decision = read_decision(link.artifact.data, shard.name)
        row_of.append(decision["row"].to_numpy())
        part_of.append(np.full(len(decision), i))
        keep.append(decision["keep"].to_numpy())
        value.append(decision["value"].to_numpy())
        reason.append(decision["reason"].to_numpy())
    parts, rows, kept = np.concatenate(part_of), np.concatenate(row_of), np.concatenate(keep)
    values, reasons = np.concatenate(value), np.concatenate(reason).tolist()

    def cards(candidates: np.ndarray) -> list[Card]:
        chosen = np.sort(rng.permutation(candidates)[:size])
        return [_card(run, int(parts[c]), int(rows[c]), float(values[c]), reasons[c] or "", truth) for c in chosen]

    dropped_at, kept_at = np.flatnonzero(~kept), np.flatnonzero(kept)
    return Gallery(
        link.subset,
        link.label,
        cards(dropped_at),
        cards(kept_at),
        len(dropped_at),
        len(kept_at),
    )


def _card(run: RunData, index: int, row: int, value: float, reason: str, truth: Truth | None) -> Card:
    shard = run.shards[index]
    fields = shard.read_table(["uid", "caption", "url", "key"]).take(pa.array([row])).to_pylist()[0]
    return Card(
        uid=fields["uid"],
        caption=fields["caption"] or "",
        url=fields["url"] or "",
        picture=_picture(run, index, fields["key"]),
        value=value if np.isfinite(value) else None,
        reason=reason,
        note=truth.of(index).describe(row) if truth else "",
    )


def _picture(run: RunData, index: int, key: str) -> Picture | None:
    reader = run.shards[index].open()
    if key not in reader:
        return None
    extension = next((e for e in IMAGE_EXTENSIONS if e in reader.extensions(key)), None)
    data = reader.read(key, extension) if extension else None
    if extension is None or data is None or len(data) > MAX_PICTURE_BYTES:
        return None
    try:
        width, height = read_size(data)
    except ImageError:
        return None
    return Picture(data, MIMES[extension], width, height)
