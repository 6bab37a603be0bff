"""Learning curves: the same lines as JSON for programs and as TensorBoard events for eyes.

Both hold no clock time, so a training that was killed and resumed leaves the same bytes; TensorBoard's "wall time" is
the step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..shards import storage

LOG_FILE = "log.jsonl"
EVENTS_FILE = "tensorboard/events.out.tfevents.0.curate"


def write_log(folder: str, lines: Sequence[dict[str, float]]) -> None:
    """Publish ``log.jsonl``: one line per logged step."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    storage.write_bytes(storage.join(folder, LOG_FILE), text.encode())


def write_events(folder: str, lines: Sequence[dict[str, float]]) -> None:
    """Publish the TensorBoard event file: every key but ``step`` becomes a curve ``train/KEY``."""
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
    from tensorboard.summary.writer.record_writer import RecordWriter

    with storage.publishing(storage.join(folder, EVENTS_FILE)) as path, open(path, "wb") as file:
        records = RecordWriter(file)
        records.write(Event(wall_time=0, file_version="brain.Event:2").SerializeToString())
        for line in lines:
            step = int(line["step"])
            values = [Summary.Value(tag=f"train/{k}", simple_value=v) for k, v in line.items() if k != "step"]
            records.write(Event(wall_time=step, step=step, summary=Summary(value=values)).SerializeToString())
