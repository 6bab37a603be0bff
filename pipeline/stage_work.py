"""What a running stage can do, over an engine and with receipts: `Work` as the runner hands it out.

A part that has a receipt is not called again. Calls are kept few in flight, so that the most urgent stage's go first;
one that a signal to its machine has stopped is made again elsewhere, and when the whole run is stopped, those that save
their state are given time for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CurateError
from ..pretrain.stopping import Stopped
from .artifact import Artifact
from .calls import Call, Outcome, Resources
from .part import run_bundle, run_part
from .stage import Stage, Work

if TYPE_CHECKING:
    from .runner import Runner

T = TypeVar("T")
BUNDLES_PER_WORKER = 3  # so that workers end at about the same time
MAX_STOPS = 1000  # of one call, by signals to its workers' machines


class StageWork(Work):
    """`Work` of one stage.

    Attributes:
        sign: asks its parts to stop.
        parts: how many it has had.
        part_seconds: that they took in all.
        peak_bytes: the most memory that one took.
    """

    def __init__(self, stage: Stage, artifact: Artifact, inputs: Mapping[str, Artifact], runner: Runner) -> None:
        self.stage, self.artifact, self.inputs = stage, artifact, inputs
        self.companions = [c for s in stage.companions if (c := runner.companion(s)) is not None]
        self._runner = runner
        self.sign = runner.interruption.sign(artifact.path)
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
            if self._runner.interruption.asked():
                yield from self._stop(in_flight, names)
            while not exhausted and len(in_flight) < 2 * engine.workers and not self._runner.interruption.asked():
                i = next(waiting, None)
                if i is None:
                    exhausted = True
                else:
                    in_flight[engine.submit(calls[i])] = i
            done, _ = wait(in_flight, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                if self._runner.interruption.asked():
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
        self._runner.interruption.put_up_signs()
        told = False
        while in_flight:
            done, _ = wait(in_flight, timeout=0.2 if told else 0, return_when=FIRST_COMPLETED)
            for future in done:
                i, outcome = in_flight.pop(future), future.result()
                if isinstance(outcome.error, Stopped):
                    self._runner.progress.message(f"{self.stage.name} {', '.join(names[i])}: {outcome.error}")
                yield i, outcome
            left = self._runner.interruption.grace_left()
            if left <= 0 or not self.sign.asking([name for i in in_flight.values() for name in names[i]]):
                break
            if not told:
                text = f"{self.stage.name}: up to {left:.0f} s to save its state; a second signal ends it at once"
                self._runner.progress.message(text)
                told = True
        self._runner.interruption.check()


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
