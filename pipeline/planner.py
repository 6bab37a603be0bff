"""The planner: a config becomes stages with fingerprints.

Stages with equal fingerprints are one stage: subsets that begin with the same filters, an encoder that two scores use,
two sources over one demo web. The order is such that every stage comes after its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..errors import ConfigError
from ..filters.base import Filter
from ..filters.budget import ForTraining
from ..shards import storage
from ..shards.sources.base import IngestOptions, Source
from .config import Config
from .plan_columns import ROW_TABLE, ColumnPlanner, share_image_passes
from .plan_eval import EvalPlanner
from .plan_sweep import plan_sweep
from .stage import Stage
from .stages.evaluation import EvalCheckStage, EvalSetStage, EvalStage
from .stages.filtering import FilterStage, SubsetStage
from .stages.pool import IngestStage, PoolStage, PrepareStage
from .stages.release import ReleaseStage
from .stages.report import ReportStage
from .stages.training import EncoderStage, PretrainStage

S = TypeVar("S", bound=Stage)


class Planner:
    """Plans all sections of a config, from the pool to the report."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stages: dict[str, Stage] = {}
        self.subsets: dict[str, SubsetStage] = {}
        self.chains: dict[str, list[FilterStage]] = {}
        self.building: list[str] = []
        self.budget = config.pretrain.samples_seen if config.pretrain else None
        self.at_other_budgets: dict[tuple[int | None, str], tuple[SubsetStage, list[FilterStage]]] = {}
        self.columns = ColumnPlanner(config, self.add, self.ingest, self.subset)
        self.evaluations = EvalPlanner(config, self.add, self.columns)
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

    def stages_of_run(self) -> list[Stage]:
        """All stages, each after its inputs.

        Raises:
            ConfigError: an input, model or weight file that the config names is missing, or a column nothing makes.
        """
        c = self.config
        self.pool = self.ingest("", c.pool.named(), several=c.pool.source is None)
        for name in c.scores:
            if name in ROW_TABLE:
                raise ConfigError(f"scores.{name}: the pool has a column {name!r} of its own; choose another name")
            self.columns.score(name, self.pool)
        for name in c.subsets:
            self.subset(name)
        released = [self.release(name) for name in c.release.subsets] if c.release else []
        trained = {name: self.pretrain(name) for name in c.trained_subsets()}
        evaluated = (
            {name: self.evaluations.of_training(name, stage) for name, stage in trained.items()} if c.eval else {}
        )
        networks = {name: self.evaluations.of_encoder(name) for name in c.measured_encoders()}
        swept = plan_sweep(self)
        share_image_passes(self.stages.values())
        self.add(self.report(trained, evaluated, networks, released, swept))
        first = [s for s in self.stages.values() if isinstance(s, (EvalSetStage, EvalCheckStage))]
        for stage in self.stages.values():
            if isinstance(stage, (EncoderStage, PretrainStage)):  # nothing is trained that could not be measured
                stage.gates = [s for s in first if isinstance(s, EvalCheckStage)]
        return [*first, *(s for s in self.stages.values() if s not in first)]

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

    def subset(self, name: str) -> SubsetStage:
        """A subset, as the current budget makes it."""
        return self.subset_and_chain(name)[0]

    def subset_and_chain(self, name: str) -> tuple[SubsetStage, list[FilterStage]]:
        """A subset and its filters, as the current budget makes them."""
        main = self.config.pretrain is None or self.budget == self.config.pretrain.samples_seen
        if main and name in self.subsets:
            return self.subsets[name], self.chains[name]
        if not main and (self.budget, name) in self.at_other_budgets:
            return self.at_other_budgets[self.budget, name]
        marker = f"subset {name}"
        if marker in self.building:
            raise ConfigError(f"subsets: {name!r} is made from itself")
        self.building.append(marker)
        options = {filter_label(i, option): option for i, option in enumerate(self.config.subsets[name])}
        if cleaned := self.evaluations.decontamination(name):
            options = {"0-decontaminate": cleaned, **options}
        chain: list[FilterStage] = []
        for label, option in options.items():
            chain.append(self.filter(name, label, option, chain[-1] if chain else None))
        inputs: dict[str, Stage] = {"pool": self.pool}
        inputs |= {f"filter/{i:02d}": stage for i, stage in enumerate(chain)}
        stage = self.add(SubsetStage(f"subset/{name}{self.at}", inputs, labels=tuple(options)))
        self.building.remove(marker)
        if main:
            self.chains[name], self.subsets[name] = chain, stage
        else:
            self.at_other_budgets[self.budget, name] = stage, chain
        return stage, chain

    @contextmanager
    def at_budget(self, samples_seen: int) -> Iterator[None]:
        """Plan subsets for a training of another length: `auto` filters keep what suits it, the others what they did.

        What does not depend on the length is the same stage as ever.
        """
        before, self.budget = self.budget, samples_seen
        try:
            yield
        finally:
            self.budget = before

    @property
    def at(self) -> str:
        """What names of subsets made for another budget end with."""
        main = self.config.pretrain is None or self.budget == self.config.pretrain.samples_seen
        return "" if main else f"/seen-{self.budget}"

    def filter(self, subset: str, label: str, option: Filter, previous: FilterStage | None) -> FilterStage:
        where = f"subsets.{subset}.{label}"
        if isinstance(option, ForTraining) and option.wants_budget:
            if self.budget is not None:
                option = option.with_budget(self.budget)
            option.seen()  # raises if nobody said
        inputs, encoders, files = self.columns.needs(option, where, self.pool, "")
        if previous is not None:
            inputs["previous"] = previous
        like = getattr(option, "like", None)
        if like is not None:
            inputs["like"] = self.subset(like)
        return self.add(
            FilterStage(
                f"subset/{subset}{self.at}/{label}",
                inputs,
                filter=option,
                seed=self.config.seed,
                encoders=encoders,
                files=files,
            )
        )

    def pretrain(
        self,
        subset: str,
        name: str = "",
        made: SubsetStage | None = None,
        model: str | None = None,
        samples_seen: int | None = None,
    ) -> PretrainStage:
        """The training on a subset; the other arguments are what a point of a sweep has of its own."""
        option = self.config.pretrain
        assert option is not None
        training, first = self.columns.training(
            option.effective_recipe(),
            model or option.model,
            samples_seen or option.samples_seen,
            option.start,
            option.processes,
            "pretrain",
            option.license,
        )
        inputs: dict[str, Stage] = {"pool": self.pool, "subset": made or self.subset(subset), **first}
        inputs |= {f"also/{other}": self.columns.target(other, "pretrain.also") for other in option.also}
        if option.validation:
            inputs["validation"] = self.columns.target(option.validation, "pretrain.validation")
        return self.add(
            PretrainStage(
                name or f"pretrain/{subset}",
                inputs,
                training=training,
                seed=self.config.seed,
                seeds=option.seeds,
                shares=dict(option.also),
            )
        )

    def release(self, subset: str) -> ReleaseStage:
        option = self.config.release
        assert option is not None
        inputs: dict[str, Stage] = {"pool": self.pool, "subset": self.subset(subset)}
        inputs |= {f"score/{name}": stage for name, stage in self.columns.scores_of(self.pool).items()}
        inputs |= {f"embed/{name}": self.columns.encoder(name, self.pool) for name in option.embeddings}
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
        networks: dict[str, EvalStage],
        released: list[ReleaseStage],
        swept: dict[str, Stage],
    ) -> ReportStage:
        inputs: dict[str, Stage] = {"pool": self.pool}
        inputs |= {f"score/{name}": stage for name, stage in self.columns.scores_of(self.pool).items()}
        inputs |= {f"embed/{name}": stage for name, stage in self.columns.embeds_of(self.pool).items()}
        inputs |= {f"subset/{name}": stage for name, stage in self.subsets.items()}
        for name, chain in self.chains.items():
            inputs |= {f"filter/{name}/{i:02d}": stage for i, stage in enumerate(chain)}
        inputs |= {f"pretrain/{name}": stage for name, stage in trained.items()}
        inputs |= {f"eval/{name}": stage for name, stage in evaluated.items()}
        inputs |= {f"network/{name}": stage for name, stage in networks.items()}
        inputs |= {f"release/{s.title}": s for s in released} | swept
        for stage in self.pool.inputs.values():
            if "prepare" in stage.inputs:
                inputs["prepare"] = stage.inputs["prepare"]
        everything = {s.name: s for s in self.stages.values()}
        inputs |= {f"stage/{name}": stage for name, stage in everything.items()}
        return ReportStage("report", inputs, config=self.config)


def filter_label(index: int, option: Any) -> str:
    """Name of a filter inside its subset: its place, from 1, and its type."""
    return f"{index + 1}-{option.type}"
