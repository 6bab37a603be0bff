"""`el2n`: how wrong short trainings still are about a labelled sample: the mean of ``||softmax(f(x)) - onehot(y)||_2``.

A few small image towers are trained for a short time on the pool's own labels, each from another seed; then each of
them looks at every picture once. High values are samples that are hard or wrongly labelled, low ones are easy and
redundant. ``grand`` adds ``||x|| ||p - y||``, the norm of the loss's gradient with respect to the last layer; x are the
tower's features. Use them after noise has been removed, or as an upper cut: keeping the highest keeps the errors too.
Source: Paul et al., "Deep learning on a data diet" (arXiv 2107.07075); GraNd at initialisation does not reproduce
(arXiv 2303.14753), so there is no such option. Price: `seeds` short trainings and as many forward passes per picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import DataError
from ...pretrain.data.preprocess import Preprocess
from ...pretrain.models.architecture import resolve_model
from ...pretrain.weighing.proxy_recipe import ProxyRecipe
from ...shards import storage
from ...shards.image_pass import Picture
from ...shards.shard import Shard
from ..base import SCORERS, Context, Part, PixelReader, PixelScorer

if TYPE_CHECKING:
    from ...pretrain.weighing.proxy import Proxy

MAX_CLASSES = 100_000
BATCH = 64
"""Pictures per forward pass; always so many, so that a row's value cannot depend on how many there are."""


@dataclass(frozen=True)
class Proxies:
    """Trained proxies.

    Attributes:
        folder: of their weights, ``<name>.pt``.
        names: one per seed.
        classes: labels, in the order of the logits.
        reports: of their trainings.
    """

    folder: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    reports: tuple[dict[str, Any], ...]


@SCORERS.register
class El2n(PixelScorer):
    """Mean error of short supervised trainings on a sample, and `<name>_grand`; NaN without a label or a picture."""

    version: ClassVar[int] = 2  # a blank is no label, and blanks around one are not part of it
    whole_pool: ClassVar[bool] = True
    type: Literal["el2n"] = "el2n"
    label: str = Field(description="Column of the row table with the labels: text, integers or bools; null = none.")
    model: str = Field(
        default="RN-mini-32", description="Model whose image tower is trained from scratch: a name or a JSON file."
    )
    seeds: int = Field(default=10, ge=1, le=100, description="Trainings whose errors are averaged.")
    epochs: float = Field(default=10.0, gt=0, description="Length of a training, in passes over the labelled samples.")
    samples_seen: int | None = Field(
        default=None, ge=1, description="Length of a training in samples; before `epochs`."
    )
    grand: bool = Field(default=False, description="Add `<name>_grand`, the norm of the last layer's gradient.")
    recipe: ProxyRecipe = Field(default_factory=ProxyRecipe, description="How the proxies are trained.")
    device: Literal["cpu", "cuda", "auto"] = Field(
        default="cpu", description="Where they run; on a GPU results differ in the last digits from run to run."
    )

    def columns(self) -> list[str]:
        return [self.label]

    def architectures(self) -> list[str]:
        return [self.model]

    def fit(self, context: Context) -> Proxies:
        """Train the proxies.

        Raises:
            ConfigError: unknown model, or the column holds no labels. DataError: there are fewer than two classes.
        """
        resolve_model(self.model)
        shards = tuple(context.columns.shards)
        if not shards:
            raise DataError("scorer el2n: the pool has no shards; it needs pictures")
        found: set[str] = set().union(*context.pool.map(_labels, self.label))
        if not 2 <= len(found) <= MAX_CLASSES:
            raise DataError(
                f"scorer el2n: the column {self.label!r} has {len(found)} different labels; "
                f"it takes 2 to {MAX_CLASSES} classes"
            )
        classes = tuple(sorted(found))
        calls = {
            f"proxy-{i:03d}": (self, f"proxy-{i:03d}", shards, classes, i, context.seed) for i in range(self.seeds)
        }
        done = context.map(_train, calls)
        reports = tuple({k: v for k, v in report.items() if k != "out"} for report in done.values())
        return Proxies(str(next(iter(done.values()))["out"]), tuple(done), classes, reports)

    def reader(self, name: str, state: Any = None) -> PixelReader:
        return El2nReader(self, name, state)

    def describe(self, state: Any = None) -> dict[str, Any]:
        if state is None:
            return {}
        return {
            "classes": len(state.classes),
            "seeds": len(state.names),
            "samples": state.reports[0]["samples"],
            "samples_seen": state.reports[0]["samples_seen"],
            "loss": [report["loss"] for report in state.reports],
            "accuracy": [report["accuracy"] for report in state.reports],
        }


