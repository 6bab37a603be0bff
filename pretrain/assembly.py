"""From a recipe and a model's name to what the loop trains: network, objective, tokenizer, teachers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from open_clip.transformer import VisionTransformer

from ..errors import ConfigError
from .classifier import build_classifier, load_tower
from .encoder import Encoder
from .encoder_folder import find_encoder
from .label_space import LabelSpace
from .locking import checkpoint_gradients, lock
from .models import ModelSpec, Preprocess, build, resolve_model
from .network import PairNetwork
from .objectives.base import Objective
from .objectives.logit_scale import initial_bias, initial_scale
from .phases import PhasePlan
from .recipe import PairRecipe, Recipe, SigLipRecipe, SupervisedRecipe
from .resize_positions import allow_image_size, grid_of
from .short_captions import allow_text_length
from .teachers import Teachers
from .token_reduction import PatchSelection, install_patch_selection
from .tokenizer import Tokenizer, tokenizer_for
from .towers import Towers, text_ends, text_tower
from .weights import load_weights, weights_digest


@dataclass
class Assembly:
    """What one training trains.

    Attributes:
        name: of the architecture, without folders.
        network: on the CPU, in training mode.
        preprocess: the model's input.
        tokenizer: None without a text tower.
        objective: what is minimised.
        teachers: models that are followed, on the training's device; None without any.
        classes: what the head tells apart, if there is one.
        patches: where patches are left out; None if no phase leaves any out.
        identity: what the result depends on beside the recipe's options, as JSON.
        spec: of a model of pictures and text; None of a classifier.
    """

    name: str
    network: Any
    preprocess: Preprocess
    tokenizer: Tokenizer | None
    objective: Objective
    teachers: Teachers | None
    classes: LabelSpace | None
    patches: PatchSelection | None
    identity: dict[str, Any]
    spec: ModelSpec | None = None

    @property
    def context_length(self) -> int | None:
        """Tokens per caption at most; None without a text tower."""
        return None if self.tokenizer is None else self.tokenizer.context_length

    def caption_ends(self, tokens: Any) -> Any:
        """Column of each caption's end mark, ``(n,) int64``.

        Raises:
            ConfigError: the text tower does not look for one.
        """
        tower = text_tower(self.network.model)
        if tower is None:
            raise ConfigError(f"phases: the text tower of {self.name} has no end mark; use text_cut: truncate")
        return text_ends(tower, tokens)

    @property
    def visual(self) -> Any:
        """The image tower, as open_clip or timm made it."""
        return self.network.model.visual if self.spec is not None else self.network.tower.model

    def allow(self, plan: PhasePlan) -> None:
        """Make the model ready for the inputs of all phases.

        Raises:
            ConfigError: it does not take them.
        """
        for span in plan.spans:
            if span.view.image_size != self.preprocess.size:
                allow_image_size(self.visual, span.view.image_size)
            if span.text_length and self.spec is not None:
                allow_text_length(self.network.model, span.text_length)

    def patch_count(self, size: tuple[int, int]) -> int:
        """Patches of an image of that size."""
        visual = self.visual
        if isinstance(visual, VisionTransformer):
            rows, columns = grid_of(visual, size)
        else:
            rows, columns = getattr(visual, "trunk", visual).patch_embed.dynamic_feat_size(size)
        return int(rows * columns)


def assemble(
    recipe: Recipe,
    model: str,
    seed: int,
    device: torch.device,
    start: str | None = None,
    classes: LabelSpace | None = None,
) -> Assembly:
    """Build everything.

    Args:
        model: a name, see `models.resolve_model`; ``timm:NAME`` for supervised recipes.
        seed: of initialisation.
        device: where teachers run.
        start: encoder folder or checkpoint whose weights are trained further.
        classes: of the labels that the recipe learns.

    Raises:
        ConfigError: unknown model, weights or teachers that do not fit it, or something it cannot do.
    """
    if isinstance(recipe, SupervisedRecipe):
        return _classifier(recipe, model, seed, device, start, classes)
    if not isinstance(recipe, PairRecipe):
        raise ConfigError(f"the recipe {recipe.type!r} trains no model of pictures and text")
    spec = adapted(resolve_model(model), recipe)
    module = build(spec, seed)
    identity: dict[str, Any] = {"model": spec.identity}
    if start:
        load_weights(module, find_encoder(model, start).weights, spec.name)
        identity["start"] = weights_digest(module)
    teachers = load_teachers(recipe, device, identity)
    if recipe.lock:
        lock(module, recipe.lock)
    if recipe.grad_checkpointing:
        checkpoint_gradients(module)
    patches = None
    if any(phase.patch_keep < 1 for phase in recipe.phases):
        patches = install_patch_selection(module.visual)
    towers = Towers(module, spec.preprocess, whole_blocks=recipe.sharding == "fsdp")
    head = recipe.labels is not None and recipe.labels.loss is not None
    network = PairNetwork(
        towers,
        int(spec.config["embed_dim"]),
        len(classes) if head and classes else 0,
        projections(recipe, teachers, int(spec.config["embed_dim"])),
        seed,
    )
    if classes:
        identity["classes"] = classes.identity
    return Assembly(
        name=spec.short_name,
        network=network,
        preprocess=spec.preprocess,
        tokenizer=tokenizer_for(spec.tokenizer, spec.config["text_cfg"]),
        objective=recipe.objective(classes),
        teachers=teachers,
        classes=classes if head else None,
        patches=patches,
        identity=identity,
        spec=spec,
    )


def adapted(spec: ModelSpec, recipe: Recipe) -> ModelSpec:
    """The architecture as the recipe needs it: SigLIP's loss has a bias, and scale and bias that begin elsewhere. What is
    changed stands in the published config, so whoever loads the weights builds the same model."""
    if not isinstance(recipe, SigLipRecipe):
        return spec
    config: dict[str, Any] = json.loads(json.dumps(spec.config))
    if "multimodal_cfg" in config:
        raise ConfigError(
            f"the recipe siglip needs a model with a logit bias, which a CoCa such as {spec.name} has not"
        )
    config.setdefault("init_logit_scale", initial_scale("siglip"))
    config.setdefault("init_logit_bias", initial_bias("siglip"))
    return replace(spec, config=config)


def load_teachers(recipe: Recipe, device: torch.device, identity: dict[str, Any]) -> Teachers | None:
    """The recipe's teachers; what they are goes into `identity`."""
    if not recipe.teachers:
        return None
    encoders = [Encoder.load(t.model, t.pretrained, str(device), recipe.precision) for t in recipe.teachers]
    identity["teachers"] = [encoder.digest for encoder in encoders]
    return Teachers(encoders)


