"""What a training or an evaluation cannot be, told while it is planned: before anything is fetched, in one sentence.

Everything here follows from names and options; what only data can tell (a label column that is not there, a set without
templates) is found when the stage begins. Nothing imports torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from ..eval.suites import Suite
from ..pretrain.models.architecture import CONFIG_FILE, ModelSpec, model_identity, resolve_model
from ..pretrain.models.classifier_folder import is_classifier_folder
from ..pretrain.models.encoder_folder import built, find_encoder
from ..pretrain.models.timm_names import is_timm
from ..pretrain.objectives.supervised_options import SemanticSoftmaxOptions
from ..pretrain.outputs.log_sinks import check_installed
from ..pretrain.phases import plan_phases
from ..pretrain.recipe import PairRecipe, Recipe, SigLipRecipe
from ..shards import storage

BIAS = "init_logit_bias"  # in a model's config: it has a bias
CONTEXT_LENGTH = 77  # open_clip's, where a model's config names none


@dataclass(frozen=True)
class Offers:
    """What suites may ask of a model.

    Attributes:
        what: names it in messages, such as ``the encoder 'dfn'``.
        text: whether it has a text tower; `head`: whether it has a classifier with named classes.
        encoder: whether it is one of the config's encoders.
    """

    what: str
    text: bool
    head: bool
    encoder: bool = False

    @staticmethod
    def of_training(what: str, recipe: Recipe, encoder: bool = False) -> Offers:
        """Of the models that a recipe makes."""
        labels = recipe.labels
        return Offers(what, recipe.reads_captions, labels is not None and labels.loss is not None, encoder)

    @staticmethod
    def of_weights(what: str, model: str, pretrained: str | None) -> Offers:
        """Of an encoder that is loaded.

        Raises:
            ConfigError: it cannot be.
        """
        found = find_encoder(model, pretrained)
        return Offers(what, isinstance(found.spec, ModelSpec), bool(found.classes), True)


def check_suites(suites: Sequence[Suite], model: Offers) -> None:
    """
    Raises:
        ConfigError: a suite needs what the model has not, or two suites have one name.
    """
    labels = [suite.label for suite in suites]
    if not labels:
        raise ConfigError("eval.suites: there is none")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ConfigError(f"eval.suites: two are called {twice!r}; give one of them a `name`")
    leave = ", or name the encoders to measure in `eval.encoders`" if model.encoder else ""
    for suite in suites:
        if "text" in suite.needs and not model.text:
            raise ConfigError(
                f"eval.suites: {suite.label!r} compares pictures with texts, and there is no text tower in "
                f"{model.what}; use knn, linear_probe or supervised{leave}"
            )
        if "head" in suite.needs and not model.head:
            raise ConfigError(
                f"eval.suites: {suite.label!r} needs a classifier with named classes, and there is none in "
                f"{model.what}; train with `labels`{leave}"
            )


def check_training(
    recipe: Recipe, model: str, samples_seen: int, processes: int, where: str, not_in_tables: Collection[str] = ()
) -> None:
    """What can be known to be wrong with a training.

    Args:
        where: section of the config, for messages.
        not_in_tables: names that are no columns of the row tables, though they look like some: the scores'.

    Raises:
        ConfigError: what, and what to do.
    """
    check_installed(recipe.log)
    smallest = min([recipe.batch_size, *(p.batch_size for p in recipe.phases if p.batch_size)])
    if processes > smallest:
        raise ConfigError(f"{where}: {processes} processes cannot share a batch of {smallest}; lower `processes`")
    columns = [*(recipe.captions if isinstance(recipe, PairRecipe) else ())]
    columns += [recipe.labels.column] if recipe.labels else []
    for column in columns:
        if column in not_in_tables:
            raise ConfigError(
                f"{where}.recipe: {column!r} is a score; captions and labels are read from columns of the pool's tables"
            )
    size, context = (1, 1), None
    if isinstance(recipe, PairRecipe):
        spec = _pair_model(recipe, model, where)
        size, context = spec.preprocess.size, spec.config["text_cfg"].get("context_length", CONTEXT_LENGTH)
    elif is_classifier_folder(model):
        raise ConfigError(
            f"{where}.model: {model!r} is a trained classifier; name its architecture, and the folder as `start`"
        )
    else:
        model_identity(model)
    try:
        plan_phases(recipe.phases, samples_seen, recipe.batch_size, size, context, recipe.crop_scale)
    except ConfigError as error:
        raise ConfigError(f"{where}.recipe.{error}") from error


def _pair_model(recipe: Recipe, model: str, where: str) -> ModelSpec:
    if is_timm(model):
        raise ConfigError(
            f"{where}.model: {model!r} has no text tower, which the recipe {recipe.type!r} trains; use the recipe "
            "`supervised`, or name it as `vision_cfg.timm_model_name` of a model JSON in open_clip's format"
        )
    if is_classifier_folder(model):
        raise ConfigError(
            f"{where}.model: {model!r} is an image classifier without a text tower, which the recipe {recipe.type!r} "
            "trains; use the recipe `supervised`"
        )
    spec = resolve_model(model)
    if isinstance(recipe, SigLipRecipe) and "multimodal_cfg" in spec.config:
        raise ConfigError(f"{where}.model: the recipe siglip needs a logit bias, which a CoCa such as {model} has not")
    return spec


def check_start(
    recipe: Recipe, model: str, start: str, where: str, looks_only: bool = False, biased: bool = False
) -> None:
    """Refuse weights that a training cannot go on from.

    Args:
        model: that is trained.
        start: architecture of the weights: a model's name or a folder; or the path of a checkpoint, which names none.
        where: the option, for messages.
        looks_only: whether they are known to be of a model of pictures alone; `biased`: of one with a logit bias.

    Raises:
        ConfigError: they are of another kind or architecture.
    """
    folder = is_classifier_folder(start)
    if isinstance(recipe, PairRecipe):
        if looks_only or folder or is_timm(start):
            raise ConfigError(
                f"{where}: the weights are of an image model ({start}), and the recipe {recipe.type!r} trains a model "
                "of pictures and text; start from one of those"
            )
        theirs, ours = _named(start), resolve_model(model)
        if theirs is not None and built(theirs) != built(ours):
            raise ConfigError(f"{where}: the weights are of {theirs.short_name}, not of {model}")
        biased = biased or (theirs is not None and BIAS in theirs.config)
        if biased and BIAS not in ours.config and not isinstance(recipe, SigLipRecipe):
            raise ConfigError(
                f"{where}: the weights have SigLIP's logit bias, which models of the recipe {recipe.type!r} have not; "
                "train with siglip, or start from other weights"
            )
    elif not folder and is_timm(start) != is_timm(model) and (is_timm(start) or _named(start)):
        raise ConfigError(f"{where}: the weights are of {start}, not of {model}")


def _named(name: str) -> ModelSpec | None:
    """The architecture of a model's name or an encoder folder; None of a checkpoint, which has none."""
    if storage.exists(name) and not name.endswith(".json") and not storage.exists(storage.join(name, CONFIG_FILE)):
        return None
    return resolve_model(name)


def files_of(recipe: Recipe, where: str) -> list[str]:
    """Local files that a training reads besides its samples, in a fixed order; their content is part of what it is.

    Raises:
        ConfigError: a teacher has no weights.
    """
    found = []
    labels = recipe.labels
    if labels is not None:
        found += [labels.classes] if isinstance(labels.classes, str) else []
        if isinstance(labels.loss, SemanticSoftmaxOptions):
            loss = labels.loss
            found.append(loss.wordnet if loss.hierarchy == "wordnet" else loss.hierarchy)
    for teacher in recipe.distill:
        try:
            found.append(find_encoder(teacher.model, teacher.pretrained).weights)
        except ConfigError as error:
            raise ConfigError(f"{where}.distill: {error}") from error
    return found


__all__ = ["Offers", "check_start", "check_suites", "check_training", "files_of"]
