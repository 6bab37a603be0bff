"""Planning of columns: which stages make the embeddings and scores that somebody reads, over which pool.

The pool itself and every target set have their own embeddings and scores, made by the same encoders and scorers of the
config; a column is planned when the first stage reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ..errors import ConfigError
from ..filters.base import Reads, Scorer
from ..pretrain.detectors.text_boxes import text_boxes_model
from ..pretrain.models.architecture import modalities_of, model_identity
from ..pretrain.recipe import Recipe, SigLipRecipe
from ..registry import nearest, unknown
from ..shards import storage
from ..shards.evalsets.builtin import BUILTIN
from ..shards.row_table import OUTCOME
from .columns import MODALITIES, SUBSET
from .config import Config, EncoderConfig
from .context import EncoderAt
from .plan_training import check_start, check_training, files_of
from .stage import Stage, digest
from .stages.embedding import EmbedStage, ImportStage
from .stages.evaluation import EvalSetStage, source_identity
from .stages.pool import PoolStage
from .stages.scoring import ScoreStage
from .stages.training import EncoderStage, Training

ROW_TABLE = {"uid", *OUTCOME}


class ColumnPlanner:
    """Plans encoders, target sets and scores of a config.

    Args:
        add: takes a stage into the plan, and gives back the equal one that is already there.
        ingest: plans the pool of some sources; names of its stages start with the first argument.
        subset: plans a subset of the pool.
    """

    def __init__(
        self,
        config: Config,
        add: Callable[[Any], Any],
        ingest: Callable[..., PoolStage],
        subset: Callable[[str], Stage],
    ) -> None:
        self.config, self.add, self.ingest, self.subset = config, add, ingest, subset
        self.scores: dict[tuple[str, str], ScoreStage] = {}
        self.embeds: dict[tuple[str, str], EmbedStage | ImportStage] = {}
        self.targets: dict[str, PoolStage] = {}
        self.building: list[str] = []

    def scores_of(self, pool: PoolStage) -> dict[str, ScoreStage]:
        """The scores of one pool by name, in the order in which they were planned."""
        return {name: stage for (key, name), stage in self.scores.items() if key == pool.fingerprint}

    def embeds_of(self, pool: PoolStage) -> dict[str, EmbedStage | ImportStage]:
        """The embeddings of one pool by encoder."""
        return {name: stage for (key, name), stage in self.embeds.items() if key == pool.fingerprint}

    def target(self, name: str, where: str) -> PoolStage:
        """The pool of a target set."""
        if name not in self.config.targets:
            raise ConfigError(f"{where}: {unknown('target set', name, self.config.targets)}; see `targets`")
        if name not in self.targets:
            source = self.config.targets[name]
            self.targets[name] = self.ingest(f"target/{name}/", {source.type: source})
        return self.targets[name]

    def trained(self, name: str) -> EncoderStage:
        """The training of an encoder of the config."""
        marker = f"encoder {name}"
        if marker in self.building:
            raise ConfigError(f"encoders: the training of {name!r} starts from itself")
        self.building.append(marker)
        option = self.config.encoders[name]
        assert option.train is not None
        assert option.model is not None
        inputs: dict[str, Stage] = {
            "data": self.ingest(f"encoder/{name}/", {option.train.data.type: option.train.data})
        }
        train = option.train
        training, first = self.training(
            train.recipe, option.model, train.samples_seen, train.start, train.processes, f"encoders.{name}.train"
        )
        self.building.remove(marker)
        return self.add(EncoderStage(f"encoder/{name}", inputs | first, training=training, seed=self.config.seed))

    def training(
        self,
        recipe: Recipe,
        model: str,
        samples_seen: int,
        start: str | None,
        processes: int,
        where: str,
        license: str = "",
    ) -> tuple[Training, dict[str, Stage]]:
        """A training, and as inputs of its stage what it goes on from, if that is made in this run.

        Args:
            start: an encoder of the config, a checkpoint or a folder; None = the seed's weights.
            where: section of the config, for messages.

        Raises:
            ConfigError: it cannot be done.
        """
        check_training(recipe, model, samples_seen, processes, where, self.config.scores)
        weights, identity, first = self.beginning(recipe, model, start, f"{where}.start")
        files = self.identities(files_of(recipe, f"{where}.recipe"), f"{where}.recipe")
        models = [model_identity(teacher.model) for teacher in recipe.distill]
        return (
            Training(
                recipe=recipe,
                model=model,
                model_identity=model_identity(model),
                samples_seen=samples_seen,
                start=weights,
                start_weights=identity,
                files=digest([files, models]) if files else "",
                processes=processes,
                license=license,
            ),
            first,
        )

    def beginning(
        self, recipe: Recipe, model: str, start: str | None, where: str
    ) -> tuple[str | None, str, dict[str, Stage]]:
        """What a training goes on from: local weights and their identity; or, as an input, the training that makes
        them."""
        if start is None:
            return None, "", {}
        other = self.config.encoders.get(start)
        if other is None:
            identity = self.weights(start, where)
            check_start(recipe, model, start, where)
            return start, identity, {}
        if other.model is None:
            raise ConfigError(f"{where}: {start!r} has no weights of its own")
        biased = other.train is not None and isinstance(other.train.recipe, SigLipRecipe)
        check_start(recipe, model, other.model, where, "text" not in self.modalities(start), biased)
        if other.train:
            return None, "", {"start": self.trained(start)}
        assert other.pretrained is not None
        return other.pretrained, self.weights(other.pretrained, where), {}

    def weights(self, path: str, where: str) -> str:
        """Identity of a local checkpoint or encoder folder."""
        try:
            return storage.identity(path)
        except FileNotFoundError:
            raise ConfigError(f"{where}: {path!r} does not exist; give a local checkpoint") from None

    def encoder_at(self, name: str) -> tuple[EncoderAt, dict[str, Stage], str]:
        """Where an encoder is loaded from, the training that it waits for, and the identity of local weights."""
        option = self.config.encoders[name]
        if option.model is None:
            raise ConfigError(f"encoders.{name} has no model that could be asked, only embeddings")
        at = EncoderAt(option.model, option.pretrained, option.device, option.precision)
        if option.train:
            return at, {"encoder": self.trained(name)}, ""
        return at, {}, self.weights(option.pretrained or "", f"encoders.{name}.pretrained")

    def encoder(self, name: str, pool: PoolStage, where: str = "") -> EmbedStage | ImportStage:
        """Embeddings of a pool by an encoder of the config; `where` starts the stage's name."""
        key = (pool.fingerprint, name)
        if key not in self.embeds:
            option: EncoderConfig = self.config.encoders[name]
            if option.embeddings is not None:
                read = self.stages_for(option.embeddings.columns(), f"encoders.{name}.embeddings", pool, where)
                inputs: dict[str, Stage] = {"pool": pool, **read}
                self.embeds[key] = self.add(
                    ImportStage(
                        f"{where}embed/{name}",
                        inputs,
                        source=option.embeddings,
                        files=digest(self.identities(option.embeddings.files(), f"encoders.{name}.embeddings")),
                    )
                )
                return self.embeds[key]
            at, training, weights = self.encoder_at(option.of or name)
            if option.mask_text:
                weights = digest([weights, *self.identities([str(text_boxes_model())], f"encoders.{name}.mask_text")])
            self.embeds[key] = self.add(
                EmbedStage(
                    f"{where}embed/{name}",
                    {"pool": pool, **training},
                    encoder=replace(at, device=option.device, precision=option.precision),
                    model_identity=model_identity(at.model),
                    weights=weights,
                    mask_text=option.mask_text,
                    store_as=option.store,
                )
            )
        return self.embeds[key]

    def modalities(self, name: str) -> tuple[str, ...]:
        """What an encoder of the config embeds."""
        option = self.config.encoders[name]
        if option.embeddings is not None:
            return tuple(option.embeddings.modalities())
        if option.of is not None or (option.train and not option.train.recipe.reads_captions):
            return ("image",)
        return modalities_of(option.model or "")

    def identities(self, files: list[str], where: str) -> list[str]:
        """Identities of the content of local files, in order."""
        found = []
        for path in files:
            try:
                found.append(storage.identity(path))
            except FileNotFoundError:
                raise ConfigError(f"{where}: {path!r} does not exist") from None
        return found

    def stages_for(self, columns: list[str], where: str, pool: PoolStage, prefix: str) -> dict[str, Stage]:
        """Stages that make the columns of a pool, by role; row-table columns come with the pool.

        Args:
            prefix: what the names of the pool's stages start with; empty for the pool itself.
        """
        inputs: dict[str, Stage] = {}
        for column in columns:
            encoder, _, modality = column.rpartition(".")
            if modality in MODALITIES and encoder in self.config.encoders:
                if modality not in self.modalities(encoder):
                    raise ConfigError(f"{where}: the encoder {encoder!r} makes no {modality} embeddings")
                inputs[f"embed/{encoder}"] = self.encoder(encoder, pool, prefix)
                continue
            if column.startswith(SUBSET):
                name = column.removeprefix(SUBSET)
                if name not in self.config.subsets:
                    raise ConfigError(f"{where}: {unknown('subset', name, self.config.subsets)}")
                inputs[f"subset/{name}"] = self.subset(name)
                continue
            owners = [s for s in self.config.scores if column == s or column.startswith(f"{s}_")]
            if owners:
                name = max(owners, key=len)
                inputs[f"score/{name}"] = self.score(name, pool, prefix, where)
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

    def needs(
        self, option: Reads, where: str, pool: PoolStage, prefix: str
    ) -> tuple[dict[str, Stage], dict[str, EncoderAt], str]:
        """What a scorer or filter reads: stages by role, encoders by name, and the identity of files and models."""
        inputs: dict[str, Stage] = {"pool": pool, **self.stages_for(option.columns(), where, pool, prefix)}
        for target, wanted in option.targets().items():
            theirs, names = self.target(target, where), f"target/{target}/"
            made = self.stages_for(wanted, where, theirs, names)
            inputs |= {f"{names}pool": theirs, **{f"{names}{role}": stage for role, stage in made.items()}}
        files = self.identities(option.files(), where)
        files += [model_identity(model) for model in option.architectures()]
        encoders = {}
        for encoder in option.encoders():
            if isinstance(option, Scorer) and "text" not in self.modalities(encoder):
                raise ConfigError(f"{where}: the encoder {encoder!r} reads no prompts; it embeds pictures only")
            encoders[encoder], training, weights = self.encoder_at(encoder)
            inputs |= {f"encoder/{encoder}": stage for stage in training.values()}
            files += [model_identity(encoders[encoder].model), weights]
        for evalset in option.evalsets():
            if evalset.path in BUILTIN:
                inputs[f"evalset/{evalset.path}"] = self.add(
                    EvalSetStage(f"evalset/{evalset.path}", builtin=evalset.path)
                )
            else:
                files += [source_identity(evalset, where)]
        return inputs, encoders, digest(files) if files else ""

    def score(self, name: str, pool: PoolStage, prefix: str = "", asked_by: str = "") -> ScoreStage:
        """A score of the config over a pool."""
        key = (pool.fingerprint, name)
        if key not in self.scores:
            where = f"scores.{name}"
            option = self.config.scores[name]
            if prefix and option.whole_pool:
                raise ConfigError(
                    f"{asked_by}: the score {name!r} ({option.type}) depends on the whole pool, so it cannot be "
                    "compared between the pool and a target set"
                )
            if where in self.building:
                raise ConfigError(f"scores: {' -> '.join([*self.building, where])} is a circle")
            self.building.append(where)
            inputs, encoders, files = self.needs(option, where, pool, prefix)
            self.scores[key] = self.add(
                ScoreStage(
                    f"{prefix}score/{name}",
                    inputs,
                    scorer=option,
                    column=name,
                    encoders=encoders,
                    files=files,
                    seed=self.config.seed,
                )
            )
            self.building.remove(where)
        return self.scores[key]


def share_image_passes(stages: Iterable[Stage]) -> None:
    """Let stages that look at the same pictures do so together: one read and one decode for all of them.

    The first of a group does the others' parts along with its own; they come after it and find them done. Encoders that
    are trained in this run are a group of their own, because the others need not wait for them. Only order and company
    are set here: no result and no fingerprint depends on it, so encoders and scores may come and go.
    """
    groups: dict[tuple[str, bool], list[Stage]] = {}
    for stage in stages:
        if isinstance(stage, EmbedStage) or (isinstance(stage, ScoreStage) and stage.looks_along()):
            groups.setdefault((stage.inputs["pool"].fingerprint, "encoder" in stage.inputs), []).append(stage)
    for members in groups.values():
        for i, stage in enumerate(members):
            stage.companions = members[i + 1 :]
            needed = {id(s): s for m in stage.companions for s in m.inputs.values()}
            stage.after = [*members[:i], *needed.values()]
