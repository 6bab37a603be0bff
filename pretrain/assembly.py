"""From a recipe and a model's name to what the loop trains: network, objective, tokenizer, teachers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from open_clip.transformer import VisionTransformer

from ..errors import ConfigError
from . import streams
from .data.label_space import LabelSpace
from .data.preprocess import Preprocess
from .data.tokenizer import Tokenizer, tokenizer_for
from .encoders.load_encoder import load_encoder
from .models.architecture import ModelSpec, build, resolve_model
from .models.classifier import build_classifier, load_tower
from .models.encoder_folder import find_encoder
from .models.locking import checkpoint_gradients, lock
from .models.network import PairNetwork
from .models.resize_positions import allow_image_size, grid_of
from .models.short_captions import allow_text_length
from .models.text_tower import text_ends, text_tower
from .models.token_reduction import PatchSelection, install_patch_selection
from .models.towers import Towers
from .models.weights import load_weights, weights_digest
from .objectives.base import Objective
from .objectives.logit_scale import initial_bias, initial_scale
from .phases import PhasePlan
from .recipe import PairRecipe, Recipe, SigLipRecipe, SupervisedRecipe
from .teachers import Teachers, refuse_unable


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
        learns_text: whether the loss looks at captions.
        unreached: whether some trainable weights have no part in the loss.
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
    learns_text: bool = True
    unreached: bool = False

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
    if recipe.labels is not None and not classes:
        raise ConfigError(f"the recipe {recipe.type} learns labels, and there are none")
    if isinstance(recipe, SupervisedRecipe):
        return _classifier(recipe, model, seed, device, start, classes)
    if not isinstance(recipe, PairRecipe):
        raise ConfigError(f"the recipe {recipe.type!r} trains no model of pictures and text")
    spec = adapted(resolve_model(model), recipe)
    width = int(spec.config["embed_dim"])
    if recipe.contrastive_weight and max(recipe.matryoshka, default=0) >= width:
        raise ConfigError(
            f"matryoshka: {max(recipe.matryoshka)} is not a prefix of the {width} numbers of {spec.name}; give less"
        )
    module = build(spec, seed)
    _fill_decoder(module, seed)
    identity: dict[str, Any] = {"model": spec.identity}
    if start:
        load_weights(module, find_encoder(model, start).weights, spec.name)
        if isinstance(recipe, SigLipRecipe):
            _begin_siglip(module)
        identity["start"] = weights_digest(module)
    head = recipe.labels is not None and recipe.labels.loss is not None
    names = classes.names if head and classes else None
    teachers = load_teachers(recipe, device, identity, names)
    if recipe.lock:
        lock(module, recipe.lock)
    if recipe.grad_checkpointing:
        checkpoint_gradients(module)
    patches = None
    if any(phase.patch_keep < 1 for phase in recipe.phases):
        patches = install_patch_selection(module.visual)
    towers = Towers(module, spec.preprocess, whole_blocks=recipe.sharding == "fsdp")
    projected = projections(recipe, teachers, width)
    compared = {"scale": _compares(recipe), "bias": recipe.contrastive_weight > 0}
    constant = [name for name, learned in compared.items() if not learned]
    network = PairNetwork(towers, width, len(names or ()), projected, seed, constant)
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
        learns_text=_learns_text(recipe, teachers, projected),
        unreached=bool(constant) or "multimodal_cfg" in spec.config,
    )


def _fill_decoder(module: Any, seed: int) -> None:
    """open_clip leaves a matrix of CoCa's decoder as memory happened to be: not used here, but published."""
    matrix = getattr(getattr(module, "text_decoder", None), "text_projection", None)
    if isinstance(matrix, torch.nn.Parameter):
        generator = torch.Generator().manual_seed(streams.key(seed, "decoder") >> 1)
        torch.nn.init.normal_(matrix, std=len(matrix) ** -0.5, generator=generator)


def _compares(recipe: PairRecipe) -> bool:
    """Whether the loss looks at scaled cosines of pictures and captions."""
    return recipe.contrastive_weight > 0 or any(teacher.kind == "logits" for teacher in recipe.distill)


def _learns_text(recipe: PairRecipe, teachers: Teachers | None, projected: Mapping[int, int]) -> bool:
    """Whether the loss looks at captions: compared with pictures, or with a teacher's, in one space with it."""
    if _compares(recipe) or teachers is None:
        return _compares(recipe)
    both = enumerate(zip(recipe.distill, teachers.encoders, strict=True))
    return any(t.kind == "features" and "text" in e.modalities and i not in projected for i, (t, e) in both)


def adapted(spec: ModelSpec, recipe: Recipe) -> ModelSpec:
    """The architecture as the recipe needs it: SigLIP's loss has a bias, and scale and bias that begin elsewhere. What
    is changed stands in the published config, so whoever loads the weights builds the same model."""
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


def _begin_siglip(module: Any) -> None:
    """Weights of a CLIP training have no bias, which open_clip reads as 0; SigLIP's loss then begins with its own scale
    and bias, as from the seed's weights."""
    if float(module.logit_bias.detach()) == 0:
        with torch.no_grad():
            module.logit_scale.fill_(initial_scale("siglip"))
            module.logit_bias.fill_(initial_bias("siglip"))


def load_teachers(
    recipe: Recipe, device: torch.device, identity: dict[str, Any], classes: Sequence[str] | None
) -> Teachers | None:
    """The recipe's teachers; what they are goes into `identity`.

    Args:
        classes: that the student's head tells apart, or None.

    Raises:
        ConfigError: there is no such model, or it cannot teach what it should.
    """
    if not recipe.distill:
        return None
    encoders = [load_encoder(t.model, t.pretrained, str(device), recipe.precision) for t in recipe.distill]
    identity["teachers"] = [encoder.digest for encoder in encoders]
    for teacher, encoder in zip(recipe.distill, encoders, strict=True):
        refuse_unable(teacher, encoder, classes)
    return Teachers(encoders, [teacher.kind for teacher in recipe.distill])


def projections(recipe: Recipe, teachers: Teachers | None, width: int) -> Mapping[int, int]:
    """Number of a teacher -> dimensions of its features, where the student's must be led into its space."""
    if teachers is None:
        return {}
    both = enumerate(zip(recipe.distill, teachers.encoders, strict=True))
    return {i: encoder.dim for i, (option, encoder) in both if option.kind == "features" and encoder.dim != width}


def _classifier(
    recipe: SupervisedRecipe, model: str, seed: int, device: torch.device, start: str | None, classes: LabelSpace | None
) -> Assembly:
    assert classes
    network = build_classifier(model, len(classes), seed, recipe.classifier)
    identity: dict[str, Any] = {"model": asdict(network.architecture), "classes": classes.identity}
    if start:
        load_tower(network, start, classes.names)
        identity["start"] = weights_digest(network)
    if recipe.grad_checkpointing:
        _checkpoint_tower(network.tower.model)
    teachers = load_teachers(recipe, device, identity, classes.names)
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


def _checkpoint_tower(tower: Any) -> None:
    """Gradient checkpointing of an image tower alone, see `locking.checkpoint_gradients`."""
    from types import SimpleNamespace

    if hasattr(tower, "set_grad_checkpointing") and type(tower).__module__.startswith("timm."):
        try:
            tower.set_grad_checkpointing(True)
        except (AttributeError, AssertionError, NotImplementedError) as error:
            raise ConfigError(f"grad_checkpointing: timm's {type(tower).__name__} cannot: {error}") from error
        return
    checkpoint_gradients(
        SimpleNamespace(visual=tower, set_grad_checkpointing=lambda on: tower.set_grad_checkpointing(on))
    )
