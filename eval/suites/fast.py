"""`fast`: zero-shot accuracy from a few hundred pictures per set, with the interval that this leaves.

For a look at a model every now and then: at most `samples` pictures of each set are read and embedded, 500 by default,
which leaves an accuracy of 50 % uncertain by 4.4 points (a set of 50,000: 100 times less work). Its metrics have names
of their own (``fast_acc1``), so that an estimate is never taken for a measurement.

Which pictures: all of a split are sorted by class, within it by a hash of key and set, and evenly spaced ones are
taken, so that each has the same chance, classes have their share, and a change of the file order changes nothing. With
`history`, outcomes of earlier models on the same set, they are sorted by difficulty instead (`sort_search`): the
estimate is still the plain mean of what was measured, and varies less the better the earlier models tell what is hard.
Against a random sample its error was 0.7 to 0.95 times as large over simulated models of low rank, and 0.92 to
0.99 over 48 small classifiers of real digits. The threshold that Sort & Search fits had 1.1 to 4 times that error, so
it is reported as a fact, and not as the metric.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ...errors import DataError
from ...shards import storage
from ...shards.evalsets.base import EvalSet, EvalSplit
from ..metrics.accuracy import BLOCK
from ..metrics.outcomes import outcomes
from ..probes.sort_search import difficulty_order, evenly_spaced, left_out_errors, read_history, search
from ..tasks.prompts import ensemble
from .base import SUITES, EvalContext, SuiteResult
from .prompted import PromptedSuite

Z95 = 1.959963984540054


class _Sample(NamedTuple):
    """What is looked at: ``rows`` ascending, ``order`` of all, ``places`` in it, ``history`` of earlier models."""

    rows: np.ndarray
    order: np.ndarray
    places: np.ndarray
    history: np.ndarray


@SUITES.register
class Fast(PromptedSuite):
    """Estimate zero-shot accuracy from a part of each set."""

    task: ClassVar[str] = "fast_zeroshot_classification"
    main_metric: ClassVar[str] = "fast_acc1"

    type: Literal["fast"] = "fast"
    samples: int = Field(default=500, ge=10, description="Most pictures of a set that are looked at.")
    history: tuple[str, ...] = Field(
        default=(),
        description="Folders of earlier evaluations, or patterns of them or of their outcome files: pictures are then "
        "chosen by how many of those models were right. Sets that they do not have are sampled without.",
    )
    history_suite: str = Field(
        default="zero_shot", description="Name of the suite whose outcomes are taken from `history`."
    )

    def files(self) -> list[str]:
        return list(self.history)

    def check_splits(self, evalset: EvalSet, splits: Mapping[str, EvalSplit]) -> None:
        super().check_splits(evalset, splits)
        self._files(evalset.name)

    def paths(self) -> set[str]:
        return {"history"}

    def told(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """`history` as the hash of what it held of this set, for it is made of paths."""
        return super().told(facts) | {"history": [facts["history"]] if "history" in facts else []}

    def rows(self, evalset: EvalSet, split: EvalSplit) -> np.ndarray:
        return self._sample(evalset, split).rows

    def evaluate(self, context: EvalContext) -> SuiteResult:
        evalset, split = context.evalset, context.split(self.split)
        chosen = self._sample(evalset, split)
        rows, total = chosen.rows, len(split)
        features = context.features(self.split)
        image, labels = features.image[rows], features.labels[rows]
        texts = self.texts_of(evalset)
        weights = ensemble(context.text, texts.prompts, texts.classnames, evalset.folder)
        blocks = (image[start : start + BLOCK] @ weights.T for start in range(0, len(image), BLOCK))
        found = replace(outcomes(blocks, labels), rows=rows)
        right = int(np.count_nonzero(found.correct))
        ends = interval(right, len(rows), total)
        facts: dict[str, Any] = {
            "estimate": len(rows) < total,
            "n": len(rows),
            "of": total,
            "method": "sort_search" if len(chosen.history) else "stratified",
            "interval95": list(ends),
            "prompts": texts.count,
        }
        if len(chosen.history):
            correct = np.zeros(total, bool)
            correct[rows] = found.correct
            facts |= _history_facts(chosen, correct)
        metrics = {name: value for name, value in found.metrics("fast_").items() if "recall" not in name}
        # measured whole it is no estimate, and other pictures are all that the number is uncertain about
        return SuiteResult(metrics, found, facts, interval=ends if len(rows) < total else None)

    def _sample(self, evalset: EvalSet, split: EvalSplit) -> _Sample:
        history = np.zeros((0, len(split)), bool)
        if files := self._files(evalset.name):
            history = read_history(files, split.keys)
        shuffled = _by_class(split.keys, split.labels, evalset.digest)
        # of equally hard pictures those of a class lie together, in hashed order
        order = shuffled[difficulty_order(history[:, shuffled])] if len(history) else shuffled
        places = evenly_spaced(len(split), min(self.samples, len(split)))
        return _Sample(np.sort(order[places]), order, places, history)

    def _files(self, dataset: str) -> list[str]:
        """Outcome files of a set.

        Raises:
            DataError: `history` matches nothing at all.
        """
        name, found = f"{dataset}.{self.history_suite}.parquet", set()
        for pattern in self.history:
            there = [pattern, *storage.expand(pattern)] if storage.exists(pattern) else storage.expand(pattern)
            if not any(map(storage.exists, there)):
                raise DataError(f"`history` of {self.label!r}: there is nothing at {pattern}")
            for path in there:
                if path.endswith(".parquet"):
                    found |= {path} if path.rsplit("/", 1)[-1] == name else set()
                else:
                    beside = (storage.join(path, "outcomes", name), storage.join(path, name))
                    found |= {place for place in beside if storage.exists(place)}
        return sorted(found)


def _by_class(keys: list[str], labels: np.ndarray, digest: str) -> np.ndarray:
    """All samples, by class, within it by a hash of key and set; the first is any, else no class between two places
    would ever be looked at."""
    hashes = [hashlib.blake2b(f"{digest}\0{key}".encode(), digest_size=8).digest() for key in keys]
    order = np.lexsort((np.frombuffer(b"".join(hashes), ">u8"), labels))
    first = hashlib.blake2b(digest.encode(), digest_size=8).digest()
    return np.roll(order, int.from_bytes(first, "big") % len(order))


def _history_facts(chosen: _Sample, correct: np.ndarray) -> dict[str, Any]:
    found = search(chosen.order, chosen.places, correct[chosen.order[chosen.places]])
    facts: dict[str, Any] = {
        "earlier_models": len(chosen.history),
        "history": hashlib.blake2b(np.packbits(chosen.history, axis=1).tobytes(), digest_size=16).hexdigest(),
        "threshold_acc1": found.threshold,
    }
    if len(chosen.history) > 1:
        errors = left_out_errors(chosen.history, len(chosen.places))
        names = ("threshold_error", "error")
        facts |= {name: float(np.sqrt(np.mean(e**2))) for name, e in zip(names, errors, strict=True)}
    return facts


def interval(correct: int, n: int, of: int) -> tuple[float, float]:
    """95 % interval of the share among `of` samples, of which `n` were drawn at random and `correct` were right.

    Wilson's score interval, with the finite population correction: n counts as n (of - 1) / (of - n) draws. Of all
    samples the share is known. Strata can only make the truth nearer, so it errs on the safe side.
    """
    p = correct / n
    if n == of:
        return p, p
    draws = n * (of - 1) / (of - n)
    centre = p + Z95 * Z95 / (2 * draws)
    half = Z95 * math.sqrt(p * (1 - p) / draws + Z95 * Z95 / (4 * draws * draws))
    low, high = ((centre + sign * half) / (1 + Z95 * Z95 / draws) for sign in (-1, 1))
    return (0.0 if correct == 0 else low), (1.0 if correct == n else high)
