"""The config: every section and its options, as pydantic models. The shape of the file is the shape of these classes.

Options of sources, scorers, filters, recipes and suites live beside the code that they configure; here they are only
put together. Importing this module must stay cheap (no torch), because every command does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ..eval.suites import SuiteOption, parse_suites
from ..filters.base import Filter, Scorer
from ..filters.embedding_imports import EMBEDDING_IMPORTS, EmbeddingImport
from ..filters.registered import FILTERS, SCORERS
from ..pretrain.datacomp_scales import RECIPES
from ..pretrain.recipe import Recipe
from ..registry import Options, unknown
from ..shards.evalsets.source import EvalSourceOption
from ..shards.sources import SOURCES
from ..shards.sources.base import IngestOptions, Source
from .config_file import ConfigFile
from .sweep_config import SweepConfig, SweepPoint

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


def _named(value: Any) -> Any:
    """Allow ``recipe: clip`` for ``recipe: {type: clip}``."""
    return {"type": value} if isinstance(value, str) else value


if TYPE_CHECKING:
    SourceOption = Source
    ScorerOption = Scorer
    ImportOption = EmbeddingImport
    FilterOption = Filter
    RecipeOption = Recipe
else:  # one of the registered classes, told apart by `type`
    SourceOption, ScorerOption, FilterOption = SOURCES.union(), SCORERS.union(), FILTERS.union()
    ImportOption = EMBEDDING_IMPORTS.union()
    RecipeOption = Annotated[RECIPES.union(), BeforeValidator(_named)]
Name = Annotated[str, Field(pattern=NAME)]


class PoolConfig(IngestOptions):
    """Where samples come from, and how they become shards."""

    source: SourceOption | None = Field(None, description="Where samples come from.")
    sources: dict[Name, SourceOption] = Field(
        default_factory=dict,
        description="Several sources by name, instead of `source`; samples keep the name in the column `source`.",
    )

    @model_validator(mode="after")
    def _one_or_several(self) -> PoolConfig:
        if (self.source is None) == (not self.sources):
            raise ValueError("a pool needs `source` (one), or `sources` (several, by name)")
        return self

    def named(self) -> dict[str, Source]:
        """The sources by name; a single one has the name of its type."""
        return {self.source.type: self.source} if self.source is not None else dict(self.sources)


class EncoderTraining(Options):
    """Train the encoder here, on trusted data: a data filtering network."""

    data: SourceOption = Field(description="Trusted image-text pairs, ingested like the pool.")
    recipe: RecipeOption = Field(
        default_factory=lambda: RECIPES["clip"].model_validate({}), description="How to train."
    )
    samples_seen: int = Field(ge=1, description="Training budget in samples.")
    start: str | None = Field(
        None, description="Weights to start from: another encoder of this config, a checkpoint, or an encoder folder."
    )
    processes: int = Field(1, ge=1, description="Processes that train together, each with a GPU if there are any.")


class EncoderConfig(Options):
    """A model that reads the pool and makes embedding columns, or embeddings that exist already."""

    model: str | None = Field(
        None,
        description="open_clip model name, `timm:NAME` (pictures only), a shipped tiny model, or a model JSON.",
    )
    pretrained: str | None = Field(None, description="Local checkpoint, or encoder folder.")
    train: EncoderTraining | None = Field(None, description="Train it here instead of loading it.")
    embeddings: ImportOption | None = Field(None, description="Take over embeddings that exist, joined by uid.")
    of: str | None = Field(None, description="Another encoder's model, looking at pictures changed by `mask_text`.")
    mask_text: bool = Field(
        False, description="Paint over text in the pictures before they are embedded (T-MARS). Needs `of`."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs; auto = a GPU if any.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Arithmetic of the model: auto = fp32 on a CPU, bf16 on a GPU."
    )
    store: Literal["float16", "float32"] = Field("float16", description="How embeddings are kept.")

    @model_validator(mode="after")
    def _one_origin(self) -> EncoderConfig:
        origins = ("pretrained", "train", "embeddings", "of")
        given = [name for name in origins if getattr(self, name) is not None]
        if len(given) != 1:
            told = f"this one has {' and '.join(given)}" if given else "this one has none"
            raise ValueError(
                "an encoder needs exactly one of `pretrained` (a local path), `train`, `embeddings` and `of`; " + told
            )
        if (self.model is None) != (given[0] in ("embeddings", "of")):
            raise ValueError(
                f"an encoder with `{given[0]}` " + ("needs a `model`" if self.model is None else "has no `model`")
            )
        if self.mask_text != (self.of is not None):
            raise ValueError("`of: NAME` and `mask_text: true` belong together")
        return self


class ReleaseConfig(Options):
    """What consumers get."""

    subsets: list[str] = Field(min_length=1, description="Subsets to release.")
    embeddings: list[str] = Field(default_factory=list, description="Encoders whose embeddings are released.")
    samples_per_shard: int = Field(10_000, ge=1, description="Samples per released shard.")
    datasheet: dict[str, str] = Field(default_factory=dict, description="Texts for the datasheet: licence, contact...")


class PretrainConfig(Options):
    """Train one model per subset and seed, all at the same number of samples seen."""

    recipe: RecipeOption = Field(
        default_factory=lambda: RECIPES["clip"].model_validate({}), description="How to train."
    )
    model: str = Field(
        "",
        description="open_clip model name, a shipped tiny model, or a path to a model JSON; `timm:NAME` with the "
        "recipe `supervised`. May be left out where the recipe brings it (`datacomp`).",
    )
    samples_seen: int = Field(
        0,
        ge=0,
        description="Training budget in samples, exact. May be left out where the recipe brings it (`datacomp`).",
    )
    batch_size: int | None = Field(None, ge=1, description="Overrides the recipe's batch size.")
    seeds: int = Field(1, ge=1, description="Trainings per subset; they differ in initialisation and order.")
    subsets: Literal["all"] | list[str] = Field("all", description="Subsets to train on.")
    processes: int = Field(
        1, ge=1, description="Processes that train one model together, each with a GPU if there are any."
    )
    start: str | None = Field(
        None, description="Weights to go on from: an encoder of this config, a checkpoint, or an encoder folder."
    )
    also: dict[Name, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict,
        description="Sets of `targets` that are mixed in, each with its share of the samples seen: replay, or labels.",
    )
    validation: str | None = Field(
        None, description="A set of `targets` that each model is measured on, at its snapshots and at the end."
    )
    license: str = Field("", description="Licence of the models, for their cards.")
    sweep: SweepConfig | None = Field(
        None, description="Train on nested sizes, at several budgets or models, too, and fit how quality grows."
    )

    @model_validator(mode="after")
    def _complete(self) -> PretrainConfig:
        for key in ("model", "samples_seen"):
            brought = getattr(self.recipe, key, None)
            if not getattr(self, key):
                if not brought:
                    raise ValueError(f"pretrain needs `{key}`; only the recipe `datacomp` brings one")
                object.__setattr__(self, key, brought)
        if (total := sum(self.also.values())) >= 1:
            raise ValueError(f"pretrain.also: the shares add up to {total:g}, which leaves nothing for the subset")
        return self

    def effective_recipe(self) -> Any:
        """The recipe with this section's overrides; one that brings model and budget tells those that are used."""
        given = {"model": self.model, "samples_seen": self.samples_seen}
        changed = {key: value for key, value in given.items() if key in type(self.recipe).model_fields}
        if self.batch_size is not None:
            changed["batch_size"] = self.batch_size
        return self.recipe.model_copy(update=changed) if changed else self.recipe


