"""The words that stand for each class, and the classifier that they make. Zero-shot numbers are numbers of these words.

Published accuracies of one model on one set differ by up to 8 points with the words alone, so where they come from is a
rule and not a fallback: what ships with the set is used unless a config gives something else; where there is nothing,
that is an error, and never another set's templates. Whatever was used goes into the result's `text_hash`.

Two ways to write prompts: templates that all classes share (``a photo of a {c}.``; ``{}`` means the same), or whole
prompts of each class (CuPL: Pratt et al., ICCV 2023). Price of an ensemble: one text forward per class and template,
80,000 for ImageNet with 80 templates; each distinct prompt is encoded once over all sets.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...errors import ConfigError, DataError
from ...shards import storage
from ...shards.evalsets.base import PLACEHOLDER, EvalSet

Aliases = Literal["whole", "first", "all"]
NamedTemplates = Literal["simple", "openai_simple", "openai_imagenet"]
NAMED: tuple[NamedTemplates, ...] = ("simple", "openai_simple", "openai_imagenet")
SIMPLE = ("a photo of a {c}.",)

_PUNCTUATION = str.maketrans({"_": " "} | {c: None for c in string.punctuation if c not in "_,"})
_CLASSES = 64  # classes whose prompts are averaged at a time: 10 MB at 80 prompts of 512 numbers


@dataclass(frozen=True)
class ClassTexts:
    """Prompts of every class of a set, as the text tower reads them.

    Attributes:
        classnames: names in label order, before they were canonicalised or split.
        templates: what the prompts were made from; empty when each class has its own.
        prompts: of each class, at least one.
        plain: whether the prompts are just the names put into the templates.
    """

    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    plain: bool

    @property
    def count(self) -> int:
        """Prompts of all classes together."""
        return sum(map(len, self.prompts))

    @property
    def digest(self) -> str:
        """Hash of all that the prompts are made of; of names and templates alone where nothing else is."""
        return text_hash(self.classnames, self.templates, () if self.plain else self.prompts)

    def flat(self) -> list[str]:
        """All prompts, class by class."""
        return [prompt for mine in self.prompts for prompt in mine]


def text_hash(classnames: Sequence[str], templates: Sequence[str], prompts: Sequence[Sequence[str]] = ()) -> str:
    """32 hexadecimal characters over class names and templates: what a zero-shot number belongs to.

    Args:
        prompts: of each class, where they are not just the names put into the templates; then hashed too.
    """
    parts = [list(classnames), list(templates), *([[list(mine) for mine in prompts]] if prompts else [])]
    content = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def canonicalize(text: str, template: bool = False) -> str:
    """A text as big_vision prepares it for SigLIP and LiT: blanks for ``_``, no punctuation but ``,``, lower case.

    >>> canonicalize("Great_White  Shark (fish), e.g.")
    'great white shark fish, eg'

    Args:
        template: keep the place of the class name, written ``{}`` afterwards.
    """
    parts = PLACEHOLDER.split(text) if template else [text]
    return " ".join("{}".join(part.translate(_PUNCTUATION) for part in parts).lower().split())


def class_texts(
    where: str,
    classnames: Sequence[str],
    templates: Sequence[str] = (),
    class_prompts: Mapping[str, Sequence[str]] | None = None,
    canonical: bool = False,
    aliases: Aliases = "whole",
) -> ClassTexts:
    """Prompts of each class.

    Args:
        where: what messages call the set.
        templates: of all classes; not used with `class_prompts`.
        class_prompts: class name -> its prompts; names that the set does not have are left alone.
        canonical: canonicalise names and templates.
        aliases: what a comma in a class name means: nothing (`whole`), or names of one thing, of which the first counts
            or each gets all templates.

    Raises:
        DataError: there is nothing to make prompts of, a class has none, or nothing is left of a name.
    """
    if class_prompts is not None:
        lost = [name for name in classnames if not class_prompts.get(name)]
        if lost:
            some = ", ".join(map(repr, lost[:5]))
            raise DataError(f"{where}: {len(lost)} of {len(classnames)} classes have no class prompts, such as {some}")
        sources = [class_prompts[name] for name in classnames]
    elif templates:
        sources = [templates] * len(classnames)
    else:
        raise DataError(f"{where} has no prompt templates; zero-shot evaluation needs them")
    prepare: Callable[[str], str] = (lambda text: canonicalize(text, True)) if canonical else str
    if class_prompts is None:
        sources = [tuple(map(prepare, templates))] * len(classnames)
    elif canonical:
        sources = [tuple(map(prepare, mine)) for mine in sources]
    prompts = []
    for name, mine in zip(classnames, sources, strict=True):
        names = _names(name, canonical, aliases)
        if not names:
            raise DataError(f"{where}: nothing is left of the class name {name!r} to put into a prompt")
        made = (PLACEHOLDER.sub(lambda _, n=n: n, template) for n in names for template in mine)
        prompts.append(tuple(dict.fromkeys(made)) if len(names) > 1 else tuple(made))
    plain = class_prompts is None and not canonical and aliases == "whole"
    return ClassTexts(tuple(classnames), () if class_prompts is not None else tuple(templates), tuple(prompts), plain)


def _names(name: str, canonical: bool, aliases: Aliases) -> list[str]:
    if canonical:
        name = canonicalize(name)
    if aliases == "whole":
        return [name] if name.strip() else []
    names = [part.strip() for part in name.split(",") if part.strip()]
    return names[:1] if aliases == "first" else list(dict.fromkeys(names))


def set_texts(evalset: EvalSet, canonical: bool = False, aliases: Aliases = "whole") -> ClassTexts:
    """Prompts by what ships with the set, as `class_texts`."""
    return class_texts(evalset.folder, evalset.classnames, evalset.templates, evalset.class_prompts, canonical, aliases)


def ensemble(
    text: Callable[[Sequence[str]], np.ndarray], prompts: Sequence[Sequence[str]], names: Sequence[str], where: str
) -> np.ndarray:
    """Zero-shot classifier ``(classes, d) float32``: per class the normalised mean of its normalised prompts.

    (Radford et al., ICML 2021, section 3.1.4: the ensemble is taken in embedding space.)

    Args:
        text: prompts -> normalised features ``(n, d) float32``.
        prompts: of each class, at least one; not all need as many.
        names: of the classes, for messages; `where`: what they call the set.

    Raises:
        DataError: the prompts of a class cancel out.
    """
    rows = []
    for start in range(0, len(prompts), _CLASSES):
        block = prompts[start : start + _CLASSES]
        size = np.array([len(mine) for mine in block])
        features = text([prompt for mine in block for prompt in mine])
        if (size == size[0]).all():  # all but CuPL's; a quarter of the time
            rows.append(features.reshape(len(block), size[0], -1).mean(1))
        else:
            rows.append(np.add.reduceat(features, np.cumsum(size) - size, axis=0) / size[:, None].astype(np.float32))
    mean = np.concatenate(rows)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    if not norm.all():
        raise DataError(
            f"{where}: the prompts of class {names[int(np.argmin(norm))]!r} cancel out; the text tower is broken"
        )
    return mean / norm


def named_templates(name: NamedTemplates) -> tuple[str, ...]:
    """A template set by its name: ours, or one that open_clip ships (OpenAI's 80 and 7 for ImageNet)."""
    if name == "simple":
        return SIMPLE
    from open_clip import zero_shot_metadata  # torch comes with it

    makers = {
        "openai_imagenet": zero_shot_metadata.OPENAI_IMAGENET_TEMPLATES,
        "openai_simple": zero_shot_metadata.SIMPLE_IMAGENET_TEMPLATES,
    }[name]
    return tuple(make("{c}") for make in makers)


def read_texts(path: str, what: str) -> tuple[str, ...]:
    """Lines of a text file, or the strings of a JSON list; blank lines at the end do not count.

    Raises:
        ConfigError: the file is missing, empty or of another form.
    """
    text = _read(path, what)
    if path.endswith(".json"):
        found = _json(path, text, what)
        if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
            raise ConfigError(f"{path} must hold a JSON list of texts, the {what}")
    else:
        found = [line.strip() for line in text.rstrip().split("\n")]
    if not found or not all(line.strip() for line in found):
        raise ConfigError(f"{path}: the list of {what} is empty or has an empty line")
    return tuple(found)


def read_class_prompts(path: str) -> dict[str, tuple[str, ...]]:
    """Class name -> prompts, from a JSON object of lists, as CuPL's files are.

    Raises:
        ConfigError: the file is missing or of another form.
    """
    found = _json(path, _read(path, "class prompts"), "class prompts")
    whole = isinstance(found, dict) and all(
        isinstance(mine, list) and mine and all(isinstance(prompt, str) and prompt.strip() for prompt in mine)
        for mine in found.values()
    )
    if not whole or not found:
        raise ConfigError(f"{path} must hold a JSON object that leads from class names to lists of prompts")
    return {name: tuple(mine) for name, mine in found.items()}


def _read(path: str, what: str) -> str:
    if not storage.exists(path):
        raise ConfigError(f"the file of {what} {path} does not exist")
    return storage.read_bytes(path).decode()


def _json(path: str, text: str, what: str):
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the file of {what} {path} is not JSON: {error}") from error