class El2nReader:
    """Shows every labelled picture to all proxies, in batches of one size that never span two shards."""

    def __init__(self, scorer: El2n, name: str, proxies: Proxies) -> None:
        from ...pretrain.weighing.proxy import load_proxy

        paths = [storage.join(proxies.folder, f"{proxy}.pt") for proxy in proxies.names]
        self._proxies = [load_proxy(path, scorer.model, len(proxies.classes), scorer.device) for path in paths]
        self._preprocess: Preprocess = resolve_model(scorer.model).preprocess
        self._number = {label: i for i, label in enumerate(proxies.classes)}
        self._label, self._name, self._grand = scorer.label, name, scorer.grand
        self._labels = np.empty(0, np.int64)
        self._shards: dict[int, Shard] = {}
        self._columns: dict[int, dict[str, np.ndarray]] = {}
        self._pixels = np.zeros((BATCH, *self._preprocess.size, 3), np.uint8)
        self._at: list[int] = []
        self._index = -1

    def begin(self, index: int, shard: Shard, rows: int) -> None:
        self._shards[index] = shard
        names = [self._name, f"{self._name}_grand"] if self._grand else [self._name]
        self._columns[index] = {name: np.full(rows, np.nan, np.float32) for name in names}

    def prepare(self, picture: Picture) -> np.ndarray:
        from ...pretrain.data.transform import for_evaluation

        return for_evaluation(picture.rgb, self._preprocess)

    def take(self, index: int, row: int, prepared: np.ndarray) -> None:
        if index != self._index:
            self._settle()
            self._index, self._labels = index, _numbers(self._shards.pop(index), self._label, self._number)
        if self._labels[row] < 0:
            return
        self._pixels[len(self._at)] = prepared
        self._at.append(row)
        if len(self._at) == BATCH:
            self._settle()

    def finish(self) -> None:
        self._settle()

    def result(self, index: int) -> dict[str, np.ndarray | pa.Array]:
        return dict(self._columns.pop(index))

    def _settle(self) -> None:
        """Score what was collected."""
        if not self._at:
            return
        rows = np.array(self._at)
        error, gradient = errors(self._proxies, self._pixels, self._labels[rows])
        columns = self._columns[self._index]
        columns[self._name][rows] = error
        if self._grand:
            columns[f"{self._name}_grand"][rows] = gradient
        self._at = []


def errors(proxies: Sequence[Proxy], pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """EL2N and last-layer GraNd of the first ``len(labels)`` pictures, each ``(n,) float64``, means over the proxies.

    Args:
        pixels: ``(b, h, w, 3) uint8``, b at least n.
        labels: ``(n,)`` class numbers.
    """
    import torch

    n, images = len(labels), torch.from_numpy(pixels).permute(0, 3, 1, 2)
    error, gradient = np.zeros(n), np.zeros(n)
    with torch.inference_mode():
        for proxy in proxies:
            features, logits = (t[:n].float().cpu().numpy().astype(np.float64) for t in proxy(images))
            away = softmax(logits)
            away[np.arange(n), labels] -= 1
            distance = np.sqrt(np.square(away).sum(1))
            error += distance
            gradient += distance * np.sqrt(np.square(features).sum(1))
    return error / len(proxies), gradient / len(proxies)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise, ``(n, k) float64``."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def _labels(part: Part, column: str) -> set[str]:
    """Different labels of a part; at most one more than can be used."""
    from ...pretrain.data.label_space import label_of_each

    found = {t for t in label_of_each(part.arrow(column), f"column {column!r} of part {part.name}") if t is not None}
    return set(sorted(found)[: MAX_CLASSES + 1])


def _numbers(shard: Shard, column: str, number: dict[str, int]) -> np.ndarray:
    """Class number of every row, -1 = no label."""
    from ...pretrain.data.label_space import label_of_each

    texts = label_of_each(shard.read_table([column])[column], f"column {column!r} of {shard.table}")
    return np.array([-1 if text is None else number.get(text, -1) for text in texts], np.int64)


def _train(
    task: Any, scorer: El2n, name: str, shards: Sequence[Shard], classes: Sequence[str], index: int, seed: int
) -> dict[str, Any]:
    """One proxy."""
    from ...pretrain import streams
    from ...pretrain.data.labelled import LabelledDataset
    from ...pretrain.weighing.proxy import train_proxy

    dataset = LabelledDataset(shards, scorer.label)
    report = train_proxy(
        scorer.recipe,
        scorer.model,
        dataset,
        classes,
        scorer.samples_seen or max(1, round(scorer.epochs * len(dataset))),
        streams.key(seed, "proxy", index) >> 1,
        storage.join(task.out, f"{name}.pt"),
        task.scratch,
        task.progress,
        scorer.device,
    )
    return {"out": task.out, **report.to_json()}
