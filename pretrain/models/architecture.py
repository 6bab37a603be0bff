"""Model names -> architectures -> modules with a known initialisation.

A model of pictures and text is named by one of the tiny configs that ship here (`model_configs/`), by any name
open_clip knows, by the path of a JSON file in open_clip's format, or by an encoder folder (whose architecture is then
used afresh). Looking a name up reads JSON files only; torch is imported when a module is built. timm's image models
(``timm:NAME``), which have no text tower, are looked up in `timm_names.py`.

Our JSON files may hold two keys more than open_clip's: ``tokenizer`` (see `tokenizer.py`) and ``preprocess_cfg``. They
are taken out before open_clip sees the config.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...errors import ConfigError
from ...registry import unknown
from ...shards import storage
from ..data.preprocess import Preprocess
from .classifier_folder import is_classifier_folder, open_classifier_folder, read_object
from .timm_names import is_timm, resolve_timm

if TYPE_CHECKING:
    from torch import nn

Modality = Literal["image", "text"]

CONFIG_FILE = "open_clip_config.json"
ENCODER_FILE = "encoder.json"


@dataclass(frozen=True)
class ModelSpec:
    """An architecture, ready to be built.

    Attributes:
        name: as the user wrote it; for messages.
        config: open_clip's model config.
        tokenizer: what `tokenizer.tokenizer_for` takes.
        preprocess: the model's input.
    """

    name: str
    config: dict[str, Any]
    tokenizer: str
    preprocess: Preprocess = field(hash=False)

    @property
    def short_name(self) -> str:
        """The name without folders and extension; for files that must not tell where they were made."""
        return self.name.rstrip("/").rsplit("/", 1)[-1].removesuffix(".json")

    @property
    def identity(self) -> str:
        """32 hexadecimal characters that change when the architecture, tokenizer or preprocessing does."""
        value = {"config": self.config, "tokenizer": self.tokenizer, "preprocess": asdict(self.preprocess)}
        return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def model_identity(name: str) -> str:
    """`ModelSpec.identity` (or `TimmSpec.identity`) of a name; cheap enough for planning.

    Raises:
        ConfigError: no such model.
    """
    if is_classifier_folder(name):
        return open_classifier_folder(name).identity
    return (resolve_timm(name) if is_timm(name) else resolve_model(name)).identity


def modalities_of(name: str) -> tuple[Modality, ...]:
    """What a model embeds; cheap enough for planning. The name is not looked up."""
    return ("image",) if is_timm(name) or is_classifier_folder(name) else ("image", "text")


def resolve_model(name: str) -> ModelSpec:
    """The architecture of pictures and text that a name, a JSON file or an encoder folder stands for.

    Raises:
        ConfigError: no such model (names the nearest spelling), or its config cannot be read.
    """
    if is_timm(name):
        raise ConfigError(
            f"{name!r} is an image model; one with a text tower is needed here. To train it with captions, name it as "
            "`vision_cfg.timm_model_name` of a model JSON in open_clip's format"
        )
    if is_classifier_folder(name):
        raise ConfigError(f"{name} is an image classifier; a model with a text tower is needed here")
    ours, theirs = _own_configs(), _open_clip_configs()
    if name in ours:
        return _spec(name, read_object(ours[name]), "clip")
    if name.replace("/", "-") in theirs:  # open_clip accepts ViT-B/32 for ViT-B-32
        builtin = name.replace("/", "-")
        return _spec(builtin, read_object(theirs[builtin]), f"open_clip:{builtin}")
    if name.endswith(".json"):
        if not storage.exists(name):
            raise ConfigError(f"the model config {name} does not exist")
        return _spec(name, read_object(name), "clip")
    if storage.exists(storage.join(name, CONFIG_FILE)):
        return _folder_spec(name)
    sentence = unknown("model", name, [*ours, *theirs])
    if len(sentence) > 300:  # nothing is close; do not print 150 names
        sentence = f"unknown model {name!r}; shipped here: {', '.join(ours)}; {len(theirs)} more are open_clip's"
    raise ConfigError(sentence + "; a path to a model JSON or an encoder folder works too")


def _folder_spec(folder: str) -> ModelSpec:
    config = read_object(storage.join(folder, CONFIG_FILE))
    record = storage.join(folder, ENCODER_FILE)
    if storage.exists(record):
        return _spec(folder, config, str(read_object(record)["tokenizer"]))
    text_cfg = config.get("model_cfg", config).get("text_cfg", {})
    theirs = bool(text_cfg.get("hf_tokenizer_name")) and storage.is_local(folder)
    return _spec(folder, config, f"open_clip:local-dir:{folder}" if theirs else "clip")


def _spec(name: str, value: dict[str, Any], tokenizer: str) -> ModelSpec:
    """From the parsed JSON: a model config, or open_clip's ``{"model_cfg": ..., "preprocess_cfg": ...}``."""
    config = dict(value.get("model_cfg", value))
    tokenizer = config.pop("tokenizer", value.get("tokenizer", tokenizer))
    options = config.pop("preprocess_cfg", value.get("preprocess_cfg", {}))
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in config:
            raise ConfigError(f"the model config of {name} has no {key!r}; see open_clip's model_configs")
    return ModelSpec(name, config, tokenizer, Preprocess.of(config, options))


@cache
def _own_configs() -> dict[str, str]:
    """Name -> path of the configs that ship with this package."""
    return {path.stem: str(path) for path in sorted((Path(__file__).parent / "model_configs").glob("*.json"))}


@cache
def _open_clip_configs() -> dict[str, str]:
    """Name -> path of open_clip's configs, found without importing it (which would import torch)."""
    found = importlib.util.find_spec("open_clip")
    folders = found.submodule_search_locations if found else None
    return {path.stem: str(path) for f in folders or () for path in sorted((Path(f) / "model_configs").glob("*.json"))}


def build(spec: ModelSpec, seed: int | None) -> nn.Module:
    """The module of `spec` in training mode on the CPU, initialised from `seed`; global random state is left alone.

    Args:
        seed: None = a checkpoint follows that fills every parameter: they are left as the memory is (`unfilled.py`).

    Raises:
        ConfigError: open_clip refuses the config, or it needs files that are not on this machine.
    """
    import open_clip
    import torch

    from .. import streams
    from .unfilled import unfilled

    config = json.loads(json.dumps(spec.config))  # a deep copy: open_clip's constructors keep parts of it
    config["vision_cfg"].pop("timm_model_pretrained", None)  # weights come from a local checkpoint or from the seed
    text_cfg = config["text_cfg"]
    custom = config.pop("custom_text", False) or "hf_model_name" in text_cfg
    if "hf_model_name" in text_cfg:
        text_cfg["hf_model_pretrained"] = False
    if "multimodal_cfg" in config:
        make: Any = open_clip.CoCa
    else:
        make = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        with torch.random.fork_rng(devices=[]), unfilled() if seed is None else nullcontext():
            torch.default_generator.manual_seed(streams.key(seed or 0, "initialisation") >> 1)
            return make(**config)
    except (TypeError, ImportError, OSError, KeyError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"cannot build the model {spec.name}: {type(error).__name__}: {error}") from error
