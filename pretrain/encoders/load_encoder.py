"""From a name or a folder to an encoder, of whatever kind it is."""

from __future__ import annotations

from ..data.tokenizer import tokenizer_for
from ..models.encoder_folder import find_encoder
from ..models.timm_names import TimmSpec
from ..models.weights import load_module
from ..precision import pick_device, pick_precision
from .classifier_encoder import load_classifier, with_head
from .encoder import Encoder
from .timm_encoder import load_timm


def load_encoder(model: str, pretrained: str | None = None, device: str = "auto", precision: str = "fp32") -> Encoder:
    """Load an encoder folder, or a model of open_clip or timm with a local checkpoint. Nothing is downloaded.

    Args:
        model: encoder folder, a classifier's folder, open_clip model name, shipped model name or model JSON;
            ``timm:NAME`` or ``timm/NAME`` for an image model of timm's.
        pretrained: local checkpoint, when `model` is not a folder.
        device: ``auto``, ``cpu``, ``cuda``...
        precision: ``fp32``, ``bf16`` or ``fp16``; ``auto`` is fp32 on a CPU and bf16 on a GPU, where that halves
            the time at about three digits of accuracy.

    Raises:
        ConfigError: unknown model, missing weights, or weights of another architecture; no such device, or a
            precision that it should not be asked for.
    """
    place = pick_device(device)
    settled = pick_precision(precision, place)
    found = find_encoder(model, pretrained)
    if found.classifier is not None:
        return load_classifier(found.classifier, place, settled)
    if isinstance(found.spec, TimmSpec):
        return load_timm(found.spec, found.weights, place, settled)
    tokenizer = tokenizer_for(found.spec.tokenizer, found.spec.config["text_cfg"])
    module = load_module(found.spec, found.weights)
    if found.heads is not None:
        return with_head(module, found.spec, tokenizer, place, settled, found.heads, found.classes)
    return Encoder(module, found.spec, tokenizer, place, settled)
