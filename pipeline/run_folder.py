"""Where a run's files lie, under names that people look for.

``<workdir>/artifacts`` holds every stage's output by fingerprint, shared by all runs; ``<workdir>/<name>`` is one run's
view of it: ``config.yaml``, ``status.json``, ``plan.json``, ``shards/``, ``subsets/<name>.npy``, ``release/<subset>``,
``models/<subset>/seed0``..., ``evaluation/subsets/<subset>/seed0/results.json``... and ``report/index.html``.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..shards import storage
from .artifact import Artifact
from .config import Config
from .plan import Plan
from .run_results import ENCODERS, EVALUATION, SUBSETS
from .stage import Stage
from .stages.filtering import SubsetStage
from .stages.pool import shards_of
from .stages.release import ReleaseStage
from .stages.report import ReportStage
from .stages.training import PretrainStage

RESULTS_OF = {"eval": SUBSETS, "network": ENCODERS}
"""Role of a stage in the report -> folder of its results in a run's ``evaluation/``."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder in a workdir."""

    workdir: str
    name: str

    @classmethod
    def of(cls, config: Config) -> RunFolder:
        return cls(config.workdir, config.name)

    @property
    def path(self) -> str:
        return storage.join(self.workdir, self.name)

    @property
    def artifacts(self) -> str:
        return storage.join(self.workdir, "artifacts")

    @property
    def status(self) -> str:
        return storage.join(self.path, "status.json")

    @property
    def report(self) -> str:
        return storage.join(self.path, "report", "index.html")

    @property
    def report_data(self) -> str:
        """The report's data for machines."""
        return storage.join(self.path, "report", "report.json")

    def artifact(self, stage: Stage) -> Artifact:
        return stage.artifact(self.artifacts)

    def begin(self, config_text: str, plan: Plan) -> None:
        """Record what is about to run."""
        storage.write_bytes(storage.join(self.path, "config.yaml"), config_text.encode())
        stages = [
            {"name": s.name, "artifact": s.folder, "inputs": {r: i.name for r, i in s.inputs.items()}}
            for s in plan.stages
        ]
        storage.write_json(storage.join(self.path, "plan.json"), {"stages": stages})

    def publish(self, plan: Plan) -> None:
        """Bring finished outputs under their names: small files are copied, folders are linked."""
        for stage in plan.stages:
            artifact = self.artifact(stage)
            if not artifact.is_done():
                continue
            if isinstance(stage, SubsetStage):
                name = stage.name.removeprefix("subset/")
                self._copy(storage.join(artifact.data, "subset.npy"), storage.join(self.path, "subsets", f"{name}.npy"))
            elif stage.name == "pool":
                self._link_shards(artifact)
            elif isinstance(stage, ReleaseStage):
                self._link(artifact.data, storage.join(self.path, "release", stage.name.removeprefix("release/")))
            elif isinstance(stage, PretrainStage):
                self._link(artifact.data, storage.join(self.path, "models", stage.name.removeprefix("pretrain/")))
            elif isinstance(stage, ReportStage):
                for name in files_below(artifact.data):
                    self._copy(storage.join(artifact.data, name), storage.join(self.path, "report", name))
                self._link_results(stage)

    def _link_results(self, report: ReportStage) -> None:
        """``evaluation/``: results by subset and encoder; equal subsets are one stage under two names."""
        for role, stage in report.inputs.items():
            kind, _, name = role.partition("/")
            if kind in RESULTS_OF and (artifact := self.artifact(stage)).is_done():
                self._link(artifact.data, storage.join(self.path, EVALUATION, RESULTS_OF[kind], name))

    def _link_shards(self, pool: Artifact) -> None:
        """``shards/``: the pool as img2dataset and DataComp lay it out; one folder per source if there are several."""
        several = len(pool.summary["sources"]) > 1
        wanted: dict[Path, str] = {}
        for entry, shard in zip(pool.summary["shards"], shards_of(pool), strict=True):
            folder = Path(self.path, "shards", entry["source"]) if several else Path(self.path, "shards")
            stem = entry["part"].split(".")[0]
            wanted[folder / f"{stem}.tar"] = shard.tar
            wanted[folder / f"{stem}.parquet"] = shard.table
            wanted[folder / f"{stem}_stats.json"] = shard.table.removesuffix(".parquet") + "_stats.json"
        for old in Path(self.path, "shards").rglob("*"):
            if old.is_symlink() and old not in wanted:
                old.unlink()
        for target, source in wanted.items():
            if storage.is_local(source) and os.path.exists(source):
                self._link(source, str(target))

    @staticmethod
    def _copy(source: str, target: str) -> None:
        with storage.publishing(target) as temporary:
            shutil.copyfile(storage.local(source), temporary)

    @staticmethod
    def _link(source: str, target: str) -> None:
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        relative = os.path.relpath(Path(source).absolute(), path.parent.absolute())
        if path.is_symlink() and os.readlink(path) == relative:
            return
        temporary = path.with_name(f"{storage.TEMPORARY}{path.name}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(relative)
        os.replace(temporary, path)


def files_below(folder: str) -> list[str]:
    """Relative paths of all files in a local folder tree, sorted."""
    root = Path(folder)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
