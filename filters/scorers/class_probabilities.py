"""`class_prompts`: zero-shot classification of the pool with classes of your own.

Each class is the normalised mean of its prompts; the probabilities are a softmax over all classes at the encoder's
logit scale (Radford et al., ICML 2021, section 3.1). They say which of *these* classes is nearest, not whether any is
there: an image of none still gets a top class, usually with a small margin and a high entropy. The table rows x classes
is made tile by tile and never kept; with 1,000 classes a core does about 40,000 images a second.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from ...errors import ConfigError, DataError
from ...registry import unknown
from ..base import SCORERS, Context, Part, Scorer
from ..directions import unit_blocks
from ..prompts import PLACEHOLDER, ensembles, expand, logit_scale, read_lines, softmax

TILE_VALUES = 2**19  # 4 MB of float64


@dataclass(frozen=True)
class Classifier:
    """A zero-shot classifier.

    Attributes:
        names: of the classes.
        weights: ``(classes, d) float32`` unit rows.
        templates: how many prompts each class has.
        scale: factor on the cosines.
        digest: 32 hexadecimal characters over names and templates.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    templates: int
    scale: float
    digest: str


@SCORERS.register
class ClassPrompts(Scorer):
    """The nearest of your classes, its probability, its margin over the second, and the entropy in nats.

    Columns: ``<name>`` (text), ``<name>_probability``, ``<name>_margin``, ``<name>_entropy``, and ``<name>_p_<class>``
    for classes that you name.
    """

    type: Literal["class_prompts"] = "class_prompts"
    encoder: str = Field(description="Encoder of images and prompts.")
    classes: list[str] = Field(default_factory=list, description="Class names.")
    classes_file: str | None = Field(None, description="Instead of `classes`: a text file, one class a line.")
    templates: list[str] = Field(
        default_factory=lambda: ["a photo of a {c}."], description="Prompts with {c} or {} where the class name goes."
    )
    templates_file: str | None = Field(None, description="Instead of `templates`: a text file, one template a line.")
    probabilities_of: list[str] = Field(
        default_factory=list, description="Classes whose probability becomes a column of its own."
    )
    logit_scale: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="Factor on the cosines; auto = what the encoder was trained with."
    )

    @model_validator(mode="after")
    def _consistent(self) -> ClassPrompts:
        if bool(self.classes) == (self.classes_file is not None):
            raise ValueError("give either `classes` or a `classes_file`")
        if "templates" in self.model_fields_set and self.templates_file is not None:
            raise ValueError("give either `templates` or a `templates_file`")
        if self.classes and (problem := _problem(self.classes, self.probabilities_of)):
            raise ValueError(problem)
        if self.templates_file is None and (problem := _template_problem(self.templates)):
            raise ValueError(problem)
        suffixes = [column_suffix(c) for c in self.probabilities_of]
        if len(set(suffixes)) < len(suffixes):
            raise ValueError(f"two of `probabilities_of` would share a column: {', '.join(sorted(suffixes))}")
        return self

    def columns(self) -> list[str]:
        return [f"{self.encoder}.image"]

    def encoders(self) -> list[str]:
        return [self.encoder]

    def files(self) -> list[str]:
        return [path for path in (self.classes_file, self.templates_file) if path is not None]

    def fit(self, context: Context) -> Classifier:
        names, templates = context.call(_read, self)
        encoder = context.encoder(self.encoder)
        weights = context.call(ensembles, encoder, [[expand(t, name) for t in templates] for name in names])
        scale = self.logit_scale
        if scale == "auto":
            scale = context.call(logit_scale, encoder)
        content = json.dumps([names, templates], ensure_ascii=False, separators=(",", ":"))
        digest = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
        return Classifier(tuple(names), weights, len(templates), scale, digest)

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        assert isinstance(state, Classifier)
        rows = part.array(self.columns()[0])
        if rows.shape[1] != state.weights.shape[1]:
            raise DataError(
                f"{self.columns()[0]} has {rows.shape[1]} dimensions, the prompts have {state.weights.shape[1]}"
            )
        chosen = [state.names.index(c) for c in self.probabilities_of]
        found = classify(rows, state.weights, state.scale, chosen)
        missing = np.isnan(found.probability)
        top = pa.DictionaryArray.from_arrays(
            pa.array(found.top.astype(np.int32), mask=missing), pa.array(list(state.names), pa.string())
        )
        columns: dict[str, np.ndarray | pa.Array] = {
            name: top.dictionary_decode(),
            f"{name}_probability": found.probability,
            f"{name}_margin": found.margin,
            f"{name}_entropy": found.entropy,
        }
        for c, values in zip(self.probabilities_of, found.chosen.T, strict=True):
            columns[f"{name}_p_{column_suffix(c)}"] = np.ascontiguousarray(values)
        return columns

    def describe(self, state: Any = None) -> dict[str, Any]:
        assert isinstance(state, Classifier)
        return {
            "classes": len(state.names),
            "templates": state.templates,
            "logit_scale": state.scale,
            "prompts_digest": state.digest,
            "columns_of_classes": {c: f"p_{column_suffix(c)}" for c in self.probabilities_of},
        }


