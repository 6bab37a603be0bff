"""Where a training can be watched while it runs: TensorBoard and JSON lines always, wandb and mlflow if asked.

What is shown here may hold clock time and speed, so it lies in the training's scratch folder, not in its results. A
training that is resumed goes back some steps; the live files are cut back to where it goes on, and the services are not
told again what they were told before (their run goes on under its own id), so no step is there twice. A service that
fails while training runs is warned about and left out; the training does not die of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import sys
import time
import uuid
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field

from ...errors import ConfigError
from ...registry import Options, Registry
from ...shards import storage

LIVE_FOLDER = "live"
LINES_FILE = "lines.jsonl"
Group = Literal["train", "val", "speed"]


class SinkFailed(UserWarning):
    """A logging service failed; the training goes on without it."""


class Sink(Protocol):
    """One logging service, with a run that is open."""

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Values by name, such as ``train/loss``."""
        ...

    def close(self) -> None: ...


class SinkOptions(Options):
    """What every logging service has."""

    type: str

    @abstractmethod
    def open(self, folder: str, state: dict[str, Any], name: str, params: Mapping[str, str]) -> Sink:
        """Begin the run, or go on with the one that `state` knows.

        Args:
            folder: local folder for the service's own files.
            state: kept between sessions; ``id`` of the run is put in it.
            name: of the run, where the options give none.
            params: options of the training.
        """


LOG_SINKS: Registry[SinkOptions] = Registry("log")


@LOG_SINKS.register
class WandbOptions(SinkOptions):
    """Weights & Biases; needs the package ``wandb``."""

    type: Literal["wandb"] = "wandb"
    project: str = Field("curate", description="Project that the run belongs to.")
    entity: str | None = Field(None, description="User or team; not given = the default of the account.")
    name: str | None = Field(None, description="Name of the run; not given = that of the training.")
    mode: Literal["online", "offline"] = Field("online", description="offline: write files to be synchronised later.")

    def open(self, folder: str, state: dict[str, Any], name: str, params: Mapping[str, str]) -> Sink:
        state.setdefault("id", uuid.uuid4().hex[:16])
        return _Wandb(self, folder, state["id"], self.name or name, params)


@LOG_SINKS.register
class MlflowOptions(SinkOptions):
    """MLflow; needs the package ``mlflow``."""

    type: Literal["mlflow"] = "mlflow"
    experiment: str = Field("curate", description="Experiment that the run belongs to.")
    name: str | None = Field(None, description="Name of the run; not given = that of the training.")
    tracking_uri: str | None = Field(
        None, description="Server, database or folder; not given = what the environment says, else mlflow's default."
    )

    def open(self, folder: str, state: dict[str, Any], name: str, params: Mapping[str, str]) -> Sink:
        return _Mlflow(self, state, self.name or name, params)


