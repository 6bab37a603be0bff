"""What is missing in evaluation data, all of it at once, and what each set is; before any work, without a picture.

Files are looked for by listing folders, texts are read, splits opened for their annotations (tars are walked header by
header, parquet files by their columns). Pictures are not read: a broken one is told by the evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import CurateError
from .. import storage
from .base import EvalSet
from .open import layout_of
from .source import EvalSource
from .webdataset import split_names
from .webdataset_split import tar_count

NAMED = 5  # of many missing tars


@dataclass(frozen=True)
class Description:
    """A set in a few numbers.

    Attributes:
        name, kind, language: of the set.
        splits: split name -> pictures.
        classes: how many; 0 = none.
        templates: how many; of prompts by class, all of them.
        languages: other languages with class names.
        groups: names of the fields of group metadata.
        captions: split name -> captions, of retrieval sets.
        instances: split name -> instances, of compositional and association sets.
    """

    name: str
    kind: str
    language: str
    splits: dict[str, int]
    classes: int = 0
    templates: int = 0
    languages: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    captions: dict[str, int] = field(default_factory=dict)
    instances: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """One line for people."""
        parts = [f"{self.kind}", ", ".join(f"{name} {n:,}" for name, n in self.splits.items()) or "no split"]
        if self.classes:
            parts.append(f"{self.classes:,} classes")
        if self.templates:
            parts.append(f"{self.templates:,} templates")
        for what, counts in (("captions", self.captions), ("instances", self.instances)):
            if counts:
                parts.append(f"{what}: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))
        if self.groups:
            parts.append("groups by " + ", ".join(self.groups))
        if self.languages:
            parts.append(f"{len(self.languages)} more languages")
        return f"{self.name}: " + "; ".join(parts)


@dataclass(frozen=True)
class Checked:
    """Findings.

    Attributes:
        problems: a sentence each; empty = everything is there.
        sets: the sets that could be opened.
    """

    problems: list[str]
    sets: list[Description]


def check(sources: Sequence[EvalSource | str], wanted: Mapping[str, Sequence[str]] | None = None) -> Checked:
    """Look at all sets.

    Args:
        wanted: set name -> splits that must be there; a set that is named must be there itself.
    """
    problems: list[str] = []
    found: list[Description] = []
    names: dict[str, str] = {}
    for source in sources:
        try:
            source = EvalSource.parse(source)
            folders = source.folders()
        except CurateError as error:
            problems.append(str(error))
            continue
        for folder in folders:
            try:
                problems += [text for text in _missing_tars(source, folder) if text not in problems]
                evalset = source.open_one(folder, len(folders) > 1)
            except CurateError as error:
                problems.append(str(error))
                continue
            if evalset.name in names:
                both = f"{folder} and {names[evalset.name]}"
                problems.append(f"{both} are both called {evalset.name!r}; give one a `name`")
            names[evalset.name] = folder
            found.append(_described(evalset, wanted, problems))
    for name in wanted or ():
        if name not in names:
            problems.append(f"there is no evaluation set {name!r}; there are {', '.join(sorted(names)) or 'none'}")
    return Checked(list(dict.fromkeys(problems)), found)


def problems(sources: Sequence[EvalSource | str], wanted: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Everything that is missing in all sets, a sentence each; see `check`."""
    return check(sources, wanted).problems


def describe(evalset: EvalSet) -> Description:
    """A set in a few numbers.

    Raises:
        DataError: a split is broken.
    """
    troubles: list[str] = []
    found = _described(evalset, None, troubles)
    if troubles:
        from ...errors import DataError

        raise DataError(troubles[0])
    return found


def _missing_tars(source: EvalSource, folder: str) -> list[str]:
    """Every tar that a split counts and that is not there; a few named, the others counted."""
    if (layout_of(folder) if source.layout == "auto" else source.layout) != "webdataset":
        return []
    told = []
    for split in split_names(folder):
        try:
            count = tar_count(folder, split)
        except CurateError:
            continue  # told when the split is opened
        if not storage.is_local(folder) and not storage.list_names(storage.join(folder, split)):
            continue  # a web server that lists nothing; the first missing tar is told when the split is opened
        names = storage.list_names(storage.join(folder, split))
        there = {int(name[:-4]) for name in names if re.fullmatch(r"(0|[1-9]\d{0,17})\.tar", name, re.ASCII)}
        lost = count - sum(number < count for number in there)
        if lost > 0:
            named, number = [], 0
            while len(named) < min(lost, NAMED):
                if number not in there:
                    named.append(f"{number}.tar")
                number += 1
            more = f" and {lost - len(named):,} more" if lost > len(named) else ""
            told.append(f"{storage.join(folder, split)}: {', '.join(named)}{more} of {count:,} tars are missing")
    return told


def _described(evalset: EvalSet, wanted: Mapping[str, Sequence[str]] | None, problems: list[str]) -> Description:
    there = evalset.split_names()
    for split in (wanted or {}).get(evalset.name, ()):
        if split not in there:
            problems.append(f"{evalset.folder}: the set has no split {split!r}; it has {', '.join(there) or 'none'}")
    splits, captions, instances, groups = {}, {}, {}, ()
    for name in there:
        try:
            split = evalset.split(name)
        except CurateError as error:
            if not any(text.startswith(f"{storage.join(evalset.folder, name)}: ") for text in problems):
                problems.append(str(error))  # unless its missing tars are told already
            continue
        splits[name] = len(split)
        if not len(split):
            problems.append(f"{evalset.folder}: split {name!r} is empty")
        if split.captions is not None:
            captions[name] = len(split.captions.texts)
        if split.instances is not None or split.associations is not None:
            instances[name] = len(split.instances or split.associations or ())
        if split.groups is not None:
            groups = split.groups.fields
    languages = []
    for language in evalset.languages():
        try:
            evalset.language_texts(language)
            languages.append(language)
        except CurateError as error:
            problems.append(str(error))
    prompts = evalset.class_prompts
    templates = sum(map(len, prompts.values())) if prompts is not None else len(evalset.templates)
    return Description(
        evalset.name,
        evalset.kind,
        evalset.language,
        splits,
        len(evalset.classnames),
        templates,
        tuple(languages),
        groups,
        captions,
        instances,
    )
