"""Running a plan: stages that are ready run side by side, each as calls on one shared engine.

Resuming is not a mode. Every run lists what has a receipt and does the rest; a killed run therefore costs the parts in
flight. The engine is started only when some call has to be made, so a run with nothing to do ends at once.
"""

from __future__ import annotations

import importlib.metadata
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from ..errors import CurateError, Interrupted
from ..pretrain.stopping import Stopped
from .artifact import Artifact
from .calls import Call, Engine, InlineEngine, Outcome, Resources
from .config import ClusterConfig
from .part import run_bundle, run_part
from .plan import Plan
from .progress import Progress
from .stage import Companion, Stage, Work
from .stop import StopSign, new_token

T = TypeVar("T")
STAGES_AT_ONCE = 8
BUNDLES_PER_WORKER = 3  # so that workers end at about the same time
GRACE_S = 20.0  # for running trainings to save their state when the run is stopped; schedulers kill after 30 s
SECOND_SIGNAL_S = 0.5  # signals closer together than this are one
MAX_STOPS = 1000  # of one call, by signals to its workers' machines
RECORDED_VERSIONS = ("curate", "torch", "open_clip_torch", "faiss-cpu", "numpy", "pyarrow", "ray", "scikit-learn")


class LazyEngine:
    """The engine that the config asks for, started when the first call comes."""

    def __init__(self, cluster: ClusterConfig, say: Callable[[str], None]) -> None:
        self._cluster, self._say = cluster, say
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    def get(self) -> Engine:
        with self._lock:
            if self._engine is None:
                if self._cluster.address == "inline":
                    self._engine = InlineEngine(self._cluster.attempts)
                elif self._cluster.address == "processes":
                    from .processes import ProcessEngine

                    c = self._cluster
                    self._engine = ProcessEngine(c.workers, c.attempts, c.part_timeout)
                else:
                    from .engine import RayEngine  # importing Ray takes half a second

                    c = self._cluster
                    where = "on this machine" if c.address == "local" else f"at {c.address}"
                    self._say(f"starting workers {where} (Ray)")
                    self._engine = RayEngine(c.address, c.workers, c.attempts, c.part_timeout)
            return self._engine

    def close(self) -> None:
        with self._lock:
            if self._engine is not None:
                self._engine.close()


