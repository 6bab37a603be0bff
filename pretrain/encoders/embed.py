"""Embeddings of shards, aligned with their row tables: one read and one decode of every picture for all encoders.

A row without an embedding is NaN; it is never left out, so row numbers mean the same in every file. An embedding is a
function of the picture or the caption alone, bit for bit: how shards are bundled, what else looks at the pictures and
how many threads decode change nothing. Memory holds a batch of pictures per model input, some prepared ones that wait,
and the embeddings of the shards that are done together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...shards.image_pass import CORRUPT, MISSING, NOT_FETCHED, OK, ImageReader, read_images
from ...shards.shard import Shard, succeeded
from ..precision import one_thread
from .embedding_reader import EmbeddingReader, Mask, MaskedReader, StoreAs
from .encoder import Encoder


@dataclass(frozen=True)
class Embedding:
    """What is asked of an encoder.

    Attributes:
        store_as: type of the embeddings; they are computed in float32 and rounded once.
        mask: paints over parts of a picture before the encoder sees it; only pictures are embedded then. Where it
            returns None, the embedding is the plain one (copied, if the same encoder is in the pass without a mask).
    """

    encoder: Encoder
    store_as: StoreAs = "float16"
    mask: Mask | None = None


@dataclass
class Embedded:
    """An encoder's embeddings of one shard.

    Attributes:
        image: ``(rows, d)``, NaN where the fetch failed or the picture is corrupt or missing.
        text: ``(rows, d)``, NaN where the fetch failed or there is no caption; None if it embeds no captions.
        counts: ``rows``; ``images`` and ``texts`` embedded; ``corrupt`` pictures, and ``missing`` from the tar;
            ``not_finite``, embeddings that were not numbers and are NaN; with a mask also ``masked`` pictures.
    """

    image: np.ndarray
    text: np.ndarray | None
    counts: dict[str, int]


@dataclass
class ShardEmbeddings:
    """What became of one shard.

    Attributes:
        status: ``(rows,) uint8``, of the picture: an index into `image_pass.STATUS`.
        text_status: ``(rows,) uint8``, of the caption: ``ok``, ``not_fetched`` or ``missing`` of the same list.
        embedded: by the encoder's name.
    """

    status: np.ndarray
    text_status: np.ndarray
    embedded: dict[str, Embedded]


@dataclass
class EmbedPass:
    """What became of all shards of a pass, in their order.

    Attributes:
        seconds: wall time that the pass spent on each encoder, and on ``captions`` and ``pictures`` (read, decode,
            prepare, foreign readers) beside them.
    """

    shards: list[ShardEmbeddings]
    seconds: dict[str, float]


def embed_shards(
    encoders: Mapping[str, Encoder | Embedding],
    shards: Sequence[Shard],
    more: Sequence[ImageReader] = (),
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> EmbedPass:
    """Embed every fetched picture of the shards, and every caption of a fetched row, by every encoder.

    Args:
        encoders: by the names that results get; may be empty if others look.
        more: others who want to see the pictures; they keep their own results.
        threads: decoding threads beside the caller's, in which the models run; 0 = decode in the caller's.
        progress: called with (rows done, rows), of all shards.
    """
    wanted = {name: one if isinstance(one, Embedding) else Embedding(one) for name, one in encoders.items()}
    plain, masked = _readers(wanted)
    started = time.perf_counter()
    with one_thread():
        statuses = read_images(shards, [*plain, *masked.values(), *more], threads, progress)
        pictures = time.perf_counter() - started
        seconds = {name: spent for reader in (*plain, *masked.values()) for name, spent in reader.seconds.items()}
        pictures -= sum(seconds.values())
        started = time.perf_counter()
        texts, text_statuses = _captions(wanted, shards, seconds, progress)
        captions = time.perf_counter() - started

    found = [ShardEmbeddings(a, b, {}) for a, b in zip(statuses, text_statuses, strict=True)]
    owner = {name: reader for reader in (*plain, *masked.values()) for name in reader.encoders}
    for index, shard in enumerate(found):
        for name, reader in owner.items():
            image, text = reader.image[name][index], texts[name][index] if name in texts else None
            bad = reader.not_finite[name][index]
            counts = {
                "rows": len(image),
                "images": int((shard.status == OK).sum()) - bad,
                "texts": 0,
                "corrupt": int((shard.status == CORRUPT).sum()),
                "missing": int((shard.status == MISSING).sum()),
                "not_finite": bad,
            }
            if text is not None:
                captioned = int((shard.text_status == OK).sum())
                counts["texts"] = int(np.isfinite(text).all(1).sum())
                counts["not_finite"] += captioned - counts["texts"]
            if name in masked:
                counts["masked"] = masked[name].masked[index]
            shard.embedded[name] = Embedded(image, text, counts)
    return EmbedPass(found, {**seconds, "pictures": pictures, "captions": captions})


def _readers(wanted: Mapping[str, Embedding]) -> tuple[list[EmbeddingReader], dict[str, MaskedReader]]:
    """One reader per model input, and one per masked encoder."""
    groups: dict[tuple, dict[str, Encoder]] = {}
    for name, one in wanted.items():
        if one.mask is None:
            key = one.encoder.image_key, one.encoder.batch, one.encoder.device
            groups.setdefault(key, {})[name] = one.encoder
    plain = [EmbeddingReader(group, {name: wanted[name].store_as for name in group}) for group in groups.values()]
    at = {
        (id(encoder), wanted[name].store_as): (reader, name)
        for reader in plain
        for name, encoder in reader.encoders.items()
    }
    masked = {
        name: MaskedReader(name, one.encoder, one.mask, one.store_as, at.get((id(one.encoder), one.store_as)))
        for name, one in wanted.items()
        if one.mask is not None
    }
    return plain, masked


def _captions(
    wanted: Mapping[str, Embedding],
    shards: Sequence[Shard],
    seconds: dict[str, float],
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, list[np.ndarray]], list[np.ndarray]]:
    """Embeddings of captions by encoder and shard, and what became of each row's; `seconds` are added to."""
    tables = [shard.read_table(["status", "caption"]) for shard in shards]
    statuses: list[np.ndarray] = []
    number: dict[str, int] = {}
    captions: list[np.ndarray] = []  # per shard, of the rows that have one: its number
    for table in tables:
        fetched = succeeded(table)
        text = table["caption"]
        there = fetched & text.is_valid().to_numpy()
        statuses.append(np.where(there, OK, np.where(fetched, MISSING, NOT_FETCHED)).astype(np.uint8))
        captions.append(np.array([number.setdefault(t, len(number)) for t in text.filter(there).to_pylist()], np.int64))

    total = sum(map(len, tables))
    found: dict[str, list[np.ndarray]] = {}
    for name, one in wanted.items():
        if one.mask is not None or "text" not in one.encoder.modalities:
            continue
        started = time.perf_counter()
        features = one.encoder.encode_texts(list(number), (lambda *_: progress(total, total)) if progress else None)
        features[~np.isfinite(features).all(1)] = np.nan
        found[name] = []
        for status, numbers in zip(statuses, captions, strict=True):
            found[name].append(np.full((len(status), one.encoder.dim), np.nan, one.store_as))
            found[name][-1][status == OK] = features[numbers]
        seconds[name] += time.perf_counter() - started
    return found, statuses