def column_suffix(name: str) -> str:
    """A class name as part of a column name: lower case, everything but letters and digits an underscore."""
    return re.sub(r"\W+", "_", name.lower()).strip("_")


def _problem(classes: list[str], wanted: list[str]) -> str | None:
    if any(not c.strip() for c in classes):
        return "a class name is blank"
    if len(set(classes)) < len(classes):
        return f"the class {next(c for c in classes if classes.count(c) > 1)!r} is there twice"
    missing = [c for c in wanted if c not in classes]
    return unknown("class", missing[0], classes) if missing else None


def _template_problem(templates: list[str]) -> str | None:
    if not templates:
        return "there are no templates"
    bad = [t for t in templates if not PLACEHOLDER.search(t)]
    return f"template {bad[0]!r} has no {{c}} for the class name" if bad else None


def _read(options: ClassPrompts) -> tuple[list[str], list[str]]:
    """Class names and templates, from their files if they are in files."""
    classes, templates = list(options.classes), list(options.templates)
    if options.classes_file is not None:
        classes = read_lines(options.classes_file, "class_prompts")
        if problem := _problem(classes, options.probabilities_of):
            raise ConfigError(f"class_prompts: {options.classes_file}: {problem}")
    if options.templates_file is not None:
        templates = read_lines(options.templates_file, "class_prompts")
        if problem := _template_problem(templates):
            raise ConfigError(f"class_prompts: {options.templates_file}: {problem}")
    return classes, templates


@dataclass(frozen=True)
class Classified:
    """Per row, all float32 and NaN where there is no direction, except ``top``, ``int64``, then 0.

    Attributes:
        top: class with the largest probability, the first of equal ones.
        probability, margin, entropy: of the top class, over the second, of all in nats.
        chosen: ``(n, c)`` probabilities of the classes that were asked for.
    """

    top: np.ndarray
    probability: np.ndarray
    margin: np.ndarray
    entropy: np.ndarray
    chosen: np.ndarray


def classify(rows: np.ndarray, weights: np.ndarray, scale: float, chosen: list[int]) -> Classified:
    """Softmax of ``scale * cos(row, class)``, in float64.

    Args:
        rows: ``(n, d)`` embeddings; NaN and zero rows have no class.
        weights: ``(classes, d)`` unit rows.
    """
    n, k = len(rows), len(weights)
    weights = weights.astype(np.float64)
    top = np.zeros(n, np.int64)
    probability, margin, entropy = (np.full(n, np.nan, np.float32) for _ in range(3))
    columns = np.full((n, len(chosen)), np.nan, np.float32)
    for where, block, length in unit_blocks(rows, min(512, max(16, TILE_VALUES // k))):
        some = np.arange(where.start, where.stop)[length > 0]
        if not len(some):
            continue
        logits = block[length > 0] @ weights.T
        logits *= scale
        powers, entropy[some] = softmax(logits)
        best = powers.argmax(axis=1)
        largest = powers[np.arange(len(some)), best]
        top[some], probability[some] = best, largest
        columns[some] = powers[:, chosen]
        powers[np.arange(len(some)), best] = 0
        margin[some] = largest - powers.max(axis=1)
    return Classified(top, probability, margin, entropy, columns)
