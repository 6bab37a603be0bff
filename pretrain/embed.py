"""Embeddings of one shard, aligned with its row table.

One pass over the tar: decode, prepare, encode, batch by batch, so memory holds one batch of pictures whatever the
shard's size. A row without an embedding is NaN; it is never left out, so row numbers mean the same in every file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..shards.images.image import ImageError
from ..shards.shard import IMAGE_EXTENSIONS, Shard, succeeded

if TYPE_CHECKING:
    from .encoder import Encoder


def embed_shard(
    encoder: Encoder,
    shard: Shard,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Embed every fetched image and its caption.

    Args:
        batch_size: images decoded and encoded at a time.
        progress: called with (rows done, rows).

    Returns:
        image: ``(rows, d) float16``, NaN where the fetch failed or the image is corrupt or missing.
        text: ``(rows, d) float16``, NaN where the fetch failed or there is no caption.
        counts: ``rows``, ``images`` and ``texts`` embedded, ``corrupt`` images, ``missing`` from the tar.
    """
    table = shard.read_table(["key", "status", "caption"])
    fetched = np.flatnonzero(succeeded(table))
    keys = table["key"].take(fetched).to_pylist()
    tar = shard.open()
    image = np.full((len(table), encoder.dim), np.nan, np.float16)
    text = np.full((len(table), encoder.dim), np.nan, np.float16)

    corrupt = missing = 0
    batch = np.empty((batch_size, *encoder.image_size, 3), np.uint8)
    for start in range(0, len(fetched), batch_size):
        rows: list[int] = []
        for row, key in zip(fetched[start : start + batch_size], keys[start : start + batch_size], strict=True):
            body = tar.read(key, *IMAGE_EXTENSIONS)
            if body is None:
                missing += 1
                continue
            try:
                batch[len(rows)] = encoder.prepare(body)
            except ImageError:
                corrupt += 1
                continue
            rows.append(int(row))
        if rows:
            image[rows] = encoder.encode_prepared(batch[: len(rows)])
        if progress:
            progress(int(fetched[min(start + batch_size, len(fetched)) - 1]) + 1, len(table))

    captions = table["caption"].take(fetched).to_pylist()
    captioned = [i for i, caption in enumerate(captions) if caption is not None]
    if captioned:
        text[fetched[captioned]] = encoder.encode_texts([captions[i] for i in captioned])
    counts = {
        "rows": len(table),
        "images": len(fetched) - corrupt - missing,
        "texts": len(captioned),
        "corrupt": corrupt,
        "missing": missing,
    }
    return image, text, counts
