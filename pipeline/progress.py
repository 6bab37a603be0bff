"""Showing what a run does: bars on a terminal, a line now and then without one, and a status file for other shells."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from ..errors import StorageError
from ..shards import storage
from .artifact import Artifact

STATUS_EVERY_S = 1.0
LINE_EVERY_S = 15.0
PARTIAL_EVERY_S = 0.5


@dataclass
class StageStatus:
    """What is known about one stage of a run.

    Attributes:
        state: waiting | running | reused | done | failed | skipped.
        finished: parts with a receipt; `fraction` adds the share of those in flight.
    """

    name: str
    state: str = "waiting"
    finished: int = 0
    total: int = 0
    fraction: float = 0.0
    started: float = 0.0
    seconds: float = 0.0
    error: str = ""
    in_flight: dict[str, float] = field(default_factory=dict)

    def done_fraction(self) -> float:
        if self.state in ("done", "reused"):
            return 1.0
        return min(1.0, (self.finished + sum(self.in_flight.values())) / self.total) if self.total else 0.0


class _Left(TextColumn):
    """Estimated time left, from the mean pace so far."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        if task.finished or not task.elapsed or task.percentage < 2:
            return Text("")
        left = task.elapsed * (100 - task.percentage) / task.percentage
        return Text(f"~{_duration(left)} left", style="dim")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


class Progress:
    """Progress of one run. Thread-safe.

    Args:
        stages: names of the plan's stages, in order.
        status_path: JSON file that `curate status` reads; rewritten about once a second.
    """

    def __init__(self, run: str, stages: list[str], status_path: str | None, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.run = run
        self._stages = {name: StageStatus(name) for name in stages}
        self._status_path = status_path
        self._lock = threading.RLock()
        self._began = time.time()
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}
        self._last_text: dict[str, str] = {}
        self._last_partial: dict[str, float] = {}
        self._ticker: threading.Thread | None = None
        self._closed = threading.Event()

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._bars = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[parts]}", style="dim"),
                TimeElapsedColumn(),
                _Left(),
                console=self.console,
                transient=True,
            )
            self._bars.start()
        self._ticker = threading.Thread(target=self._tick, name="curate-status", daemon=True)
        self._ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._closed.set()
        if self._bars:
            self._bars.stop()
        state = "done" if kind is None else "interrupted" if "Interrupted" in kind.__name__ else "failed"
        self._write_status(state, "" if error is None else str(error))

    # Events, called by the runner.

    def reused(self, stage: str) -> None:
        with self._lock:
            self._stages[stage].state = "reused"

    def skipped(self, stage: str) -> None:
        with self._lock:
            self._stages[stage].state = "skipped"

    def started(self, stage: str) -> None:
        with self._lock:
            status = self._stages[stage]
            status.state, status.started = "running", time.time()
            if self._bars:
                self._tasks[stage] = self._bars.add_task(stage, total=100, parts="")
            else:
                self._line(stage, "started")

    def parts(self, stage: str, finished: int, total: int) -> None:
        """The stage has `total` parts, of which `finished` have a receipt already."""
        with self._lock:
            status = self._stages[stage]
            status.finished, status.total = finished, total
            self._show(status)

    def advance(self, stage: str, part: str) -> None:
        """One more part has its receipt."""
        with self._lock:
            status = self._stages[stage]
            status.finished += 1
            status.in_flight.pop(part, None)
            self._show(status)

    def within(self, stage: str, artifact: Artifact, parts: list[str]) -> None:
        """Read how far the parts in flight are, from the files that they write."""
        now = time.time()
        if now - self._last_partial.get(stage, 0) < PARTIAL_EVERY_S:
            return
        self._last_partial[stage] = now
        found = {}
        for part in parts:
            try:
                done, total = storage.read_bytes(artifact.progress_path(part)).split()
                found[part] = min(1.0, int(done) / max(1, int(total)))
            except (FileNotFoundError, ValueError):
                continue
        with self._lock:
            self._stages[stage].in_flight = found
            self._show(self._stages[stage])

    def finished(self, stage: str) -> None:
        with self._lock:
            status = self._stages[stage]
            status.state, status.seconds = "done", time.time() - status.started
            status.in_flight = {}
            if self._bars:  # finished stages scroll away above the bars, so that any plan fits the screen
                self._bars.remove_task(self._tasks.pop(stage))
                self.console.print(f"[green]done[/]   {stage:36} {_duration(status.seconds):>12}  {_parts(status)}")
            else:
                self._line(stage, f"done in {_duration(status.seconds)}")

    def failed(self, stage: str, error: str) -> None:
        with self._lock:
            status = self._stages[stage]
            status.state, status.error = "failed", error
            if self._bars:
                self._bars.remove_task(self._tasks.pop(stage))
                self.console.print(f"[red]failed[/] {stage}")
            else:
                self._line(stage, "failed")

    def message(self, text: str) -> None:
        """Say something above the bars."""
        self.console.print(text)

    # Showing.

    def _show(self, status: StageStatus) -> None:
        share = status.done_fraction()
        if self._bars and status.name in self._tasks:
            self._bars.update(self._tasks[status.name], completed=100 * share, parts=_parts(status))
        elif status.state == "running" and time.time() - self._last_line.get(status.name, 0) > LINE_EVERY_S:
            text = f"{share:.0%}{_parts(status, ', ')}"
            if text != self._last_text.get(status.name, "0%"):
                self._line(status.name, text)

    def _line(self, stage: str, text: str) -> None:
        self._last_line[stage], self._last_text[stage] = time.time(), text
        clock = time.strftime("%H:%M:%S")
        self.console.print(f"{clock} {stage}: {text}", soft_wrap=True)

    def _tick(self) -> None:
        while not self._closed.wait(STATUS_EVERY_S):
            self._write_status("running", "")

    def _write_status(self, state: str, error: str) -> None:
        if self._status_path is None:
            return
        with self._lock:
            stages: list[dict[str, Any]] = [
                {
                    "name": s.name,
                    "state": s.state,
                    "finished_parts": s.finished,
                    "parts": s.total,
                    "fraction": round(s.done_fraction(), 4),
                    "seconds": round(s.seconds or (time.time() - s.started if s.state == "running" else 0.0), 1),
                    "error": s.error,
                }
                for s in self._stages.values()
            ]
        value = {
            "run": self.run,
            "state": state,
            "error": error,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "began": round(self._began, 1),
            "updated": round(time.time(), 1),
            "stages": stages,
        }
        try:
            storage.write_json(self._status_path, value)
        except (OSError, StorageError) as problem:  # a full disk must not hide the error that the run itself reports
            print(f"cannot write {self._status_path}: {problem}", file=sys.stderr)


def _parts(status: StageStatus, prefix: str = "") -> str:
    return f"{prefix}{status.finished}/{status.total} parts" if status.total > 1 else ""
