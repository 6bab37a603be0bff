"""Towers that are not trained, or in part: LiT (Zhai et al., CVPR 2022), and the switch for gradient checkpointing.

A locked tower also stands still otherwise: it runs in evaluation mode, so that batch norm keeps its statistics and
nothing is dropped. open_clip's own ``lock`` exchanges batch norms for a class with other names in its state instead,
which its loader then refuses; here weights keep their names. Its partial locks are used where they are right.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from ...errors import ConfigError
from ...registry import Options


class LockOptions(Options):
    """Which towers are locked."""

    image: bool = Field(False, description="Lock the image tower: LiT.")
    image_unlocked_groups: int = Field(
        0, ge=0, description="Groups of layers at its end that are trained all the same."
    )
    text: bool = Field(False, description="Lock the text tower.")
    text_unlocked_layers: int = Field(0, ge=0, description="Layers at its end that are trained all the same.")

    @model_validator(mode="after")
    def _locked(self) -> LockOptions:
        if self.image_unlocked_groups and not self.image:
            raise ValueError("image_unlocked_groups needs `image: true`")
        if self.text_unlocked_layers and not self.text:
            raise ValueError("text_unlocked_layers needs `text: true`")
        return self


def lock(model: Any, options: LockOptions) -> None:
    """Lock the towers of an open_clip model: their weights get no gradient. Call `stand_still` after ``train()``.

    Raises:
        ConfigError: the tower does not know groups of layers, or has fewer.
    """
    if options.image:
        _lock_image(model.visual, options.image_unlocked_groups)
    if options.text:
        _lock_text(model, options.text_unlocked_layers)


def _lock_image(visual: Any, unlocked: int) -> None:
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if not unlocked:
        for p in visual.parameters():
            p.requires_grad_(False)
        if isinstance(visual, TimmModel):  # as in open_clip: the projection into the shared space learns
            for p in visual.head.parameters():
                p.requires_grad_(True)
        return
    if isinstance(visual, VisionTransformer):
        _at_most(unlocked, len(visual.transformer.resblocks) + 2, "image")
        visual.lock(unlocked_groups=unlocked)
    elif isinstance(visual, TimmModel):
        from timm.models import group_parameters

        trunk: Any = visual.trunk
        groups = group_parameters(trunk, trunk.group_matcher())
        _at_most(unlocked, len(groups), "image")
        for number in sorted(groups)[: len(groups) - unlocked]:
            for name in groups[number]:
                trunk.get_parameter(name).requires_grad_(False)
    elif isinstance(visual, ModifiedResNet):
        stages = ("layer1", "layer2", "layer3", "layer4", "attnpool")  # the stem is the first group
        _at_most(unlocked, len(stages) + 1, "image")
        free = stages[max(0, len(stages) - unlocked) :]
        for name, p in visual.named_parameters():
            p.requires_grad_(unlocked > len(stages) or name.split(".")[0] in free)
    else:
        raise ConfigError(f"lock: a {type(visual).__name__} is locked as a whole only; leave image_unlocked_groups out")


def _lock_text(model: Any, unlocked: int) -> None:
    text = getattr(model, "text", model)
    blocks = getattr(getattr(text, "transformer", None), "resblocks", None)
    if blocks is not None:
        _at_most(unlocked, len(blocks) + 2, "text")
    elif unlocked and not hasattr(text, "config"):
        raise ConfigError(f"lock: a {type(text).__name__} is locked as a whole only; leave text_unlocked_layers out")
    model.lock_text_tower(unlocked_layers=unlocked)


def _at_most(unlocked: int, groups: int, tower: str) -> None:
    if unlocked > groups:
        raise ConfigError(
            f"lock: {unlocked} groups of the {tower} tower are to stay unlocked, but it has {groups} only"
        )


def stand_still(model: Any) -> None:
    """Put everything without a trainable weight into evaluation mode, after ``train()`` has put all into training mode:
    statistics of locked batch norms keep still, and locked layers drop nothing."""
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()


def checkpoint_gradients(model: Any) -> None:
    """Keep the inputs of layers only and compute the rest again in the backward pass: memory for time (Chen et al.,
    2016). Call it before the model is put into `towers.Towers`, which chooses its routes by it.

    Raises:
        ConfigError: a tower does not know how.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel

    visual: Any = model.visual
    if isinstance(visual, ModifiedResNet) or not hasattr(visual, "set_grad_checkpointing"):
        raise ConfigError(
            f"grad_checkpointing: the image tower {type(visual).__name__} cannot; use a vision transformer or "
            "a model of timm"
        )
    if isinstance(visual, TimmModel):
        try:
            trunk: Any = visual.trunk
            trunk.set_grad_checkpointing(True)  # open_clip's own switch only logs where this fails
        except (AttributeError, AssertionError, NotImplementedError) as error:
            raise ConfigError(f"grad_checkpointing: timm's {type(visual.trunk).__name__} cannot: {error}") from error
    model.set_grad_checkpointing(True)
