"""`supervised`: what a trained classifier says about a set, its classes and the set's matched by name.

``sup_acc1`` is over the set's classes alone, as ImageNet-A, ImageNet-R and every subset of a larger label space are
scored; ``sup_acc1_all`` lets the model choose among all of its classes: a choice that the set does not have is wrong.
A class of the set that the model has never seen is an error, unless `missing: wrong` counts its samples as mistakes.

A set may hold all right classes of its samples: ``<split>/labels.json``, a JSON list with a list of class numbers per
sample in file order, as ReaL's labels come (Beyer et al., "Are we done with ImageNet?", 2020). Then ``sup_real_acc1``
is the share of samples whose predicted class is in the list, over samples whose list is not empty, and ``sup_map`` the
mean over classes of the non-interpolated average precision; as in CLIP_benchmark a class without positives counts 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field

from ...errors import ConfigError, DataError
from ...shards import storage
from ...shards.evalsets.base import EvalSet, EvalSplit
from ..metrics.accuracy import BLOCK
from ..metrics.average_precision import mean_average_precision
from ..metrics.outcomes import Outcomes, outcomes
from .base import SUITES, EvalContext, Need, Suite, SuiteResult

LABELS = "labels.json"


def read_mapping(path: str) -> dict[str, str]:
    """Class names of a set -> those of a model, from a JSON object or lines with a tab.

    Raises:
        ConfigError: the file is missing or of another form.
    """
    if not storage.exists(path):
        raise ConfigError(f"the mapping of class names {path} does not exist")
    text = storage.read_bytes(path).decode()
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the mapping of class names {path} is not JSON: {error}") from error
        if not all(isinstance(name, str) for name in value.values()):
            raise ConfigError(f"the mapping of class names {path} must lead from names to names")
        return value
    found = {}
    for count, line in enumerate(text.splitlines(), 1):
        if line.strip():
            name, tab, other = line.partition("\t")
            if not tab:
                raise ConfigError(
                    f"{path}, line {count}: {line[:60]!r} has no tab between the set's and the model's name"
                )
            found[name.strip()] = other.strip()
    return found


def _read_if_path(value: Any) -> Any:
    return read_mapping(value) if isinstance(value, str) else value


NameMapping = Annotated[dict[str, str], BeforeValidator(_read_if_path, json_schema_input_type=dict[str, str] | str)]
"""Names by names; a path is read when the options are, so that what it holds is part of what was asked."""


@SUITES.register
class Supervised(Suite):
    """Classify with the model's own head; nothing is learned."""

    task: ClassVar[str] = "supervised"
    main_metric: ClassVar[str] = "sup_acc1"
    needs: ClassVar[tuple[Need, ...]] = ("head",)

    type: Literal["supervised"] = "supervised"
    match: Literal["exact", "casefold"] = Field(
        default="casefold", description="How names are compared; casefold: without case, `_` and blanks alike."
    )
    mapping: NameMapping = Field(
        default={},
        description="The set's class name -> the model's, where they differ; or the path of a file with them: a JSON "
        "object, or lines `set name<tab>model name`.",
    )
    missing: Literal["error", "wrong"] = Field(
        default="error", description="What becomes of classes that the model does not have: an error, or mistakes."
    )

    def check_splits(self, evalset: EvalSet, splits: Mapping[str, EvalSplit]) -> None:
        super().check_splits(evalset, splits)
        read_right_classes(evalset, self.split, len(splits[self.split]))

    def check_set(self, evalset: EvalSet, classes: tuple[str, ...]) -> None:
        if classes:
            self.matched(evalset, classes)

    def matched(self, evalset: EvalSet, classes: tuple[str, ...]) -> np.ndarray:
        """The model's class of each class of the set, ``(set classes,) int64``; -1 = it has none.

        Raises:
            ConfigError: names match nothing, not all, or two at once.
        """
        names = self.mapping
        fold = _folded if self.match == "casefold" else str
        where: dict[str, int] = {}
        for number, name in enumerate(classes):
            if fold(name) in where:
                raise ConfigError(
                    f"{fold(name)!r} names two classes of the model; use `match: exact` for {self.label!r}"
                )
            where[fold(name)] = number
        strangers = sorted(set(names.values()) - set(classes)) if self.match == "exact" else []
        if strangers:
            raise ConfigError(f"the mapping of {self.label!r} leads to {strangers[0]!r}, which the model does not have")
        found = np.array([where.get(fold(names.get(name, name)), -1) for name in evalset.classnames], np.int64)
        lost = [name for name, number in zip(evalset.classnames, found, strict=True) if number < 0]
        if len(lost) == len(found) or (lost and self.missing == "error"):
            some = ", ".join(repr(name) for name in lost[:5])
            raise ConfigError(
                f"the model lacks {len(lost)} of the {len(found)} classes of {evalset.folder}, such as {some} (its own "
                f"are {', '.join(repr(name) for name in classes[:3])}...); give `mapping`, or `missing: wrong`"
            )
        there = found[found >= 0]
        if len(np.unique(there)) < len(there):
            twice = classes[int(np.argmax(np.bincount(there)))]
            raise ConfigError(f"two classes of {evalset.folder} are the model's {twice!r}; check the mapping")
        return found

    def evaluate(self, context: EvalContext) -> SuiteResult:
        if context.scores is None:
            raise ConfigError(f"the suite {self.label!r} needs a model with a classifier")
        image, labels = context.features(self.split)
        match = self.matched(context.evalset, context.scores.classes)
        right_lists = read_right_classes(context.evalset, self.split, len(labels))
        theirs = np.flatnonzero(match >= 0)
        everything: list[np.ndarray] = []
        overall: list[np.ndarray] = []

        def of_the_set():
            start = 0
            for logits in context.scores.blocks(self.split, image, BLOCK):  # type: ignore[union-attr]
                scores = np.full((len(logits), len(match)), -np.inf, np.float32)
                scores[:, theirs] = logits[:, match[theirs]]
                overall.append(logits.argmax(1) == match[labels[start : start + len(logits)]])
                if right_lists is not None:
                    everything.append(scores)
                start += len(logits)
                yield scores

        found = outcomes(of_the_set(), labels)
        unseen = match[labels] < 0
        if unseen.any():  # a class that cannot be said is not among the best five either
            found = Outcomes(labels, found.prediction, np.where(unseen, len(match), found.rank), found.classes)
        right_of_all = np.concatenate(overall)
        metrics = {**found.metrics("sup_"), "sup_acc1_all": int(right_of_all.sum()) / len(labels)}
        counted = {"sup_acc1_all": pa.array(right_of_all)}
        facts: dict[str, Any] = {
            "model_classes": len(context.scores.classes),
            "missing_classes": [context.evalset.classnames[i] for i in np.flatnonzero(match < 0).tolist()],
            "missing_samples": int(unseen.sum()),
        }
        if right_lists is not None:
            right, digest = right_lists
            given = right.any(1)
            hits = right[np.arange(len(right)), found.prediction]
            counted["sup_real_acc1"] = pa.array(hits, mask=~given)
            metrics["sup_real_acc1"] = float(hits[given].mean()) if given.any() else None
            metrics["sup_map"] = mean_average_precision(np.concatenate(everything), right)
            facts |= {"right_classes": digest, "without_right_class": int((~given).sum())}
        return SuiteResult(metrics, replace(found, counted=counted), facts)


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def read_right_classes(evalset: EvalSet, split: str, samples: int) -> tuple[np.ndarray, str] | None:
    """All right classes of each sample, ``(n, classes) bool``, and a digest of the file; None if there is no such file.

    Raises:
        DataError: it is not a list of lists of class numbers, one per sample.
    """
    path = storage.join(evalset.folder, split, LABELS)
    if not storage.exists(path):
        return None
    body = storage.read_bytes(path)
    classes = len(evalset.classnames)
    right = np.zeros((samples, classes), bool)
    try:
        lists = json.loads(body)
        if len(lists) != samples:
            raise DataError(f"{path} has {len(lists)} lists for {samples} samples")
        for row, numbers in enumerate(lists):
            for number in numbers:
                if not isinstance(number, int) or not 0 <= number < classes:
                    raise DataError(f"{path}, sample {row}: {number!r} is no number of one of the {classes} classes")
                right[row, number] = True
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not a JSON list of lists of class numbers: {error}") from error
    return right, hashlib.blake2b(body, digest_size=16).hexdigest()