def projections(recipe: Recipe, teachers: Teachers | None, width: int) -> Mapping[int, int]:
    """Number of a teacher -> dimensions of its features, where the student's must be led into its space."""
    if teachers is None:
        return {}
    both = enumerate(zip(recipe.teachers, teachers.encoders, strict=True))
    return {i: encoder.dim for i, (option, encoder) in both if option.kind == "features" and encoder.dim != width}


def _classifier(
    recipe: SupervisedRecipe, model: str, seed: int, device: torch.device, start: str | None, classes: LabelSpace | None
) -> Assembly:
    if classes is None:
        raise ConfigError("the recipe supervised learns labels, and there are none")
    network = build_classifier(model, len(classes), seed, recipe.classifier)
    identity: dict[str, Any] = {"model": asdict(network.architecture), "classes": classes.identity}
    if start:
        load_tower(network, start, classes.names)
        identity["start"] = weights_digest(network)
    teachers = load_teachers(recipe, device, identity)
    if any(option.kind == "features" for option in recipe.teachers):
        raise ConfigError(
            "a classifier follows a teacher's `classes`; `features` and `logits` are for image-text recipes"
        )
    patches = None
    if any(phase.patch_keep < 1 for phase in recipe.phases):
        patches = install_patch_selection(network.tower.model)
    return Assembly(
        name=network.architecture.model.removeprefix("timm:"),
        network=network,
        preprocess=network.preprocess,
        tokenizer=None,
        objective=recipe.objective(classes),
        teachers=teachers,
        classes=classes,
        patches=patches,
        identity=identity,
    )
