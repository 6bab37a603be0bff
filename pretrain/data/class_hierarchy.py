"""Classes as a tree: which class is a kind of which other, and how deep each lies among the classes themselves.

A parent is the nearest ancestor that is a class of its own; ancestors that are none (WordNet has many, and cleaning
takes classes away) are passed through. A class's depth is the number of its ancestors that are classes, so every depth
below the deepest has at least one class, and the classes of equal depth are one level of the semantic softmax. Where a
word has several parents the first one listed counts, as in ImageNet-21K-P.

Parents come from a user's file or from a local WordNet (`wordnet_nouns.py`); any mapping will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError, DataError
from ...shards import storage

WORDNET = "wordnet"


@dataclass(frozen=True, eq=False)
class ClassHierarchy:
    """A forest over numbered classes.

    Attributes:
        names: of the classes, in the order of a head's outputs.
        parent: ``(classes,) int64``, number of the parent class; -1 at the top.
        depth: ``(classes,) int64``, 0 at the top.
        ancestors: ``(classes, levels) int64``: the class's ancestor at each level, itself at its own, -1 below.
    """

    names: tuple[str, ...]
    parent: np.ndarray
    depth: np.ndarray
    ancestors: np.ndarray

    @property
    def levels(self) -> int:
        """Number of levels: the greatest depth and one."""
        return self.ancestors.shape[1]


def build_hierarchy(names: Sequence[str], parents: Mapping[str, str | None]) -> ClassHierarchy:
    """The tree of `names` under a relation that may know many more words.

    Args:
        names: classes in order.
        parents: child -> parent; words without an entry, or with None, are at the top.

    Raises:
        DataError: somebody is their own ancestor.
    """
    number = {name: i for i, name in enumerate(names)}
    # nearest ancestor (or self) that is a class, for every word that was passed through
    nearest: dict[str, int] = {}
    parent = np.full(len(names), -1, np.int64)
    for i, name in enumerate(names):
        chain: list[str] = []
        at = parents.get(name)
        met = {name}
        while at is not None and at not in number and at not in nearest:
            if at in met:
                raise _circle(at)
            met.add(at)
            chain.append(at)
            at = parents.get(at)
        found = -1 if at is None else number[at] if at in number else nearest[at]
        nearest.update(dict.fromkeys(chain, found))
        parent[i] = found

    depth = np.full(len(names), -1, np.int64)
    for i in range(len(names)):
        way = []
        at_class = i
        while at_class >= 0 and depth[at_class] < 0:
            depth[at_class] = len(names)  # on the way
            way.append(at_class)
            at_class = int(parent[at_class])
        if at_class >= 0 and depth[at_class] == len(names):
            raise _circle(names[at_class])
        above = -1 if at_class < 0 else int(depth[at_class])
        for step, below in enumerate(reversed(way), 1):
            depth[below] = above + step

    levels = int(depth.max()) + 1 if len(names) else 0
    ancestors = np.full((len(names), levels), -1, np.int64)
    current = np.arange(len(names))
    for _ in range(levels):  # everybody climbs one step at a time
        there = np.flatnonzero(current >= 0)
        ancestors[there, depth[current[there]]] = current[there]
        current[there] = parent[current[there]]
    return ClassHierarchy(tuple(names), parent, depth, ancestors)


def _circle(name: str) -> DataError:
    return DataError(f"the class hierarchy runs in a circle through {name!r}")


def read_parents(path: str) -> dict[str, str]:
    """Child -> parent of a text file with a line ``child parent`` each; of several parents the first line counts.

    Names are parted by the line's first tab, or, without one, by its blank. ``#`` begins a comment line.

    Raises:
        ConfigError: the file is not there. DataError: a line is not of this form.
    """
    if not storage.exists(path):
        raise ConfigError(f"the class hierarchy {path} does not exist")
    found: dict[str, str] = {}
    for count, line in enumerate(storage.read_bytes(path).decode().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [part.strip() for part in line.split("\t", 1)] if "\t" in line else line.split()
        if len(fields) != 2 or not all(fields):
            raise DataError(f"{path}, line {count}: {line[:60]!r} is not `child parent`; names with blanks need a tab")
        found.setdefault(fields[0], fields[1])
    return found


def find_hierarchy(names: Sequence[str], source: str, wordnet: str) -> ClassHierarchy:
    """The tree of a label space.

    Args:
        names: classes in order.
        source: a file for `read_parents`, or ``wordnet``: classes are WordNet ids or nouns.
        wordnet: folder of the database.

    Raises:
        ConfigError: a file is missing, or classes are not in WordNet.
        DataError: a file is broken.
    """
    if source != WORDNET:
        parents = read_parents(source)
        words = {*parents, *parents.values()}
        if not words & set(names):
            raise DataError(f"{source} names none of the {len(names)} classes, such as {names[0]!r}")
        return build_hierarchy(names, parents)
    from .wordnet_nouns import hypernyms, noun_ids

    ids, relation = noun_ids(names, wordnet), hypernyms(wordnet)
    lost = [name for name, at in zip(names, ids, strict=True) if at not in relation]
    if lost:
        raise ConfigError(
            f"{len(lost)} of {len(names)} classes are no synsets of the WordNet in {wordnet}, such as {lost[0]!r}"
        )
    tree = build_hierarchy(ids, relation)
    return ClassHierarchy(tuple(names), tree.parent, tree.depth, tree.ancestors)
