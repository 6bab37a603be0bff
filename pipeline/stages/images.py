"""The image pass: embeddings and pixel scores of some shards, from one read and one decode of every picture.

Each encoder and each score of pixels is a stage with files and receipts of its own. When several of them lack the same
shards, the first one (`Work.companions` are the others) does the work for all and leaves their receipts as well, so
they find it done. Nothing depends on who did it: an embedding is a function of the picture alone, bit for bit. Small
shards are looked at together (`Work.map_bundles`), so that a model's batches are filled across their borders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError
from ...filters.base import PixelScorer
from ...shards import storage
from ...shards.image_pass import CORRUPT, MISSING, OK, STATUS
from ...shards.shard import Shard
from ..artifact import Artifact
from ..calls import Resources
from ..context import EncoderAt
from ..part import leave_receipt
from ..stage import Task, Work
from .pool import rows_of, shards_of

BUNDLE_ROWS = 8192
COUNTED = {"images": OK, "corrupt": CORRUPT, "missing": MISSING}


@dataclass(frozen=True)
class EmbedLook:
    """What an encoder does in the pass: embeddings of pictures and captions."""

    encoder: EncoderAt
    mask_text: bool
    store_as: str

    def wants_gpu(self) -> bool:
        return self.encoder.device != "cpu"


@dataclass(frozen=True)
class ScoreLook:
    """What a score of pixels does in the pass: columns."""

    scorer: PixelScorer
    column: str
    state: Any = None

    def wants_gpu(self) -> bool:
        return getattr(self.scorer, "device", "cpu") == "cuda"


Look = EmbedLook | ScoreLook


class Looking(Protocol):
    """A stage that can take part in a pass along with others."""

    def look_along(self, inputs: Mapping[str, Artifact]) -> Look: ...


def look_at_images(work: Work, look: Look) -> dict[str, dict[str, Any]]:
    """Do a stage's part of the pass, and its companions', for all shards of its pool that lack it; results by shard."""
    pool = work.inputs["pool"]
    shards = shards_of(pool)
    along = [(cast(Looking, c.stage).look_along(c.inputs), c.artifact) for c in work.companions]
    parts = {shard.name: (shard, look, along) for shard in shards}
    resources = Resources()
    if parts.keys() - work.artifact.finished_parts() and any(one.wants_gpu() for one in (look, *(a for a, _ in along))):
        resources = Resources(gpus=min(1, work.gpus()))
    return work.map_bundles(_look, parts, rows_of(pool), BUNDLE_ROWS, resources)


def add_up(results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The counts of all shards together."""
    totals: dict[str, Any] = {}
    for result in results.values():
        for name, count in result.items():
            totals[name] = totals.get(name, 0) + count
    return totals


def write_columns(out: str, name: str, rows: int, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Publish a score's columns of one shard.

    Raises:
        DataError: they are not as long as the shard.
    """
    table = pa.table(dict(columns))
    if len(table) != rows:
        raise DataError(f"the score made {len(table)} values for the {rows} rows of part {name}")
    with storage.publishing(storage.join(out, f"{name}.parquet")) as path:
        pq.write_table(table, path)
    return {"rows": rows}


def write_embeddings(out: str, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Publish an encoder's embeddings of one shard, an ``.npy`` per modality."""
    for modality, values in arrays.items():
        with storage.publishing(storage.join(out, f"{name}.{modality}.npy")) as path, open(path, "wb") as file:
            np.save(file, values)


def _look(tasks: list[Task], arguments: list[tuple[Shard, Look, list[tuple[Look, Artifact]]]]) -> list[dict[str, Any]]:
    """One bundle of shards, on a worker: for the stage itself, and for companions that lack one of them."""
    from ...pretrain.encoders.embed import Embedding, embed_shards

    shards = [shard for shard, _, _ in arguments]
    _, own, along = arguments[0]
    looks: list[tuple[Look, str]] = [(own, tasks[0].out)]
    lacking = [(a, to) for a, to in along if not all(storage.exists(to.part_path(task.part)) for task in tasks)]
    looks += [(look, to.data) for look, to in lacking]
    encoders = {
        str(i): Embedding(look.encoder.load(), look.store_as, _mask(look))  # type: ignore[arg-type]
        for i, (look, _) in enumerate(looks)
        if isinstance(look, EmbedLook)
    }
    readers = {
        i: look.scorer.reader(look.column, look.state)
        for i, (look, _) in enumerate(looks)
        if isinstance(look, ScoreLook)
    }
    found = embed_shards(encoders, shards, list(readers.values()), decoding_threads(), _shares(tasks, shards))

    results: list[list[dict[str, Any]]] = []
    for i, (look, out) in enumerate(looks):
        mine = []
        for index, (task, seen) in enumerate(zip(tasks, found.shards, strict=True)):
            rows = len(seen.status)
            if isinstance(look, EmbedLook):
                embedded = seen.embedded[str(i)]
                arrays = {"image": embedded.image} | ({} if embedded.text is None else {"text": embedded.text})
                write_embeddings(out, task.part, arrays)
                statuses = {"image": seen.status, "text": seen.text_status}
                write_columns(out, f"{task.part}.status", rows, {m: names_of(statuses[m]) for m in arrays})
                mine.append(dict(embedded.counts))
            else:
                told = write_columns(out, task.part, rows, readers[i].result(index))
                told |= {name: int((seen.status == code).sum()) for name, code in COUNTED.items()}
                mine.append(told)
        results.append(mine)
    for (_, to), mine in zip(lacking, results[1:], strict=True):
        for task, result in zip(tasks, mine, strict=True):
            leave_receipt(to, task.part, result, 0.0)  # its time is in the receipts of the stage that did the work
    return results[0]


def _mask(look: EmbedLook) -> Callable[[np.ndarray], np.ndarray | None] | None:
    return _without_text if look.mask_text else None


def _without_text(rgb: np.ndarray) -> np.ndarray | None:
    """A picture with its text painted over; None if it has none."""
    from ...pretrain.detectors.text_boxes import fill_boxes, text_boxes

    boxes = text_boxes(rgb)
    return fill_boxes(rgb, boxes) if len(boxes) else None


def names_of(status: np.ndarray) -> pa.DictionaryArray:
    """Codes of `image_pass.STATUS` as words."""
    return pa.DictionaryArray.from_arrays(pa.array(status.astype(np.int8)), pa.array(STATUS))


def decoding_threads() -> int:
    """Threads that decode beside the model: one on a CPU worker; on a GPU worker its share of the machine."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return max(1, min(16, (os.cpu_count() or 1) - 1)) if gpus else 1


def _shares(tasks: list[Task], shards: list[Shard]) -> Callable[[int, int], None]:
    """Progress of a bundle, told part by part."""
    ends = np.cumsum([shard.rows() for shard in shards]).tolist()

    def progress(done: int, total: int) -> None:
        for task, start, end in zip(tasks, [0, *ends], ends, strict=False):
            task.progress(max(0, min(done, end) - start), max(end - start, 1))

    return progress
