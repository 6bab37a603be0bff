"""An evaluation set in memory, of labels alone: what suites that learn from features need of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curate.errors import DataError
from curate.eval.embedding.features import Features, TextFeatures
from curate.eval.suites import EvalContext
from curate.shards.evalsets.base import EvalSet, EvalSplit


class LabelledSplit(EvalSplit):
    """Labels, and pictures if there are any; which were opened is kept."""

    def __init__(self, name: str, labels: np.ndarray, images: Sequence[bytes] = ()) -> None:
        self.name, self.where = name, f"memory: split {name!r}"
        self.classes = np.asarray(labels, np.int64)
        self.keys = [f"s{i:07d}" for i in range(len(labels))]
        self.opened: list[int] = []
        self._images = images

    def image(self, index: int) -> bytes:
        self.opened.append(index)
        return self._images[index]


@dataclass(frozen=True)
class LabelledSet(EvalSet):
    """Splits by name."""

    opened: dict[str, LabelledSplit] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return "0" * 32

    def split_names(self) -> list[str]:
        return sorted(self.opened)

    def split(self, name: str) -> EvalSplit:
        if name not in self.opened:
            raise DataError(f"{self.folder} has no split {name!r}")
        return self.opened[name]


def labelled_set(
    labels: Mapping[str, np.ndarray], classes: int, templates: tuple[str, ...] = ("a {c}",), name: str = "blobs"
) -> LabelledSet:
    """A classification set with these labels by split."""
    names = tuple(f"class{i}" for i in range(classes))
    splits = {key: LabelledSplit(key, value) for key, value in labels.items()}
    return LabelledSet(name, f"/sets/wds_{name}", names, templates, "classification", opened=splits)


class NoTexts:
    """A model that is asked for no text."""

    dim, digest, precision = 1, "0" * 32, "fp32"


def labelled_context(
    features: Mapping[str, Features],
    classes: int,
    tower: Any = None,
    templates: tuple[str, ...] = ("a {c}",),
    name: str = "blobs",
) -> EvalContext:
    """What a suite sees of features and labels that were made up, with `tower` encoding texts."""
    evalset = labelled_set({key: found.labels for key, found in features.items()}, classes, templates, name)
    return EvalContext(evalset, evalset.split, features.__getitem__, TextFeatures(tower or NoTexts()))
