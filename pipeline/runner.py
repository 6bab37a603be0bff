"""Running a plan: stages that are ready run side by side, each as calls on one shared engine.

Resuming is not a mode. Every run lists what has a receipt and does the rest; a killed run therefore costs the parts in
flight. The engine is started only when some call has to be made, so a run with nothing to do ends at once.
"""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from ..errors import Interrupted
from .artifact import Artifact
from .config import ClusterConfig
from .interruption import Interruption
from .lazy_engine import LazyEngine
from .plan import Plan
from .progress import Progress
from .stage import Companion, Stage
from .stage_work import StageWork
from .versions import versions

STAGES_AT_ONCE = 8
GRACE_S = 20.0  # for running trainings to save their state when the run is stopped; schedulers kill after 30 s


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
        self.interruption = Interruption(grace_s, progress.message)
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
        with self.interruption.signals() as keep_handlers, ThreadPoolExecutor(STAGES_AT_ONCE, "curate-stage") as pool:
            running: dict[Future[None], Stage] = {}
            asked = False
            failed: set[str] = set()
            try:
                while todo or running:
                    for stage in list(todo.values()):
                        if any(i.name in failed for i in (*stage.inputs.values(), *stage.gates)):
                            failed.add(stage.name)
                            del todo[stage.name]
                            self.progress.skipped(stage.name)
                        elif len(running) < STAGES_AT_ONCE and not self.interruption.asked():
                            waiting = {s.name for s in running.values()} | todo.keys()
                            if not any(i.name in waiting for i in (*stage.inputs.values(), *stage.gates, *stage.after)):
                                del todo[stage.name]
                                running[pool.submit(self._run_stage, stage)] = stage
                    if not running:
                        break
                    keep_handlers()
                    if self.interruption.asked() and not asked:  # stages may be busy, or call in their own process
                        self.interruption.put_up_signs()
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
        if self.interruption.by_signal:
            raise Interrupted("interrupted; everything finished is kept, run the same command again to go on")
        if errors:
            raise errors[0]
        return ran

    def _run_stage(self, stage: Stage) -> None:
        artifact = self.artifact(stage)
        work = StageWork(stage, artifact, {r: self.artifact(s) for r, s in stage.inputs.items()}, self)
        self.progress.started(stage.name)
        if work.companions:
            names = ", ".join(c.stage.name for c in work.companions)
            self.progress.message(f"{stage.name}: one pass over the pictures also for {names}")
        started = time.perf_counter()
        try:
            with self.interruption.watching(work.sign):
                summary = stage.run(work)
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