def _named(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


LogSink = Annotated[LOG_SINKS.union(), BeforeValidator(_named, json_schema_input_type=str | LOG_SINKS.union())]
"""Type of one entry of the ``log`` option: a name, or a name with options."""


def check_installed(sinks: Sequence[SinkOptions]) -> None:
    """
    Raises:
        ConfigError: the package of one of them is missing; to be asked before anything is run.
    """
    for sink in sinks:
        if sink.type not in sys.modules and importlib.util.find_spec(sink.type) is None:
            raise ConfigError(f"log names {sink.type}, which is not installed; install it, or take it out of `log`")


class LiveLog:
    """The live log of one training, written by process 0; a context."""

    def __init__(
        self,
        scratch: str,
        sinks: Sequence[SinkOptions] = (),
        step: int = 0,
        name: str = "training",
        params: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            scratch: the training's scratch folder. What lies on an object store cannot be appended to: there only the
                services are told.
            step: steps done; what was logged of later ones is forgotten.
            name: of the training, for services.
            params: its options on one level (`model_card.flat`), for services.

        Raises:
            ConfigError: a package is missing, or a service refuses to begin.
        """
        check_installed(sinks)
        self._folder = storage.join(scratch, LIVE_FOLDER)
        self._lines: IO[bytes] | None = None
        self._events: IO[bytes] | None = None
        if storage.is_local(scratch):
            self._open_files(Path(self._folder.removeprefix("file://")), step)
        self._sinks: dict[str, tuple[Sink, dict[str, Any]]] = {}
        for options in sinks:
            self._open_sink(options, name, params or {})

    def _open_files(self, folder: Path, step: int) -> None:
        kept = [line for line in read_lines(str(folder)) if line["step"] <= step]
        events = folder / "tensorboard"
        old = sorted(events.glob("events.out.tfevents.*"))
        session = 1 + max((int(p.name.split(".")[3]) for p in old), default=-1)
        path = events / f"events.out.tfevents.{session:010d}.curate"
        text = "".join(json.dumps(line) + "\n" for line in kept)
        storage.write_bytes(str(folder / LINES_FILE), text.encode())
        from . import curves

        with storage.publishing(str(path)) as temporary, open(temporary, "wb") as file:
            _record(file, curves.first_event(time.time()))
            for line in kept:
                _record(file, curves.event(line["group"], _values(line), line["time"]))
        for earlier in old:
            earlier.unlink()
        self._lines = open(folder / LINES_FILE, "ab")  # noqa: SIM115  (open as long as the log is)
        self._events = open(path, "ab")  # noqa: SIM115

    def _open_sink(self, options: SinkOptions, name: str, params: Mapping[str, str]) -> None:
        path = storage.join(self._folder, f"{options.type}.json")
        state = storage.read_json(path) if storage.exists(path) else {"sent": {}}
        folder = self._folder.removeprefix("file://") if storage.is_local(self._folder) else ""
        try:
            sink = options.open(folder, state, name, params)
        except Exception as error:
            raise ConfigError(f"{options.type} cannot begin a run: {type(error).__name__}: {error}") from error
        storage.write_json(path, state)
        self._sinks[options.type] = (sink, state)

    def write(self, group: Group, line: Mapping[str, Any]) -> None:
        """Show one line; its ``step`` says where, and values that are no finite numbers are left out."""
        values = {k: v for k, v in line.items() if isinstance(v, int | float) and math.isfinite(v)}
        if self._lines is not None and self._events is not None:
            from . import curves

            now = time.time()
            self._lines.write((json.dumps({"group": group, "time": round(now, 3), **values}) + "\n").encode())
            self._lines.flush()
            _record(self._events, curves.event(group, values, now))
            self._events.flush()
        for kind in list(self._sinks):
            self._tell(kind, group, values)

    def _tell(self, kind: str, group: Group, values: Mapping[str, float]) -> None:
        sink, state = self._sinks[kind]
        step = int(values["step"])
        if step <= state["sent"].get(group, -1):
            return
        state["sent"][group] = step
        try:  # noted before it is sent: a point may be lost to a kill, none is there twice
            storage.write_json(storage.join(self._folder, f"{kind}.json"), state)
            sink.write({f"{group}/{k}": v for k, v in values.items() if k != "step"}, step)
        except Exception as error:  # noqa: BLE001  (a service's own, of any kind)
            self._drop(kind, error)

    def _drop(self, kind: str, error: Exception) -> None:
        del self._sinks[kind]
        warnings.warn(f"{kind} failed and is told no more: {type(error).__name__}: {error}", SinkFailed, stacklevel=4)

    def close(self) -> None:
        """End all runs and close the files."""
        for file in (self._lines, self._events):
            if file is not None:
                file.close()
        self._lines = self._events = None
        for kind, (sink, _) in list(self._sinks.items()):
            try:
                sink.close()
            except Exception as error:  # noqa: BLE001
                self._drop(kind, error)
        self._sinks.clear()

    def __enter__(self) -> LiveLog:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def read_lines(folder: str) -> list[dict[str, Any]]:
    """Lines of a live folder, in order; one that a kill has cut off is left out."""
    path = storage.join(folder, LINES_FILE)
    if not storage.exists(path):
        return []
    found = []
    for text in storage.read_bytes(path).split(b"\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and {"group", "time", "step"} <= line.keys():
            found.append(line)
    return found


def _values(line: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in line.items() if k not in ("group", "time")}


def _record(file: IO[bytes], data: bytes) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    RecordWriter(file).write(data)


class _Wandb:
    def __init__(self, options: WandbOptions, folder: str, id: str, name: str, params: Mapping[str, str]) -> None:
        self._run = importlib.import_module("wandb").init(
            project=options.project,
            entity=options.entity,
            name=name,
            id=id,
            resume="allow",
            mode=options.mode,
            dir=folder or None,
            config=dict(params),
        )

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, options: MlflowOptions, state: dict[str, Any], name: str, params: Mapping[str, str]) -> None:
        mlflow: Any = importlib.import_module("mlflow")
        self._client = mlflow.MlflowClient(tracking_uri=options.tracking_uri)
        if "id" not in state:
            found = self._client.get_experiment_by_name(options.experiment)
            experiment = found.experiment_id if found else self._client.create_experiment(options.experiment)
            state["id"] = self._client.create_run(experiment, run_name=name).info.run_id
            for key, value in params.items():
                self._client.log_param(state["id"], key, value[:500])  # servers take no longer ones
        else:
            self._client.update_run(state["id"], status="RUNNING")
        self._id = state["id"]

    def write(self, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self._client.log_metric(self._id, key.replace("@", "_at_"), value, step=step)  # no @ in mlflow's names

    def close(self) -> None:
        self._client.set_terminated(self._id)
