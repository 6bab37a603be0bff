"""Sort & Search: the accuracy of a new model from a few samples, when many models were evaluated before.

(Prabhu et al., "Efficient Lifelong Model Evaluation in an Era of Rapid Progress", arXiv 2402.19472.)

Models agree about what is hard. Sort the samples by how many earlier models got them right, easiest first; a new model
is then nearly "right up to a threshold, wrong behind it". So a few samples, evenly spaced in that order, are evaluated,
the threshold that explains them best is found exactly (a cumulative sum of +1 and -1), and it says how many of all
samples the model would get right, and which.

Two estimates of the accuracy come out. `Found.threshold` is the paper's, the share before the threshold: it is biased
where a model is wrong on easy samples as often as not right on hard ones. `Found.mean` is the mean of the evaluated
samples: they are a systematic sample in the order of difficulty, so it has no bias to speak of, and the better earlier
models predict, the less it varies. `left_out_errors` measures both on the earlier models themselves.

Plain functions over ``(models, samples) bool``; a matrix of 1,000 models on 50,000 samples is 50 MB and takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ...shards import storage


def difficulty_order(correct: np.ndarray) -> np.ndarray:
    """Samples, easiest first, ``(samples,) int64``: by how many of the models are right; equal ones in file order.

    Args:
        correct: ``(models, samples) bool``.
    """
    return np.argsort(-np.count_nonzero(correct, 0), kind="stable")


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """`count` different places among `total`, ascending, each in the middle of its share, ``(count,) int64``.

    Raises:
        ValueError: more places than there are, or none.
    """
    if not 1 <= count <= total:
        raise ValueError(f"{count} of {total} places")
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // (2 * count)


def best_threshold(right: np.ndarray) -> int:
    """How many of the samples, easiest first, a model gets right if it is right up to there and wrong behind.

    The number t that leaves the fewest samples unexplained: the wrong ones before t and the right ones behind. Of
    several that are as good, the middle one (the lower of two).

    Args:
        right: ``(samples,) bool``, in the order of difficulty.
    """
    gain = np.concatenate([[0], np.cumsum(np.where(right, 1, -1))])
    best = np.flatnonzero(gain == gain.max())
    return int(best[(len(best) - 1) // 2])


class Found(NamedTuple):
    """What a few samples say about all.

    Attributes:
        threshold: the paper's estimate of the accuracy, fraction 0-1.
        mean: accuracy on the evaluated samples, fraction 0-1.
        predicted: ``(samples,) bool``, each sample's outcome in file order: as measured, else by the threshold.
    """

    threshold: float
    mean: float
    predicted: np.ndarray


def search(order: np.ndarray, places: np.ndarray, right: np.ndarray) -> Found:
    """Fit the threshold to the samples that were evaluated.

    Args:
        order: ``(samples,)`` of `difficulty_order`.
        places: ``(count,)`` ascending, of `evenly_spaced`: ``order[places]`` are the samples that were evaluated.
        right: ``(count,) bool``: what came out.
    """
    total, count = len(order), len(places)
    t = best_threshold(right)
    # each evaluated sample stands for an equal share of all, so the border lies between two shares
    border = round(t * total / count)
    predicted = np.zeros(total, bool)
    predicted[order[:border]] = True
    predicted[order[places]] = right
    return Found(t / count, int(np.count_nonzero(right)) / count, predicted)


def left_out_errors(correct: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Each earlier model estimated from the others and from `count` samples of its own: estimate less truth.

    Args:
        correct: ``(models, samples) bool``, two models at least.

    Returns:
        Errors ``(models,) float64`` of the threshold and of the mean (see `Found`).
    """
    votes = np.count_nonzero(correct, 0)
    places = evenly_spaced(correct.shape[1], count)
    errors = []
    for right in correct:
        order = np.argsort(right - votes, kind="stable")
        found = search(order, places, right[order[places]])
        truth = np.count_nonzero(right) / len(right)
        errors.append((found.threshold - truth, found.mean - truth))
    threshold, mean = np.array(errors, np.float64).reshape(-1, 2).T
    return threshold, mean


def read_history(paths: Sequence[str], keys: Sequence[str]) -> np.ndarray:
    """Outcomes of earlier models on the same samples, ``(models, samples) bool``, in the order of `keys`.

    Args:
        paths: parquet files of stored outcomes, with columns ``key`` and ``correct``; one per model.
        keys: of the split's samples.

    Raises:
        DataError: a file is not one of outcomes, or is of other samples.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = np.empty((len(paths), len(keys)), bool)
    for row, path in enumerate(paths):
        try:
            table = pq.read_table(storage.local(path), columns=["key", "correct"])
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path} is not a file of stored outcomes: {error}") from error
        if table.column_names != ["key", "correct"]:
            raise DataError(f"{path} is not a file of stored outcomes: it lacks the column key or correct")
        place = {key: at for at, key in enumerate(table["key"].to_pylist())}
        if len(table) != len(keys) or place.keys() != set(keys):
            raise DataError(
                f"{path} holds outcomes of {len(table)} samples, which are not the {len(keys)} of this split; "
                "leave it out of `history`"
            )
        found[row] = np.array(table["correct"].to_pylist(), bool)[[place[key] for key in keys]]
    return found