class EvalConfig(Options):
    """How good each trained model is."""

    suites: list[SuiteOption] = Field(
        default_factory=lambda: parse_suites(["zero_shot"]), description="What to measure."
    )
    encoders: Literal["trained", "all"] | list[str] = Field(
        "trained", description="Encoders to measure, too; by default those that are trained in this run."
    )
    data: list[EvalSourceOption] = Field(
        min_length=1,
        description="Evaluation sets: names of built-in ones (`digits`), folders in CLIP_benchmark's layout or of such "
        "folders, image folders, parquet files; or mappings with `path` and more.",
    )
    models_per_pass: int = Field(
        4, ge=1, description="Models of one subset that share a pass over the pictures; no result depends on it."
    )
    decontaminate: bool = Field(
        True, description="Drop samples that are in these evaluation sets, from every subset that does not say how."
    )
    keep_features: bool = Field(
        True,
        description="Keep the features of evaluation sets in the workdir (4 bytes per dimension and picture), so that "
        "another suite or template embeds nothing again.",
    )
    control: str | None = Field(None, description="Subset that the others are compared with; default: the first.")
    shifts: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Set -> its shifted versions, for effective robustness; default: DataComp's of ImageNet.",
    )

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, (str, dict)) else value


class ReportConfig(Options):
    """What the report shows."""

    gallery: int = Field(12, ge=0, le=200, description="Examples per gallery (kept, and dropped, per filter).")
    price_per_cpu_hour: float | None = Field(None, ge=0, description="Adds a cost column, in your currency.")
    price_per_gpu_hour: float | None = Field(None, ge=0, description="Price of one GPU for an hour, likewise.")


class ClusterConfig(Options):
    """Where work runs."""

    address: str = Field(
        "local",
        description="local (Ray on this machine) | processes (this machine, without Ray) | inline (this "
        "process) | auto | an address of a Ray cluster.",
    )
    workers: int = Field(0, ge=0, description="CPU workers; 0 = one per CPU.")
    attempts: int = Field(3, ge=1, description="How often a part is started before it is given up.")
    part_timeout: float = Field(0.0, ge=0, description="Seconds after which a part counts as hung; 0 = never.")