class _StageWork(Work):
    """`Work` over an engine, with receipts."""

    def __init__(self, stage: Stage, artifact: Artifact, inputs: Mapping[str, Artifact], runner: Runner) -> None:
        self.stage, self.artifact, self.inputs = stage, artifact, inputs
        self.companions = [c for s in stage.companions if (c := runner.companion(s)) is not None]
        self._runner = runner
        self.sign = StopSign.of(artifact.path, runner.token)
        self.parts = 0
        self.part_seconds = 0.0
        self.peak_bytes = 0

    def map(
        self,
        function: Callable[..., dict[str, Any]],
        parts: Mapping[str, tuple[Any, ...]],
        resources: Resources = Resources(),  # noqa: B008  (immutable)
    ) -> dict[str, dict[str, Any]]:
        def call(names: list[str]) -> Call:
            arguments = (function, self.artifact, names[0], parts[names[0]], self.sign)
            return self._call(names[0], run_part, arguments, resources, self.artifact.scratch(names[0]))

        failures = self._run([[name] for name in self._unfinished(parts)], call)
        return self._results(parts, failures)

    def map_bundles(
        self,
        function: Callable[..., list[dict[str, Any]]],
        parts: Mapping[str, tuple[Any, ...]],
        weights: Mapping[str, int],
        most: int,
        resources: Resources = Resources(),  # noqa: B008  (immutable)
    ) -> dict[str, dict[str, Any]]:
        def call(names: list[str]) -> Call:
            label = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
            arguments = (function, self.artifact, names, [parts[n] for n in names], self.sign)
            return self._call(label, run_bundle, arguments, resources)

        todo = self._unfinished(parts)
        if not todo:
            return self._results(parts, [])
        share = sum(weights[n] for n in todo) / (BUNDLES_PER_WORKER * self._runner.engine.get().workers)
        bundles = _bundles(todo, weights, min(most, share))
        failures = self._run(bundles, call)
        together = {n for names in bundles if len(names) > 1 for n in names}
        again = [name for name, _ in failures if name in together]
        if again:  # part by part: a bad one must not take its neighbours with it
            failures = [f for f in failures if f[0] not in together] + self._run([[n] for n in again], call)
        return self._results(parts, failures)

    def gpus(self) -> int:
        return self._runner.engine.get().gpus()

    def _call(
        self, label: str, function: Any, arguments: tuple[Any, ...], resources: Resources, scratch: str = ""
    ) -> Call:
        height = self._runner.heights[self.stage.name]
        return Call(f"{self.stage.name} {label}", function, arguments, resources, height, scratch)

    def _unfinished(self, parts: Mapping[str, tuple[Any, ...]]) -> list[str]:
        """Parts without a receipt, in order; shows how many have one."""
        finished = self.artifact.finished_parts() & parts.keys()
        self._runner.progress.parts(self.stage.name, len(finished), len(parts))
        return [name for name in parts if name not in finished]

    def _run(self, groups: list[list[str]], call: Callable[[list[str]], Call]) -> list[tuple[str, Outcome]]:
        """One call per group of parts; returns the parts that failed."""
        failures: list[tuple[str, Outcome]] = []
        for i, outcome in self._complete([call(group) for group in groups], groups):
            for name in groups[i]:
                if outcome.error is not None:
                    failures.append((name, outcome))
                else:
                    self._runner.progress.advance(self.stage.name, name)
        return failures

    def _results(
        self, parts: Mapping[str, tuple[Any, ...]], failures: list[tuple[str, Outcome]]
    ) -> dict[str, dict[str, Any]]:
        """What all parts returned, from their receipts, in order."""
        if failures:
            raise _failure(self.stage.name, failures, len(parts))
        results = {}
        self.parts += len(parts)
        for name in parts:
            receipt = self.artifact.part_receipt(name)
            results[name] = receipt["result"]
            self.part_seconds += receipt["seconds"]
            self.peak_bytes = max(self.peak_bytes, receipt["peak_bytes"])
        return results

    def gather(self, function: Callable[..., T], arguments: list[tuple[Any, ...]]) -> list[T]:
        height = self._runner.heights[self.stage.name]
        label = f"{self.stage.name} ({function.__name__})"
        calls = [Call(label, function, a, priority=height) for a in arguments]
        results: list[Any] = [None] * len(calls)
        names = [f"{function.__name__} {i}" for i in range(len(calls))]
        failures = []
        for i, outcome in self._complete(calls, [[name] for name in names]):
            results[i] = outcome.value
            self.part_seconds += outcome.seconds
            if outcome.error is not None:
                failures.append((names[i], outcome))
        if failures:
            raise _failure(self.stage.name, failures, len(calls))
        return results

    def _complete(self, calls: list[Call], names: list[list[str]]) -> Iterator[tuple[int, Outcome]]:
        """Outcomes as they come, with a bounded number of calls in flight; `names`: the parts of each call."""
        if not calls:
            return
        engine = self._runner.engine.get()
        in_flight: dict[Future[Outcome], int] = {}
        waiting = iter(range(len(calls)))
        stops = 0
        exhausted = False
        while in_flight or not exhausted:
            if self._runner.stopping():
                yield from self._stop(in_flight, names)
            while not exhausted and len(in_flight) < 2 * engine.workers and not self._runner.stopping():
                i = next(waiting, None)
                if i is None:
                    exhausted = True
                else:
                    in_flight[engine.submit(calls[i])] = i
            done, _ = wait(in_flight, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                if self._runner.stopping():
                    break
                i, outcome = in_flight.pop(future), future.result()
                if isinstance(outcome.error, Stopped) and stops < MAX_STOPS:  # its machine is about to be taken away
                    stops += 1
                    self._runner.progress.message(f"{calls[i].label}: a signal stopped it; it goes on elsewhere")
                    in_flight[engine.submit(calls[i])] = i
                else:
                    yield i, outcome
            parts = [name for i in in_flight.values() for name in names[i]]
            self._runner.progress.within(self.stage.name, self.artifact, parts)

    def _stop(self, in_flight: dict[Future[Outcome], int], names: list[list[str]]) -> Iterator[tuple[int, Outcome]]:
        """Give running calls that save their state the time for it, then raise `Interrupted`."""
        for future in [f for f in in_flight if f.cancel()]:  # those that have not been started
            del in_flight[future]
        self._runner.put_up_signs()
        told = False
        while in_flight:
            done, _ = wait(in_flight, timeout=0.2 if told else 0, return_when=FIRST_COMPLETED)
            for future in done:
                i, outcome = in_flight.pop(future), future.result()
                if isinstance(outcome.error, Stopped):
                    self._runner.progress.message(f"{self.stage.name} {', '.join(names[i])}: {outcome.error}")
                yield i, outcome
            left = self._runner.grace_left()
            if left <= 0 or not self.sign.asking([name for i in in_flight.values() for name in names[i]]):
                break
            if not told:
                text = f"{self.stage.name}: up to {left:.0f} s to save its state; a second signal ends it at once"
                self._runner.progress.message(text)
                told = True
        self._runner.check_stop()


def _bundles(names: list[str], weights: Mapping[str, int], most: float) -> list[list[str]]:
    """Neighbouring parts together, as long as their weights sum to at most `most`."""
    groups: list[list[str]] = []
    weight = 0.0
    for name in names:
        if not groups or weight + weights[name] > most:
            groups.append([])
            weight = 0.0
        groups[-1].append(name)
        weight += weights[name]
    return groups


def _failure(stage: str, failures: list[tuple[str, Outcome]], parts: int) -> CurateError:
    """One error for all failed parts of a stage: the first one's cause, and the names of all."""
    name, outcome = failures[0]
    error = outcome.error
    if len(failures) == 1 and parts == 1 and isinstance(error, CurateError):
        return type(error)(f"{stage}: {error}")
    names = ", ".join(n for n, _ in failures[:5]) + (f" and {len(failures) - 5} more" if len(failures) > 5 else "")
    cause = str(error) if isinstance(error, CurateError) else f"{type(error).__name__}: {error}"
    kind = type(error) if isinstance(error, CurateError) else CurateError
    failed = kind(
        f"{stage}: {len(failures)} of {parts} parts failed ({names}); the others are done and kept. {name}: {cause}"
    )
    if not isinstance(error, CurateError) and outcome.trace:
        failed.add_note(outcome.trace)
    return failed


class Runner:
    """Runs one plan in one workdir.

    Args:
        plan: what to do.
        artifacts: folder of all artifacts of the workdir.
        progress: where progress is shown.
        grace_s: how long running calls that save their state may take for it when the run is stopped.
    """

    def __init__(
        self, plan: Plan, artifacts: str, cluster: ClusterConfig, progress: Progress, grace_s: float = GRACE_S
    ) -> None:
        self.plan, self.progress = plan, progress
        self.engine = LazyEngine(cluster, progress.message)
        self._artifacts = artifacts
        self._grace = grace_s
        self._stop = threading.Event()
        self._until = 0.0  # when the grace time ends, of `time.monotonic`
        self._signal = 0
        self.token = new_token()
        self._signs: set[StopSign] = set()  # of the stages that run; with the lock held
        self._signs_lock = threading.Lock()
        self.heights = plan.heights()

    def artifact(self, stage: Stage) -> Artifact:
        return stage.artifact(self._artifacts)

    def companion(self, stage: Stage) -> Companion | None:
        """A stage of this plan that could be worked on now, because only itself is not done; else None."""
        artifact, inputs = self.artifact(stage), {r: self.artifact(s) for r, s in stage.inputs.items()}
        planned = any(s is stage for s in self.plan.stages)
        if not planned or artifact.is_done() or not all(a.is_done() for a in inputs.values()):
            return None
        return Companion(stage, artifact, inputs)

    def stopping(self) -> bool:
        """Whether the run is to end."""
        return self._stop.is_set()

    def grace_left(self) -> float:
        """Seconds that running calls still have to save their state."""
        return self._until - time.monotonic()

    def put_up_signs(self) -> None:
        """Ask the running parts of all stages to save and stop."""
        with self._signs_lock:
            for sign in self._signs:
                try:
                    sign.put_up()
                except (OSError, CurateError) as error:  # it ends all the same, without what it has not saved
                    self.progress.message(f"cannot ask parts to stop: {error}")

    def check_stop(self) -> None:
        """Raise in a stage's thread once the run is to end."""
        if self._stop.is_set():
            raise Interrupted("interrupted; run the same command again to go on")

    def run(self) -> int:
        """Run every stage that is not done; returns how many were run.

        Raises:
            CurateError: the first stage that failed; stages that do not depend on it were still finished.
        """
        todo = {s.name: s for s in self.plan.stages if not self.artifact(s).is_done()}
        for stage in self.plan.stages:
            if stage.name not in todo:
                self.progress.reused(stage.name)
        ran = 0
        errors: list[BaseException] = []
        with self._signals() as keep_handlers, ThreadPoolExecutor(STAGES_AT_ONCE, "curate-stage") as pool:
            running: dict[Future[None], Stage] = {}
            asked = False
            failed: set[str] = set()
            try:
                while todo or running:
                    for stage in list(todo.values()):
                        if any(i.name in failed for i in stage.inputs.values()):
                            failed.add(stage.name)
                            del todo[stage.name]
                            self.progress.skipped(stage.name)
                        elif len(running) < STAGES_AT_ONCE and not self._stop.is_set():
                            waiting = {s.name for s in running.values()} | todo.keys()
                            if not any(i.name in waiting for i in (*stage.inputs.values(), *stage.after)):
                                del todo[stage.name]
                                running[pool.submit(self._run_stage, stage)] = stage
                    if not running:
                        break
                    keep_handlers()
                    if self._stop.is_set() and not asked:  # stages may be busy, or call in their own process
                        self.put_up_signs()
                        asked = True
                    done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in done:
                        stage = running.pop(future)
                        error = future.exception()
                        if error is None:
                            ran += 1
                        else:
                            failed.add(stage.name)
                            errors.append(error)
            finally:
                self.engine.close()
        if self._signal:
            raise Interrupted("interrupted; everything finished is kept, run the same command again to go on")
        if errors:
            raise errors[0]
        return ran

    def _run_stage(self, stage: Stage) -> None:
        artifact = self.artifact(stage)
        work = _StageWork(stage, artifact, {r: self.artifact(s) for r, s in stage.inputs.items()}, self)
        self.progress.started(stage.name)
        if work.companions:
            names = ", ".join(c.stage.name for c in work.companions)
            self.progress.message(f"{stage.name}: one pass over the pictures also for {names}")
        started = time.perf_counter()
        with self._signs_lock:
            self._signs.add(work.sign)
        try:
            try:
                summary = stage.run(work)
            finally:
                with self._signs_lock:
                    self._signs.discard(work.sign)
                    work.sign.take_down()
            artifact.publish(
                {
                    "stage": stage.name,
                    "kind": stage.kind,
                    "version": stage.version,
                    "fingerprint": stage.fingerprint,
                    "identity": stage.identity(),
                    "inputs": {r: s.fingerprint for r, s in stage.inputs.items()},
                    "seconds": round(time.perf_counter() - started, 3),
                    "parts": work.parts,
                    "part_seconds": round(work.part_seconds, 3),
                    "peak_bytes": work.peak_bytes,
                    "versions": versions(),
                    "summary": summary,
                }
            )
        except BaseException as error:
            self.progress.failed(stage.name, str(error))
            raise
        self.progress.finished(stage.name)

    @contextmanager
    def _signals(self) -> Iterator[Callable[[], None]]:
        """First Ctrl-C or SIGTERM: stop cleanly; a second one: without the grace time for what saves its state.

        Only in the main thread; elsewhere the caller's handlers stay.

        Yields a function that takes the signals back from a library which has put a handler of its own before ours
        (Ray's core prints a stack trace, and aborts a process that needs more than three seconds to end).
        """
        if threading.current_thread() is not threading.main_thread():
            yield lambda: None
            return

        first: list[float] = []

        def stop(number: int, _frame: Any) -> None:
            signal.alarm(0)  # the one that such a handler sets
            self._signal = number
            now = time.monotonic()
            if not self._stop.is_set():
                first.append(now)
                self._until = now + self._grace
                self._stop.set()
                self.progress.message("stopping; finished parts are kept")
            elif now - first[0] > SECOND_SIGNAL_S:
                self._until = now

        def keep_handlers() -> None:
            for number in before:
                signal.signal(number, stop)

        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield keep_handlers
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def versions() -> dict[str, str]:
    """Versions of what results depend on, for receipts and the report."""
    found = {"python": platform.python_version()}
    for name in RECORDED_VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
