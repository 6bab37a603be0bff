"""`datacomp`: DataComp's baselines by name, decision for decision (arXiv 2304.14108, section 3.2 and appendix).

    subsets:
      basic: [{type: datacomp, baseline: basic_filter}]
      clip:  [{type: datacomp, baseline: clip_score, arch: l14, fraction: 0.3}]

A `datacomp` pool without images and this filter give the subset file from the metadata in one command: no score needs
to be named, the filter asks for captions' languages itself, of those captions that pass the cheaper rules. Several
subsets share that work when they name one `language` score as `language_column`.

`image_based` needs embeddings (`encoder`), centroids and the clusters of a target set. A fraction is of the rows that
reach this filter, so let it come first. Rows are dropped for the first rule that they break, cheap rules first; which
rows are kept does not depend on that order. Where DataComp fails or is silent this filter differs: `docs/datacomp.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from .base import FILTERS, Context, Decision, Filter, Part, json_number, numbers
from .basic import Basic
from .datacomp_captions import english, long_enough
from .image_clusters import has_direction, read_centroids, read_targets, require_width, target_clusters
from .nearest import Device, largest_product
from .scorers.cld3 import require_cld3
from .scorers.entity_match import EntityMatch
from .scorers.language import model_path
from .top_fraction import TopFraction
from .wordnet import FOLDER

Baseline = Literal[
    "no_filter",
    "basic_filter",
    "clip_score",
    "laion2b",
    "text_based",
    "image_based",
    "image_based_intersect_clip_score",
]
LAION_THRESHOLD = 0.28
CHEAP = Basic.model_validate({"languages": [], "min_words": 3, "min_chars": 6, "min_side": 200, "max_aspect": 3.0})
_SCORED = ("clip_score", "image_based_intersect_clip_score")
_CLUSTERED = ("image_based", "image_based_intersect_clip_score")
_ASKED = ("basic_filter", "laion2b", "text_based", *_CLUSTERED)


@dataclass(frozen=True)
class Fitted:
    """What a baseline has to know before it decides.

    Attributes:
        threshold: of the CLIP score, float32; None = the baseline has none.
        targets: ``(k,) bool``, which clusters are targets; None = the baseline has none.
        rows: rows that reached the filter, where a fraction of them was taken.
    """

    threshold: np.float32 | None = None
    targets: np.ndarray | None = None
    rows: int | None = None


@FILTERS.register
class Datacomp(Filter):
    """One of DataComp's baseline subsets."""

    type: Literal["datacomp"] = "datacomp"
    baseline: Baseline = Field(description="Which baseline.")
    arch: Literal["b32", "l14"] | None = Field(
        None, description="Which CLIP score: column `clip_<arch>_similarity_score`. laion2b takes b32."
    )
    threshold: float | None = Field(None, allow_inf_nan=False, description="Keep CLIP scores >= this, as float32.")
    fraction: float | None = Field(
        None, ge=0, le=1, description="Keep this share of the pool by CLIP score, with one more and all its ties."
    )
    language_by: Literal["fasttext", "cld3"] | None = Field(
        None, description="Who tells the language; null = as in DataComp: cld3 for laion2b, else fasttext."
    )
    language_model: str | None = Field(
        None, description="Path of fastText's model, such as lid.176.bin, which DataComp takes; null = lid.176.ftz."
    )
    language_column: str | None = Field(
        None, description="Column with language codes, if a score computes them: shared by several subsets."
    )
    wordnet: str = Field(FOLDER, description="text_based: folder of the WordNet 3.0 database.")
    entities: str | None = Field(
        None, description="text_based: file of WordNet ids, one a line; null = ImageNet-21k's."
    )
    encoder: str | None = Field(None, description="image_based: encoder whose image embeddings are clustered.")
    centroids: str | None = Field(None, description="image_based: .npy or .npz with the centroids, as they are.")
    target_clusters: str | None = Field(
        None, description="image_based: .npy or .npz with the numbers of the target clusters, from 0."
    )
    target: str | None = Field(
        None, description="image_based: target set of this config whose images tell the target clusters."
    )
    device: Device = Field("cpu", description="image_based: where products are computed; the result is the same.")

    @model_validator(mode="after")
    def _what_the_baseline_takes(self) -> Self:
        def given(*names: str) -> list[str]:
            return [name for name in names if getattr(self, name) is not None]

        def require(names: tuple[str, ...], number: int, wanted: bool) -> None:
            found, listed = given(*names), " and ".join(f"`{n}`" for n in names)
            if not wanted and found:
                raise ValueError(f"datacomp: {self.baseline} has no `{found[0]}`")
            if wanted and len(found) != number:
                told = f"exactly one of {listed}" if number < len(names) else listed
                raise ValueError(f"datacomp: {self.baseline} needs {told}, not {' and '.join(found) or 'none'}")

        scored, clustered = self.baseline in _SCORED, self.baseline in _CLUSTERED
        if self.baseline != "laion2b" or self.arch != "b32":
            require(("arch",), 1, scored)
        require(("threshold", "fraction"), 1, scored)
        require(("encoder", "centroids"), 2, clustered)
        require(("target_clusters", "target"), 1, clustered)
        asked = self.baseline in _ASKED
        for name in given("language_by", "language_model", "language_column"):
            if not asked:
                raise ValueError(f"datacomp: {self.baseline} has no `{name}`")
        if self.language_column is not None and given("language_by", "language_model"):
            raise ValueError("datacomp: with `language_column` nobody is asked; leave out who")
        if self.language_model is not None and self._asks() == "cld3":
            raise ValueError("datacomp: cld3 has no `language_model`; add `language_by: fasttext`")
        if self.baseline != "text_based" and (given("entities") or self.wordnet != FOLDER):
            raise ValueError(f"datacomp: {self.baseline} has no `entities` and no `wordnet`")
        return self

    def _asks(self) -> str:
        return self.language_by or ("cld3" if self.baseline == "laion2b" else "fasttext")

    def _score(self) -> str | None:
        """Column of the CLIP score."""
        arch = "b32" if self.baseline == "laion2b" else self.arch
        return f"clip_{arch}_similarity_score" if self.baseline in (*_SCORED, "laion2b") else None

    def _embedding(self) -> str:
        return f"{self.encoder}.image"

    def _entities(self) -> EntityMatch:
        return EntityMatch(wordnet=self.wordnet, entities=self.entities, exact_reference=True)

    def columns(self) -> list[str]:
        found: list[str] = []
        if self.baseline == "basic_filter":
            found += CHEAP.columns()
        if (score := self._score()) is not None:
            found.append(score)
        if self.baseline in _CLUSTERED:
            found.append(self._embedding())
        if self.baseline in _ASKED:
            found += ["caption"] if self.language_column is None else ["caption", self.language_column]
        return list(dict.fromkeys(found))

    def targets(self) -> dict[str, list[str]]:
        return {} if self.target is None else {self.target: [self._embedding()]}

    def files(self) -> list[str]:
        named = [self.language_model, self.centroids, self.target_clusters]
        found = [path for path in named if path is not None]
        if self.baseline == "text_based":
            found += self._entities().files()
        return found

    def fit_in(self, context: Context) -> Fitted:
        """Threshold and target clusters; sees that whoever tells the language is there.

        Raises:
            ConfigError: a model or file is missing or is none.
            DataError: the threshold would be NaN, or no cluster is a target.
        """
        if self.baseline in _ASKED and self.language_column is None:
            if self._asks() == "cld3":
                context.call(require_cld3)
            else:
                context.call(model_path, self.language_model)
        threshold, rows, targets = None, None, None
        if self.baseline == "laion2b":
            threshold = np.float32(LAION_THRESHOLD)
        elif self.threshold is not None:
            threshold = np.float32(self.threshold)
        elif self.fraction is not None:
            best = TopFraction.model_validate({"by": self._score() or "", "keep": self.fraction})
            cutoff = best.cutoff(context.pool)
            threshold, rows = cutoff.threshold, cutoff.rows
        if self.baseline in _CLUSTERED:
            assert self.centroids is not None
            if self.target is not None:
                targets = target_clusters(context.target(self.target), self._embedding(), self.centroids, self.device)
            else:
                targets = context.call(_read_targets, self.target_clusters, self.centroids)
        return Fitted(threshold, targets, rows)

    def decide(self, part: Part, state: Fitted) -> Decision:
        fate = _Fate(part)
        if self.baseline == "basic_filter":
            fate.take(CHEAP.decide(part, None))
        if state.threshold is not None:
            scores = numbers(part, self._score() or "")
            fate.value = scores.copy()
            fate.require(~np.isnan(scores), "no_value")
            fate.require(scores >= state.threshold, "below_threshold")
        if self.baseline == "text_based":
            found = self._entities().score(part, "entity")["entity"]
            fate.require(np.asarray(found) == 1, "no_entity")
        if self.baseline in _CLUSTERED:
            tokens, characters = long_enough(part)
            fate.require(tokens, "words")
            fate.require(characters, "chars")
        if self.baseline in _ASKED:
            at = fate.alive()
            fate.require_at(at, english(part, at, self._asks(), self.language_model, self.language_column), "language")
        if self.baseline in _CLUSTERED:
            self._cluster(part, fate, state)
        return Decision(fate.keep, fate.value, fate.reason, group=fate.group)

    def _cluster(self, part: Part, fate: _Fate, state: Fitted) -> None:
        """Keep rows whose nearest centroid is a target; the expensive rule, so it comes last."""
        assert self.centroids is not None
        assert state.targets is not None
        fate.group = np.full(len(part), -1, np.int32)
        at = fate.alive()
        if not len(at):
            return
        rows = require_width(part, self._embedding(), self.centroids, at)
        known = has_direction(rows)
        fate.require_at(at, known, "no_embedding")
        at = at[known]
        cluster, product = largest_product(rows[known], read_centroids(self.centroids), self.device)
        fate.group[at] = cluster
        if state.threshold is None:
            fate.value[at] = product
        fate.require_at(at, state.targets[cluster], "not_a_target_cluster")

    def describe(self, state: Fitted) -> dict[str, Any]:
        facts: dict[str, Any] = {"baseline": self.baseline}
        if state.threshold is not None:
            facts |= {"column": self._score(), "threshold": json_number(state.threshold)}
        if state.rows is not None:
            facts["rows"] = state.rows
        if self.baseline in _ASKED:
            facts["language_by"] = self.language_column or self._asks()
            if self.language_column is None and self._asks() == "fasttext":
                facts["language_model"] = model_path(self.language_model).name
        if state.targets is not None:
            facts |= {"centroids": len(state.targets), "target_clusters": int(state.targets.sum())}
        return facts


class _Fate:
    """The rows of a part, rule after rule; a row's reason is the first rule that it breaks."""

    def __init__(self, part: Part) -> None:
        n = len(part)
        self.keep = np.ones(n, bool)
        self.reason = np.full(n, None, object)
        self.value = np.full(n, np.nan, np.float32)
        self.group: np.ndarray | None = None

    def alive(self) -> np.ndarray:
        """Places of the rows that no rule dropped so far, ``(m,) int64``."""
        return np.flatnonzero(self.keep)

    def require(self, passes: np.ndarray, code: str) -> None:
        dropped = self.keep & ~passes
        self.keep[dropped] = False
        self.reason[dropped] = code

    def require_at(self, at: np.ndarray, passes: np.ndarray, code: str) -> None:
        """The same for rows `at`, all of them alive."""
        self.keep[at] = passes
        self.reason[at[~passes]] = code

    def take(self, decision: Decision) -> None:
        """Start from another filter's decision."""
        self.keep, self.value = decision.keep.copy(), decision.value.copy()
        self.reason = np.asarray(decision.reason, object).copy()


def _read_targets(path: str, centroids: str) -> np.ndarray:
    return read_targets(path, len(read_centroids(centroids)))
