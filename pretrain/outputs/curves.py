"""Learning curves: the same lines as JSON for programs and as TensorBoard events for eyes.

Both hold no clock time, so a training that was killed and resumed leaves the same bytes; TensorBoard's "wall time" is
the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ...shards import storage

LOG_FILE = "log.jsonl"
EVENTS_FILE = "tensorboard/events.out.tfevents.0.curate"


def write_log(folder: str, lines: Sequence[Mapping[str, float]]) -> None:
    """Publish ``log.jsonl``: one line per logged step."""
    text = "".join(json.dumps(dict(line), allow_nan=False) + "\n" for line in lines)
    storage.write_bytes(storage.join(folder, LOG_FILE), text.encode())


def write_events(
    folder: str, lines: Sequence[Mapping[str, float]], validation: Sequence[Mapping[str, float]] = ()
) -> None:
    """Publish the TensorBoard event file: every key but ``step`` becomes a curve, ``train/KEY`` or ``val/KEY``."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    with storage.publishing(storage.join(folder, EVENTS_FILE)) as path, open(path, "wb") as file:
        records = RecordWriter(file)
        records.write(first_event(0))
        for line in lines:
            records.write(event("train", line, line["step"]))
        for line in validation:
            records.write(event("val", line, line["step"]))


def first_event(wall_time: float) -> bytes:
    """The record that every event file begins with."""
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]

    return Event(wall_time=wall_time, file_version="brain.Event:2").SerializeToString()


def event(group: str, line: Mapping[str, float], wall_time: float) -> bytes:
    """One line of a log as a TensorBoard record; its ``step`` becomes the step."""
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

    values = [Summary.Value(tag=f"{group}/{k}", simple_value=v) for k, v in line.items() if k != "step"]
    return Event(wall_time=wall_time, step=int(line["step"]), summary=Summary(value=values)).SerializeToString()
