"""The samples of a training: a subset of the pool, and what is mixed in besides; read as the recipe wants them.

Labels have one numbering in a training: classes are found (or given) once, over everything that is trained on, and the
validation set is read with the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..errors import ConfigError, DataError
from ..shards.shard import Shard, succeeded
from .data.captions import Captions
from .data.dataset import Selection, SubsetDataset
from .data.label_space import LabelSpace, find_classes
from .data.labels import LabelColumn, LabelValues
from .data.mixture import Mixture
from .data.samples import Samples
from .recipe import PairRecipe, Recipe


@dataclass(frozen=True)
class DataPart:
    """Some samples.

    Attributes:
        shards: where they are.
        selections: rows of each, repeated by multiplicity; None = every fetched sample once.
        share: of the training's positions; shares of all parts need not sum to 1.
    """

    shards: Sequence[Shard]
    selections: Sequence[Selection] | None = None
    share: float = 1.0

    def rows(self) -> Sequence[Selection]:
        """Rows of each shard."""
        if self.selections is not None:
            return self.selections
        return [np.flatnonzero(succeeded(shard.read_table(["status"]))) for shard in self.shards]


@dataclass(frozen=True)
class TrainingData:
    """What `trainer.train` takes.

    Attributes:
        samples: that are trained on.
        classes: of their labels, if the recipe learns labels.
        validation: that the model is measured on, or None.
    """

    samples: Samples
    classes: LabelSpace | None = None
    validation: Samples | None = None


def open_training_data(recipe: Recipe, parts: Sequence[DataPart], validation: DataPart | None = None) -> TrainingData:
    """Open everything that a training reads; what would stop it later is found here.

    Raises:
        DataError: nothing to train on, no captions or no labels where they are needed, or a tar that lacks samples.
        ConfigError: a column does not hold what it should.
    """
    captions = recipe.captions if isinstance(recipe, PairRecipe) else None
    labels = recipe.labels
    space = column = None
    if labels is not None:
        column = labels.column
        tables = [table for part in parts for table in _column(part, column)]
        if not tables:
            raise ConfigError(f"no table of what is trained on has the column {column!r} for the labels")
        space = find_classes(tables, f"the column {column!r}", labels.min_samples, labels.named_classes())
    wanted = LabelColumn(column, space.names) if column and space else None
    if len(parts) == 1:
        samples: Samples = SubsetDataset(parts[0].shards, parts[0].selections, captions, wanted)
    else:
        samples = Mixture([(_member(part, captions, wanted), part.share) for part in parts])
        _check_mixed(parts, captions)
    measured = None
    if validation is not None:
        labels_too = wanted is not None and (captions is None or _labelled(validation, wanted))
        measured = SubsetDataset(
            validation.shards, validation.selections, _present(captions, validation), wanted if labels_too else None
        )
    return TrainingData(samples, space, measured)


def _member(part: DataPart, captions: Mapping[str, float] | None, labels: LabelColumn | None) -> SubsetDataset:
    """One of several data sets. Of captions and labels it needs what it has: others may have the rest."""
    if captions is not None and labels is not None:
        if not _labelled(part, labels):
            labels = None
        elif not _captioned(part, captions):
            captions = None
    return SubsetDataset(part.shards, part.selections, _present(captions, part), labels)


def _check_mixed(parts: Sequence[DataPart], captions: Mapping[str, float] | None) -> None:
    if captions is None:
        return
    absent = set(captions) - {name for part in parts for shard in part.shards for name in shard.column_names()}
    if absent:
        raise DataError(f"no row table has the caption column {min(absent)!r}")
    if not any(_captioned(part, captions) for part in parts):
        raise DataError("none of the samples of all data sets has a caption; nothing to train on")


def _present(captions: Mapping[str, float] | None, part: DataPart) -> Mapping[str, float] | None:
    """Those of the caption columns that a data set has; all of them if it has none, which is then told."""
    if captions is None:
        return None
    known = {name for shard in part.shards for name in shard.column_names()}
    return {name: weight for name, weight in captions.items() if name in known} or captions


def _captioned(part: DataPart, captions: Mapping[str, float]) -> bool:
    """Whether any sample of a data set has a caption."""
    for shard, rows in zip(part.shards, part.rows(), strict=True):
        names = [name for name in captions if name in shard.column_names()]
        if len(rows) and names:
            table = shard.read_table(names).take(pa.array(np.unique(rows)))
            if Captions.read(table, captions, shard.table).there.any():
                return True
    return False


def _labelled(part: DataPart, labels: LabelColumn) -> bool:
    """Whether any sample of a data set has one of the labels."""
    where = f"the column {labels.column!r}"
    return any(LabelValues(c, where, labels.classes).counts.any() for c in _column(part, labels.column))


def _column(part: DataPart, column: str) -> list[pa.ChunkedArray]:
    """A label column of the rows that are trained on, shard by shard; repeats count once."""
    found = []
    for shard, rows in zip(part.shards, part.rows(), strict=True):
        if len(rows) and column in shard.column_names():
            found.append(shard.read_table([column])[column].take(pa.array(np.unique(rows))))
    return found
