"""Names of timm's image models: ``timm:NAME`` or ``timm/NAME``, looked up without importing timm (and with it torch).

timm registers a model by a function of its name, and names trained weights ``NAME.TAG``; both stand in its source
files, which are searched once. How a model's pictures are prepared is known to timm only when the model is built; so
the version of timm is part of a model's identity, and an upgrade computes embeddings anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ...errors import ConfigError
from ...registry import nearest
from ...shards import storage

CONFIG_FILE = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")  # in a model folder of timm's
_ENTRY = re.compile(r"^@register_model\n(?:@[^\n]*\n)*def (\w+)\(", re.MULTILINE)
_TAGGED = re.compile(r"['\"](\w+\.\w+)['\"]\s*:")


@dataclass(frozen=True)
class TimmSpec:
    """One of timm's models, by name.

    Attributes:
        name: as the user wrote it; for messages.
        timm_name: what `timm.create_model` takes.
    """

    name: str
    timm_name: str

    @property
    def short_name(self) -> str:
        """The name without ``timm:``."""
        return self.timm_name

    @property
    def identity(self) -> str:
        """32 hexadecimal characters over the name and timm's version."""
        value = {"timm": self.timm_name, "version": version("timm")}
        return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def is_timm(name: str) -> bool:
    """Whether a model name means one of timm's. A folder ``timm/...`` that exists is a folder."""
    return name.startswith("timm:") or (name.startswith("timm/") and not storage.exists(name))


def resolve_timm(name: str) -> TimmSpec:
    """The model that ``timm:NAME`` or ``timm/NAME`` stands for.

    Raises:
        ConfigError: timm has no such model (names the nearest spelling).
    """
    wanted = name[len("timm:") :]
    architectures, tagged = _known()
    base, _, tag = wanted.partition(".")
    tags = {t for t in tagged if t.startswith(base + ".")}  # none: timm makes them up as it runs, and checks them then
    if base not in architectures or (tag and tags and wanted not in tags):
        guess = nearest(wanted, tags or architectures)
        hint = f"; did you mean {'timm:' + guess!r}?" if guess else f"; timm {version('timm')} has {len(architectures)}"
        raise ConfigError(f"unknown model {name!r}{hint}")
    return TimmSpec(name, wanted)


def timm_weights(spec: TimmSpec, pretrained: str | None) -> str:
    """Path of the checkpoint: `pretrained` itself, or the weights in it if it is a model folder of timm's.

    Raises:
        ConfigError: there is none, or the folder is another model's.
    """
    if pretrained is None:
        raise ConfigError(
            f"the encoder {spec.name!r} has no weights: give `pretrained` a local checkpoint; nothing is downloaded"
        )
    config = storage.join(pretrained, CONFIG_FILE)
    if storage.exists(config):
        theirs = str(storage.read_json(config).get("architecture", ""))
        if theirs and theirs != spec.timm_name.partition(".")[0]:
            raise ConfigError(f"the model folder {pretrained} holds a {theirs}, not a {spec.timm_name}")
    for path in (*(storage.join(pretrained, name) for name in _WEIGHTS), pretrained):
        if storage.exists(path) and not (path == pretrained and storage.exists(config)):
            return path
    raise ConfigError(f"the checkpoint {pretrained} of {spec.name} does not exist; weights are never downloaded")


@cache
def _known() -> tuple[frozenset[str], frozenset[str]]:
    """Names of architectures, and of architectures with a tag."""
    found = importlib.util.find_spec("timm")
    architectures: set[str] = set()
    tagged: set[str] = set()
    for root in (found.submodule_search_locations if found else None) or ():
        for path in sorted((Path(root) / "models").glob("*.py")):
            text = path.read_text(encoding="utf-8")
            architectures.update(_ENTRY.findall(text))
            tagged.update(_TAGGED.findall(text))
    return frozenset(architectures), frozenset(tagged)
