"""Which test pictures people are shown, with small copies of them, so that a page needs no evaluation set.

Chosen from stored outcomes and by a hash of set and key, never by place in a file: a fair draw, the same whichever runs
are compared, so that two runs show the same queries. Mistakes are drawn first from samples that some arms get right
and others wrong, because those tell arms apart. The bank is one small parquet file per run.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..shards import storage
from ..shards.evalsets.base import EvalSet, EvalSplit
from ..shards.images.image import ImageError, decode_rgb

SIDE = 112  # longest side of a small copy, pixels
QUALITY = 80
LONGEST_TEXT = 500  # characters of a caption
DIFFER_SHARE = 0.75  # of the shown mistakes: some arm is right
PICTURES = 480  # of a bank, all sets together
MISTAKES, QUERIES = 48, 16  # per set

SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("suite", pa.string()),
        ("split", pa.string()),
        ("role", pa.string()),  # mistake, query (a picture), text_query, item (retrieved picture), caption (likewise)
        ("number", pa.int64()),  # of the picture or caption in its split
        ("key", pa.string()),
        ("text", pa.string()),
        ("picture", pa.binary()),
        ("mime", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Seen:
    """What one arm's model did on one set.

    Attributes:
        arm: its name.
        record: entry of ``results``.
        table: stored outcomes.
    """

    arm: str
    record: Mapping[str, object]
    table: pa.Table


def seen_on(models: Sequence[tuple[str, str, Mapping[str, Any]]], dataset: str) -> list[Seen]:
    """What the first model of each arm did on a set, by the suite that shows most: zero-shot, else the first.

    Args:
        models: (arm, folder of its results, its ``results.json``), in order.
    """
    found: dict[str, Seen] = {}
    suite = None
    for arm, folder, results in models:
        if arm in found:
            continue
        records = [r for r in results["results"] if r["dataset"] == dataset]
        records.sort(key=lambda r: r["type"] != "zero_shot")
        record = next((r for r in records if suite is None or r["suite"] == suite), None)
        if record is not None:
            suite = record["suite"]
            table = pq.read_table(storage.local(storage.join(folder, record["outcomes"])))
            found[arm] = Seen(arm, record, table)
    return list(found.values())


def collect(evalset: EvalSet, seen: Sequence[Seen], budget: int = PICTURES) -> pa.Table:
    """The bank of one set.

    Args:
        seen: of one suite: the first model of each arm.
        budget: most pictures.
    """
    record = seen[0].record
    split = evalset.split(str(record["split"]))
    columns = seen[0].table.column_names
    if {"label", "prediction"} <= set(columns):
        rows = _mistake_rows(evalset, split, seen, min(MISTAKES, budget))
    elif {"direction", "owner"} <= set(columns):
        rows = _query_rows(evalset, split, seen, budget)
    else:
        rows = iter(())
    found = [{"dataset": record["dataset"], "suite": record["suite"], "split": split.name, **row} for row in rows]
    return pa.Table.from_pylist(found, SCHEMA)


def _mistake_rows(evalset: EvalSet, split: EvalSplit, seen: Sequence[Seen], limit: int) -> Iterator[dict[str, object]]:
    number = {key: i for i, key in enumerate(split.keys)}
    for row in choose_mistakes(evalset.digest, [one.table for one in seen], limit):
        key = seen[0].table["key"][row].as_py()
        yield {"role": "mistake", "number": number[key], "key": key, **_small(split, number[key])}


def choose_mistakes(salt: str, tables: Sequence[pa.Table], limit: int) -> list[int]:
    """Rows of outcomes to show, in the drawn order.

    Args:
        salt: what the draw depends on beside the keys.
        tables: one per arm, of the same samples.

    Raises:
        DataError: they are not of the same samples.
    """
    keys = tables[0]["key"]
    if any(not table["key"].equals(keys) for table in tables[1:]):
        raise DataError("outcomes of different samples cannot be shown side by side")
    wrong = np.stack([~table["correct"].to_numpy(zero_copy_only=False) for table in tables])
    draws = [_draw(salt, key) for key in keys.to_pylist()]
    order = sorted(range(len(draws)), key=draws.__getitem__)
    all_wrong, some_wrong = np.all(wrong, axis=0), np.any(wrong, axis=0)
    differ = [i for i in order if some_wrong[i] and not all_wrong[i]]
    hopeless = [i for i in order if all_wrong[i]]
    first = min(len(differ), max(round(limit * DIFFER_SHARE), limit - len(hopeless)))
    return differ[:first] + hopeless[: limit - first]


def _draw(salt: str, key: str) -> bytes:
    return hashlib.blake2b(f"{salt}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()


def _query_rows(evalset: EvalSet, split: EvalSplit, seen: Sequence[Seen], budget: int) -> Iterator[dict[str, object]]:
    """Pictures that look for captions and captions that look for pictures, and what the arms found for them."""
    assert split.captions is not None
    texts = split.captions.texts
    pictures, captions = _drawn(evalset.digest, "picture", len(split)), _drawn(evalset.digest, "text", len(texts))
    shown: dict[int, str] = {}
    told: dict[int, str] = {}
    for number in pictures:
        shown[number] = "query"
        told |= dict.fromkeys(np.flatnonzero(split.captions.image == number).tolist(), "caption")
        told |= dict.fromkeys(_retrieved(seen, "text", number), "caption")
    for number in captions:
        told[number] = "text_query"
        shown |= {n: shown.get(n, "item") for n in _retrieved(seen, "image", number)}
        shown.setdefault(int(split.captions.image[number]), "item")
        if len(shown) >= budget:
            break
    for number, role in shown.items():
        yield {"role": role, "number": number, "key": split.keys[number], **_small(split, number)}
    for number, role in told.items():
        yield {"role": role, "number": number, "key": str(number), "text": texts[number][:LONGEST_TEXT]}


def _drawn(salt: str, what: str, n: int) -> list[int]:
    return sorted(range(n), key=lambda i: _draw(f"{salt}\0{what}", str(i)))[:QUERIES]


def _retrieved(seen: Sequence[Seen], direction: str, query: int) -> Iterator[int]:
    for one in seen:
        yield from retrieved(one.table, direction, query)


def query_row(table: pa.Table, direction: str, query: int) -> int:
    """Row of a retrieval's outcomes: captions in order (they search pictures), then pictures (they search captions)."""
    pictures = table["owner"][-1].as_py() + 1  # the last row is the last picture's
    return query if direction == "image" else query + table.num_rows - pictures


def retrieved(table: pa.Table, direction: str, query: int) -> list[int]:
    """Numbers of what a query found, best first."""
    return table["retrieved"][query_row(table, direction, query)].as_py()


def captions_of(table: pa.Table, picture: int) -> list[int]:
    """Numbers of the captions that belong to a picture, by a retrieval's outcomes."""
    captions = query_row(table, "text", 0)
    return np.flatnonzero(table["owner"].to_numpy()[:captions] == picture).tolist()


def _small(split: EvalSplit, number: int) -> dict[str, object]:
    """A small copy of a picture; nothing of one that cannot be decoded."""
    from PIL import Image

    try:
        image = Image.fromarray(decode_rgb(split.image(number), SIDE))
    except ImageError:
        return {}
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    body = io.BytesIO()
    image.save(body, "WEBP", quality=QUALITY, method=4)
    return {"picture": body.getvalue(), "mime": "image/webp", "width": image.width, "height": image.height}


def write_bank(path: str, banks: Sequence[pa.Table]) -> None:
    """Publish the banks of all sets as one file."""
    with storage.publishing(path) as temporary:
        pq.write_table(pa.concat_tables([SCHEMA.empty_table(), *banks]), temporary, compression="zstd")
