"""The plan: a config becomes stages with fingerprints.

Stages with equal fingerprints are one stage: subsets that begin with the same filters, an encoder that two scores use,
two sources over one demo web. The order is such that every stage comes after its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import ConfigError
from ..filters.base import Filter
from ..pretrain.models import model_identity
from ..registry import nearest, unknown
from ..shards import storage
from ..shards.row_table import OUTCOME
from ..shards.sources.base import IngestOptions, Source
from .columns import MODALITIES
from .config import Config, EncoderConfig
from .stage import Stage
from .stages.evaluation import BUILTIN, EvalSetStage, EvalStage
from .stages.filtering import FilterStage, SubsetStage
from .stages.pool import IngestStage, PoolStage, PrepareStage
from .stages.release import ReleaseStage
from .stages.report import ReportStage
from .stages.scoring import EmbedStage, ScoreStage
from .stages.training import EncoderStage, PretrainStage

S = TypeVar("S", bound=Stage)
ROW_TABLE = {"uid", *OUTCOME}


@dataclass
class Plan:
    """The stages of a run, in an order in which they can be done."""

    stages: list[Stage] = field(default_factory=list)

    def heights(self) -> dict[str, int]:
        """Longest way from each stage to the end of the run, in stages: what lies on a long way is started first."""
        heights = {s.name: 0 for s in self.stages}
        for stage in reversed(self.stages):
            for before in stage.inputs.values():
                heights[before.name] = max(heights[before.name], heights[stage.name] + 1)
        return heights

    def until(self, name: str) -> Plan:
        """Only the stage with that name, or all whose names start with ``name/``, and what they need.

        Raises:
            ConfigError: there is no such stage.
        """
        wanted = {s.name for s in self.stages if s.name == name or s.name.startswith(f"{name}/")}
        if not wanted:
            raise ConfigError(f"--until: {unknown('stage', name, [s.name for s in self.stages])}")
        for stage in reversed(self.stages):
            if stage.name in wanted:
                wanted |= {before.name for before in stage.inputs.values()}
        return Plan([s for s in self.stages if s.name in wanted])

    def of(self, kind: type[S]) -> list[S]:
        """Stages of one kind, in order."""
        return [s for s in self.stages if isinstance(s, kind)]

    def named(self, name: str) -> Stage:
        """The stage with that name."""
        return next(s for s in self.stages if s.name == name)


def make_plan(config: Config) -> Plan:
    """Stages of a config.

    Raises:
        ConfigError: an input, model or weight file that the config names is missing, or a column that nothing makes.
    """
    return _Planner(config).plan()


class _Planner:
    def __init__(self, config: Config) -> None:
        self.config = config
        self.stages: dict[str, Stage] = {}
        self.scores: dict[str, ScoreStage] = {}
        self.embeds: dict[str, EmbedStage] = {}
        self.subsets: dict[str, SubsetStage] = {}
        self.chains: dict[str, list[FilterStage]] = {}
        self.building: list[str] = []
        self.options = IngestOptions.model_validate(config.pool.model_dump(include=set(IngestOptions.model_fields)))

    def add(self, stage: S) -> S:
        """The planned stage equal to this one; plans it, under a name of its own, if it is new."""
        if stage.fingerprint not in self.stages:
            names = {s.name for s in self.stages.values()}
            name, n = stage.name, 2
            while stage.name in names:
                stage.name, n = f"{name}-{n}", n + 1
            self.stages[stage.fingerprint] = stage
        return self.stages[stage.fingerprint]  # type: ignore[return-value]

    def plan(self) -> Plan:
        c = self.config
        self.pool = self.ingest("", c.pool.named(), several=c.pool.source is None)
        for name in c.scores:
            if name in ROW_TABLE:
                raise ConfigError(f"scores.{name}: the pool has a column {name!r} of its own; choose another name")
            self.score(name)
        for name in c.subsets:
            self.subset(name)
        released = [self.release(name) for name in c.release.subsets] if c.release else []
        trained = {name: self.pretrain(name) for name in c.trained_subsets()}
        evaluated = {name: self.evaluate(name, stage) for name, stage in trained.items()} if c.eval else {}
        self.add(self.report(trained, evaluated, released))
        return Plan(list(self.stages.values()))

    def ingest(self, where: str, sources: dict[str, Source], several: bool = False) -> PoolStage:
        """The pool of some sources; `where` starts the names of its stages."""
        pools: dict[str, Stage] = {}
        for name, source in sources.items():
            inputs: dict[str, Stage] = {}
            if source.prepares:
                inputs["prepare"] = self.add(
                    PrepareStage(f"prepare/{source.type}", source=source, seed=self.config.seed)
                )
            pools[f"ingest/{name}"] = self.add(
                IngestStage(
                    f"{where}ingest/{name}",
                    inputs,
                    source=source,
                    options=self.options,
                    label=name if several else None,
                    root=storage.join(self.config.workdir, "artifacts"),
                )
            )
        return self.add(PoolStage(f"{where}pool", pools))

    def encoder(self, name: str) -> EmbedStage:
        """Embeddings of the pool by an encoder of the config."""
        if name not in self.embeds:
            option: EncoderConfig = self.config.encoders[name]
            inputs: dict[str, Stage] = {"pool": self.pool}
            weights = ""
            if option.train:
                inputs["encoder"] = self.add(
                    EncoderStage(
                        f"encoder/{name}",
                        {"data": self.ingest(f"encoder/{name}/", {option.train.data.type: option.train.data})},
                        model=option.model,
                        model_identity=model_identity(option.model),
                        recipe=option.train.recipe,
                        samples_seen=option.train.samples_seen,
                        seed=self.config.seed,
                    )
                )
            else:
                try:
                    weights = storage.identity(option.pretrained or "")
                except FileNotFoundError:
                    raise ConfigError(
                        f"encoders.{name}.pretrained: {option.pretrained!r} does not exist; give a local checkpoint"
                    ) from None
            self.embeds[name] = self.add(
                EmbedStage(f"embed/{name}", inputs, model=option.model, pretrained=option.pretrained, weights=weights)
            )
        return self.embeds[name]

    def columns(self, columns: list[str], where: str) -> dict[str, Stage]:
        """Stages that make the columns, by role; row-table columns come with the pool."""
        inputs: dict[str, Stage] = {}
        for column in columns:
            encoder, _, modality = column.rpartition(".")
            if modality in MODALITIES and encoder in self.config.encoders:
                inputs[f"embed/{encoder}"] = self.encoder(encoder)
                continue
            owners = [s for s in self.config.scores if column == s or column.startswith(f"{s}_")]
            if owners:
                name = max(owners, key=len)
                inputs[f"score/{name}"] = self.score(name)
            elif column not in ROW_TABLE:
                self.check_unknown(column, where)
        return inputs

    def check_unknown(self, column: str, where: str) -> None:
        """Refuse a slip of the pen; other columns may be extra ones of the pool, known once it is there."""
        if column == "language":
            raise ConfigError(
                f"{where} reads the column 'language', made by nothing; add `language: {{type: language}}` to scores"
            )
        made = [*self.config.scores, *(f"{e}.{m}" for e in self.config.encoders for m in MODALITIES)]
        if "." in column or nearest(column, made):
            raise ConfigError(f"{where}: {unknown('column', column, made)}")

    def score(self, name: str) -> ScoreStage:
        if name not in self.scores:
            if name in self.building:
                raise ConfigError(f"scores: {' -> '.join([*self.building, name])} is a circle")
            self.building.append(name)
            option = self.config.scores[name]
            inputs = {"pool": self.pool, **self.columns(option.columns(), f"scores.{name}")}
            self.scores[name] = self.add(ScoreStage(f"score/{name}", inputs, scorer=option, column=name))
            self.building.remove(name)
        return self.scores[name]

    def subset(self, name: str) -> SubsetStage:
        if name not in self.subsets:
            marker = f"subset {name}"
            if marker in self.building:
                raise ConfigError(f"subsets: {name!r} takes its size from itself, by way of `like`")
            self.building.append(marker)
            chain: list[FilterStage] = []
            for i, option in enumerate(self.config.subsets[name]):
                chain.append(self.filter(name, i, option, chain[-1] if chain else None))
            inputs: dict[str, Stage] = {"pool": self.pool}
            inputs |= {f"filter/{i:02d}": stage for i, stage in enumerate(chain)}
            labels = tuple(filter_label(i, f) for i, f in enumerate(self.config.subsets[name]))
            self.chains[name] = chain
            self.subsets[name] = self.add(SubsetStage(f"subset/{name}", inputs, labels=labels))
            self.building.remove(marker)
        return self.subsets[name]

    def filter(self, subset: str, index: int, option: Filter, previous: FilterStage | None) -> FilterStage:
        where = f"subsets.{subset}.{index} ({option.type})"
        inputs: dict[str, Stage] = {"pool": self.pool, **self.columns(option.columns(), where)}
        if previous is not None:
            inputs["previous"] = previous
        like = getattr(option, "like", None)
        if like is not None:
            inputs["like"] = self.subset(like)
        label = filter_label(index, option)
        return self.add(FilterStage(f"subset/{subset}/{label}", inputs, filter=option, seed=self.config.seed))

    def pretrain(self, subset: str) -> PretrainStage:
        option = self.config.pretrain
        assert option is not None
        return self.add(
            PretrainStage(
                f"pretrain/{subset}",
                {"pool": self.pool, "subset": self.subset(subset)},
                model=option.model,
                model_identity=model_identity(option.model),
                recipe=option.effective_recipe(),
                samples_seen=option.samples_seen,
                seed=self.config.seed,
                seeds=option.seeds,
            )
        )

    def evaluate(self, subset: str, trained: PretrainStage) -> EvalStage:
        option = self.config.eval
        assert option is not None
        inputs: dict[str, Stage] = {"pretrain": trained}
        folders, identities = [], []
        for data in option.data:
            if "/" not in data and not storage.exists(data):
                inputs[f"evalset/{data}"] = self.add(EvalSetStage(f"evalset/{data}", builtin=data))
                continue
            for folder in evalset_folders(data):
                folders.append(folder)
                identities.append(storage.identity(folder))
        return self.add(
            EvalStage(
                f"eval/{subset}",
                inputs,
                suites=tuple(option.suites),
                folders=tuple(folders),
                folder_identities=tuple(identities),
            )
        )

    def release(self, subset: str) -> ReleaseStage:
        option = self.config.release
        assert option is not None
        inputs: dict[str, Stage] = {"pool": self.pool, "subset": self.subset(subset)}
        inputs |= {f"score/{name}": stage for name, stage in self.scores.items()}
        inputs |= {f"embed/{name}": self.encoder(name) for name in option.embeddings}
        inputs |= {f"filter/{i:02d}": stage for i, stage in enumerate(self.chains[subset])}
        return self.add(
            ReleaseStage(
                f"release/{subset}",
                inputs,
                title=f"{self.config.name}/{subset}",
                samples_per_shard=option.samples_per_shard,
                datasheet=dict(option.datasheet),
                seed=self.config.seed,
            )
        )

    def report(
        self,
        trained: dict[str, PretrainStage],
        evaluated: dict[str, EvalStage],
        released: list[ReleaseStage],
    ) -> ReportStage:
        inputs: dict[str, Stage] = {"pool": self.pool}
        inputs |= {f"score/{name}": stage for name, stage in self.scores.items()}
        inputs |= {f"embed/{name}": stage for name, stage in self.embeds.items()}
        inputs |= {f"subset/{name}": stage for name, stage in self.subsets.items()}
        for name, chain in self.chains.items():
            inputs |= {f"filter/{name}/{i:02d}": stage for i, stage in enumerate(chain)}
        inputs |= {f"pretrain/{name}": stage for name, stage in trained.items()}
        inputs |= {f"eval/{name}": stage for name, stage in evaluated.items()}
        inputs |= {f"release/{s.title}": s for s in released}
        for stage in self.pool.inputs.values():
            if "prepare" in stage.inputs:
                inputs["prepare"] = stage.inputs["prepare"]
        everything = {s.name: s for s in self.stages.values()}
        inputs |= {f"stage/{name}": stage for name, stage in everything.items()}
        return ReportStage("report", inputs, config=self.config)


def filter_label(index: int, option: Any) -> str:
    """Name of a filter inside its subset: its place, from 1, and its type."""
    return f"{index + 1}-{option.type}"


def evalset_folders(path: str) -> list[str]:
    """The evaluation sets that a config entry names: the folder itself, or the ``wds_*`` folders in it.

    Raises:
        ConfigError: there is none.
    """
    if not storage.exists(path):
        raise ConfigError(
            f"eval.data: {path!r} is neither a folder nor a built-in evaluation set ({', '.join(BUILTIN)})"
        )
    names = storage.list_names(path)
    inner = [storage.join(path, n) for n in names if n.startswith("wds_")]
    if inner:
        return inner
    if "test" in names:
        return [path]
    raise ConfigError(f"eval.data: {path!r} holds no evaluation set (wds_*/ folders, or one with test/ in it)")
