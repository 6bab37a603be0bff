"""`score`: columns over the whole pool, computed once and shared by all subsets.

Most scores belong to a row alone: such a stage grows with the pool. Those that look at the whole pool first are made
anew when it has grown. Those that look at pictures are made by the image pass (`images.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...filters.base import PixelScorer, Scorer
from ..artifact import Artifact
from ..columns import ColumnStore, column_store, require_columns
from ..context import EncoderAt, StageContext
from ..stage import Stage, Task, Work
from .images import ScoreLook, add_up, look_at_images, write_columns


@dataclass(eq=False)
class ScoreStage(Stage):
    """One score over the whole pool.

    Inputs: ``pool`` and the ``embed/*`` and ``score/*`` that it reads; what its `fit` needs: ``target/<set>/pool`` with
    that set's ``embed/*`` and ``score/*``, ``encoder/<name>`` if it was trained in this run, ``evalset/<name>``.
    Files: ``<shard>.parquet`` with the score's columns, row-aligned.
    """

    kind: ClassVar[str] = "score"
    scorer: Scorer = None  # type: ignore[assignment]
    column: str = ""
    encoders: dict[str, EncoderAt] = field(default_factory=dict)
    files: str = ""  # identity of local files that the result depends on
    seed: int = 0

    @property
    def grows(self) -> bool:
        return not self.scorer.whole_pool

    def identity(self) -> dict[str, Any]:
        more: dict[str, Any] = {"files": self.files} if self.files else {}
        if self.scorer.whole_pool:
            more["seed"] = self.seed
        return {
            "scorer": self.scorer.model_dump(mode="json"),
            "scorer_version": self.scorer.version,
            "column": self.column,
            **more,
        }

    def expected_parts(self, done: Any) -> int | None:
        return len(done["pool"].summary["shards"]) if "pool" in done else None

    def fits(self) -> bool:
        """Whether it has to look at something before it scores."""
        return type(self.scorer).fit is not Scorer.fit

    def run(self, work: Work) -> dict[str, Any]:
        store = column_store(work.inputs)
        require_columns(store, self.scorer.columns(), "this score")
        state = self.scorer.fit(StageContext(work, self.scorer, self.encoders, self.seed)) if self.fits() else None
        if isinstance(self.scorer, PixelScorer):
            results = look_at_images(work, ScoreLook(self.scorer, self.column, state))
        else:
            parts = {s.name: (self.scorer, self.column, store, i, state) for i, s in enumerate(store.shards)}
            results = work.map(_score, parts)
        return {**add_up(results), "facts": self.scorer.describe(state)}

    def looks_along(self) -> bool:
        """Whether it looks at pictures and could do so along with others at any time."""
        return isinstance(self.scorer, PixelScorer) and not self.fits()

    def look_along(self, inputs: Mapping[str, Artifact]) -> ScoreLook:
        """What the image pass of another stage does for it."""
        assert isinstance(self.scorer, PixelScorer)
        return ScoreLook(self.scorer, self.column)


def _score(task: Task, scorer: Scorer, column: str, store: ColumnStore, index: int, state: Any) -> dict[str, Any]:
    part = store.part(index)
    columns = scorer.score(part, column, state)
    return write_columns(task.out, part.name, len(part), columns)
