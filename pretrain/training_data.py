"""The samples of a training: a subset of the pool, and what is mixed in besides; read as the recipe wants them.

Labels have one numbering in a training: classes are found (or given) once, over everything that is trained on, and the
validation set is read with the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..errors import ConfigError
from ..shards.shard import Shard, succeeded
from .dataset import Selection, SubsetDataset
from .label_space import LabelSpace, find_classes
from .labels import LabelColumn
from .mixture import Mixture
from .recipe import PairRecipe, Recipe
from .samples import Samples


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
    labels = recipe.label_options
    space = column = None
    if labels is not None:
        column = labels.column
        tables = [table for part in parts for table in _column(part, column)]
        if not tables:
            raise ConfigError(f"no table of what is trained on has the column {column!r} for the labels")
        space = find_classes(tables, f"the column {column!r}", labels.min_samples, labels.named_classes())
    wanted = LabelColumn(column, space.names) if column and space else None

    def opened(part: DataPart) -> SubsetDataset:
        return SubsetDataset(part.shards, part.selections, captions, wanted)

    mixed: Samples = opened(parts[0]) if len(parts) == 1 else Mixture([(opened(part), part.share) for part in parts])
    return TrainingData(mixed, space, opened(validation) if validation is not None else None)


def _column(part: DataPart, column: str) -> list[pa.ChunkedArray]:
    """A label column of the rows that are trained on, shard by shard; repeats count once."""
    found = []
    for shard, rows in zip(part.shards, part.rows(), strict=True):
        if len(rows) and column in shard.column_names():
            found.append(shard.read_table([column])[column].take(pa.array(np.unique(rows))))
    return found
