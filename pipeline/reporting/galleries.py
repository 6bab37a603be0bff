"""Galleries: a few samples that each filter kept and dropped, with their pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ...eval.report.data import Card, Gallery, Pair, Picture
from ...shards.images.image import ImageError, read_size
from ...shards.shard import IMAGE_EXTENSIONS
from .examples import Example, examples
from .pairs import originals
from .source import Link, RunData
from .truth import Truth

MIMES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
MAX_PICTURE_BYTES = 200_000  # larger ones would make the page heavy; the card then has no picture
NEAREST = 8  # samples on either side of a threshold, and pairs of copies, at most


def galleries(run: RunData, truth: Truth | None) -> list[Gallery]:
    """Examples of every filter's decisions: drawn at random from the run's seed, next to its threshold, and copies."""
    size = run.config.report.gallery
    return [_gallery(run, link, truth, size) for link in run.distinct_links] if size else []


def _gallery(run: RunData, link: Link, truth: Truth | None, size: int) -> Gallery:
    facts = link.artifact.summary["facts"]
    found = examples(run, link.artifact.data, facts, size, run.config.seed)
    few = min(size, NEAREST)

    def cards(chosen: Sequence[Example]) -> list[Card]:
        return [_card(run, example, truth) for example in chosen]

    copies = found.dropped[:few]
    pairs = [
        Pair(_card(run, copy, truth), _card(run, original, truth))
        for copy, original in zip(copies, originals(run, link, copies), strict=True)
        if original is not None
    ]
    return Gallery(
        link.subset,
        link.label,
        cards(found.dropped),
        cards(found.kept),
        found.dropped_total,
        found.kept_total,
        just_dropped=cards(found.just_dropped[:few]),
        just_kept=cards(found.just_kept[:few]),
        pairs=pairs,
    )


def _card(run: RunData, example: Example, truth: Truth | None) -> Card:
    shard = run.shards[example.part]
    fields = shard.read_table(["uid", "caption", "url", "key"]).take(pa.array([example.row])).to_pylist()[0]
    return Card(
        uid=fields["uid"],
        caption=fields["caption"] or "",
        url=fields["url"] or "",
        picture=_picture(run, example.part, fields["key"]),
        value=example.value if np.isfinite(example.value) else None,
        reason=example.reason,
        note=truth.of(example.part).describe(example.row) if truth else "",
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