class Config(Options):
    """One YAML file in; a released dataset, trained models and a report out."""

    name: Name = Field(description="Name of the run.")
    workdir: str = Field("runs", description="Folder of all runs; finished work in it is reused.")
    seed: int = Field(0, ge=0, description="All randomness is a function of it.")
    pool: PoolConfig = Field(description="Where samples come from.")
    targets: dict[Name, SourceOption] = Field(
        default_factory=dict, description="Sets of samples that scores compare the pool with; ingested like the pool."
    )
    encoders: dict[Name, EncoderConfig] = Field(default_factory=dict, description="Models that read the pool.")
    scores: dict[Name, ScorerOption] = Field(default_factory=dict, description="Named columns over the whole pool.")
    subsets: dict[Name, list[FilterOption]] = Field(
        default_factory=lambda: {"everything": []}, description="Named strategies: ordered lists of filters."
    )
    release: ReleaseConfig | None = None
    pretrain: PretrainConfig | None = None
    eval: EvalConfig | None = None
    report: ReportConfig = Field(default_factory=lambda: ReportConfig.model_validate({}))
    cluster: ClusterConfig = Field(default_factory=lambda: ClusterConfig.model_validate({}))

    @field_validator("subsets", mode="before")
    @classmethod
    def _empty_lists(cls, value: Any) -> Any:
        return {k: v or [] for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _references(self) -> Config:
        """Names that one section uses must exist in the other."""

        def require(what: str, used_in: str, name: str, known: Any) -> None:
            if name not in known:
                raise ValueError(f"{used_in}: {unknown(what, name, known)}")

        for section, names in (
            ("release.subsets", self.release.subsets if self.release else []),
            ("pretrain.subsets", self.trained_subsets()),
            ("pretrain.sweep.subsets", self.swept_subsets()),
            ("eval.control", [self.eval.control] if self.eval and self.eval.control else []),
        ):
            for name in names:
                require("subset", section, name, self.subsets)
        for name in self.release.embeddings if self.release else []:
            require("encoder", "release.embeddings", name, self.encoders)
        if self.eval and self.pretrain and self.eval.control and self.eval.control not in self.trained_subsets():
            raise ValueError(f"eval.control: no model is trained on {self.eval.control!r}; see pretrain.subsets")
        for name in (*self.pretrain.also, *filter(None, [self.pretrain.validation])) if self.pretrain else ():
            require("target set", "pretrain", name, self.targets)
        for name in self.measured_encoders():
            require("encoder", "eval.encoders", name, self.encoders)
        for name, encoder in self.encoders.items():
            if encoder.of is not None:
                require("encoder", f"encoders.{name}.of", encoder.of, self.encoders)
                if self.encoders[encoder.of].model is None:
                    raise ValueError(f"encoders.{name}.of: {encoder.of!r} has no model of its own")
        for holder, option in self._users_of_columns():
            for field in ("encoder", "image_encoder"):
                if (named := getattr(option, field, None)) is not None:
                    require("encoder", f"{holder} ({option.type})", named, self.encoders)
            for target in option.targets():
                require("target set", f"{holder} ({option.type})", target, self.targets)
            like = getattr(option, "like", None)
            if like is not None:
                require("subset", f"{holder} ({option.type})", like, self.subsets)
        if self.eval and not self.pretrain and not self.measured_encoders():
            raise ValueError("eval: there is nothing to evaluate without a `pretrain` section or `encoders`")
        return self

    def _users_of_columns(self) -> list[tuple[str, Any]]:
        users = [(f"scores.{name}", option) for name, option in self.scores.items()]
        return users + [(f"subsets.{name}", option) for name, filters in self.subsets.items() for option in filters]

    def measured_encoders(self) -> list[str]:
        """Names of the encoders that are evaluated."""
        if self.eval is None:
            return []
        wanted = self.eval.encoders
        if wanted == "trained":
            return [name for name, encoder in self.encoders.items() if encoder.train]
        if wanted == "all":
            return [name for name, encoder in self.encoders.items() if encoder.model]
        return list(wanted)

    def sweep_points(self) -> list[SweepPoint]:
        """All points of the sweep, subset by subset, small ones first; the report reads them in this order."""
        option = self.pretrain
        if option is None or option.sweep is None:
            return []
        return [
            p for name in self.swept_subsets() for p in option.sweep.points(name, option.samples_seen, option.model)
        ]

    def swept_subsets(self) -> list[str]:
        """Names of the subsets whose sizes or budgets are swept over."""
        if not self.pretrain or not self.pretrain.sweep:
            return []
        return self.pretrain.sweep.subsets or self.trained_subsets()

    def trained_subsets(self) -> list[str]:
        """Names of the subsets that are trained on, in the config's order."""
        if not self.pretrain:
            return []
        return list(self.subsets) if self.pretrain.subsets == "all" else list(self.pretrain.subsets)


def load(path: str, overrides: list[str] | tuple[str, ...] = ()) -> tuple[Config, ConfigFile]:
    """Read, override and validate a config file.

    Raises:
        ConfigError: what is wrong, with file, line and key, one problem per line.
    """
    file = ConfigFile.read(path)
    file.override(list(overrides))
    return file.validate(Config), file
