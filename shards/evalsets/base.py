"""What an evaluation set is, whatever its files look like: pictures, what is known about them, and the words for it.

A set has a *kind*, which says what is annotated. All kinds have splits of pictures with keys, in an order that never
changes; every number of an evaluation is a function of that order. Readers of file layouts (`webdataset`, `folder`,
`parquet`) fill these classes; suites know only them. Nothing that is missing is made up: a set without templates has
none, it does not get ImageNet's.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np

from ...errors import DataError
from ...registry import unknown

Kind = Literal["classification", "multilabel", "retrieval", "compositional", "association"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PLACEHOLDER = re.compile(r"\{c?\}")


@dataclass(frozen=True)
class Captions:
    """Texts of a retrieval set, in order.

    Attributes:
        texts: ``t`` of them.
        image: ``(t,) int64``, ascending: the picture that each belongs to.
    """

    texts: tuple[str, ...]
    image: np.ndarray


@dataclass(frozen=True)
class Groups:
    """What else is known of each picture: region, year, income.

    Attributes:
        fields: names of the columns of `values`.
        values: ``(n, fields) int64``.
        names: field -> names of its groups by number; fields without names are missing.
    """

    fields: tuple[str, ...]
    values: np.ndarray
    names: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Instance:
    """A small closed question of a compositional set: which caption goes with which picture.

    Caption i is right for picture i; with fewer pictures than captions the others are wrong for all.

    Attributes:
        key: its name.
        images: numbers of its pictures in the split.
        captions: its texts.
    """

    key: str
    images: tuple[int, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Association:
    """A cue, and pictures some of which people associate with it (WinoGAViL).

    Attributes:
        key: its name.
        cue: one or a few words.
        candidates: numbers of the pictures to choose from.
        right: those of `candidates` that belong to the cue; as many are to be chosen.
    """

    key: str
    cue: str
    candidates: tuple[int, ...]
    right: tuple[int, ...]


class LanguageTexts(NamedTuple):
    """Names of some classes in one language (Babel-ImageNet: each language covers its own subset).

    Attributes:
        indices: numbers of the classes it covers, ascending; numbers of `EvalSet.classnames`.
        names: their names, in that order.
        templates: prompt templates in that language; empty where the set brings none.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    templates: tuple[str, ...]


class EvalSplit(ABC):
    """One split of a set: annotations in memory, pictures read when asked for, in file order.

    What a kind does not have is None: `labels` of classification sets, `right` of multilabel sets, `captions` of
    retrieval sets, `instances` of compositional sets, `associations` of association sets. `groups` come beside labels.

    Attributes:
        name: split name, say ``test``.
        where: what messages call it.
        keys: keys of its pictures, ``n`` of them, all different.
        classes: ``(n,) int64`` class numbers, or None.
        right: ``(n, classes) bool``, all right classes of each picture, or None.
        captions, groups, instances, associations: see there; or None.
    """

    name: str
    where: str
    keys: list[str]
    classes: np.ndarray | None = None
    right: np.ndarray | None = None
    captions: Captions | None = None
    groups: Groups | None = None
    instances: Sequence[Instance] | None = None
    associations: Sequence[Association] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def labels(self) -> np.ndarray:
        """``(n,) int64`` class numbers.

        Raises:
            DataError: its pictures have no labels.
        """
        if self.classes is None:
            raise DataError(f"{self.where}: its samples have no class labels")
        return self.classes

    @abstractmethod
    def image(self, index: int) -> bytes:
        """Encoded bytes of picture `index`."""

    def images(self) -> Iterator[bytes]:
        """Encoded bytes of all pictures, in order; none is kept."""
        return (self.image(index) for index in range(len(self)))


@dataclass(frozen=True)
class EvalSet(ABC):
    """An evaluation set on disk or in an object store.

    Attributes:
        name: what results call it: the folder's name without CLIP_benchmark's ``wds_`` and ``_test``, unless a config
            gives another.
        folder: its path or URL.
        classnames: class names in label order; empty where there are no classes.
        templates: prompt templates as written; empty when the set brings none.
        kind: what is annotated.
        language: of its texts, as CLIP_benchmark names languages.
        class_prompts: class name -> its whole prompts (CuPL: they are used as they are, nothing is put in), an entry
            for each class name; they go before `templates`. None for sets whose classes share their templates.
    """

    name: str
    folder: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    kind: Kind = "classification"
    language: str = "en"
    class_prompts: dict[str, tuple[str, ...]] | None = field(default=None, hash=False)

    @property
    @abstractmethod
    def digest(self) -> str:
        """32 hexadecimal characters over texts, annotations and pictures: the content's identity. Kept once known."""

    def split_digest(self, name: str) -> str:
        """As `digest`, over one split alone where the layout allows it: what features of its pictures depend on.

        A set whose texts change keeps it, so nothing has to be embedded again for a new template.
        """
        return hashlib.blake2b(f"{self.digest}\0{name}".encode(), digest_size=16).hexdigest()

    @abstractmethod
    def split_names(self) -> list[str]:
        """Sorted names of the splits that are there."""

    @abstractmethod
    def split(self, name: str) -> EvalSplit:
        """Open one split.

        Raises:
            DataError: the split, a file, a picture or an annotation is missing or broken; says which.
        """

    def languages(self) -> list[str]:
        """Sorted names of the other languages its classes have names in; empty where there are none."""
        return []

    def language_texts(self, language: str) -> LanguageTexts:
        """Class names and templates in another language.

        Raises:
            DataError: the set has no such language, or its texts are broken.
        """
        raise DataError(f"{self.folder}: {unknown('language', language, self.languages())}")

    def prompts(self, classname: str, templates: Sequence[str] | None = None) -> list[str]:
        """The templates with `classname` in place of ``{c}`` or ``{}``; the set's own unless others are given.

        Of a set with `class_prompts`, those of the class, as they are.

        Raises:
            DataError: there are no templates; they are never borrowed from another set.
        """
        if templates is None and self.class_prompts is not None:
            return list(self.class_prompts[classname])
        chosen = self.templates if templates is None else templates
        if not chosen:
            raise DataError(f"{self.folder} has no prompt templates; zero-shot evaluation needs them")
        return [PLACEHOLDER.sub(lambda _: classname, template) for template in chosen]


def plain_name(folder: str) -> str:
    """The name of a set by its folder."""
    return folder.rstrip("/").rsplit("/", 1)[-1].removeprefix("wds_").removesuffix("_test")
