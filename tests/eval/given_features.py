"""A set in memory and models whose features are given: what suites look at, without a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curate.eval.embedding.features import Features
from curate.eval.suites import EvalContext
from curate.shards.evalsets.base import EvalSet, EvalSplit


class MemorySplit(EvalSplit):
    def __init__(self, n: int, **annotations: Any) -> None:
        self.name, self.where, self.keys = "test", "memory: split 'test'", [f"p{i}" for i in range(n)]
        for name, value in annotations.items():
            setattr(self, name, value)

    def image(self, index: int) -> bytes:
        raise AssertionError("a suite asked for a picture")


@dataclass(frozen=True)
class MemorySet(EvalSet):
    one: Any = field(default=None, compare=False)

    @property
    def digest(self) -> str:
        return "0" * 32

    def split_names(self) -> list[str]:
        return ["test"]

    def split(self, name: str) -> EvalSplit:
        return self.one


class GivenTexts:
    """Features of texts by the text; what is asked is kept."""

    def __init__(self, features: Mapping[str, Sequence[float]]) -> None:
        self.known = {text: np.asarray(value, np.float32) for text, value in features.items()}
        self.asked: list[str] = []
        self.dim = len(next(iter(self.known.values())))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.stack([self.known[text] for text in texts])


def context(evalset: MemorySet, image: np.ndarray, text: Any) -> EvalContext:
    labels = evalset.one.classes if evalset.one.classes is not None else np.zeros(0, np.int64)
    features = Features(np.asarray(image, np.float32), labels)
    return EvalContext(evalset, evalset.split, lambda split: features, text)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
