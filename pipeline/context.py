"""What a scorer or filter may look at first, over files and an engine (`filters.base.Context`).

The roles of the stage's inputs are its vocabulary: ``pool``, ``embed/<encoder>`` and ``score/<name>`` for the pool
itself, ``target/<set>/...`` the same for a target set, ``evalset/<name>`` for a built-in evaluation set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from ..filters.base import Reads
from ..shards import storage
from ..shards.evalsets.source import EvalSource
from .columns import ColumnStore, column_store, require_columns
from .filter_pool import StagePool, Survivors
from .stage import Work

T = TypeVar("T")


@dataclass(frozen=True)
class EncoderAt:
    """Where an encoder is loaded from: an encoder folder, or a model name with a local checkpoint.

    Attributes:
        device: ``auto`` | ``cpu`` | ``cuda``.
        precision: ``auto`` | ``fp32`` | ``bf16`` | ``fp16``.
    """

    model: str
    pretrained: str | None
    device: str = "auto"
    precision: str = "auto"

    def load(self) -> Any:
        """The encoder; loaded once per worker, however many parts the worker gets."""
        return _load(self)


@lru_cache(maxsize=8)
def _load(at: EncoderAt) -> Any:
    from ..pretrain.encoders.load_encoder import load_encoder

    return load_encoder(at.model, at.pretrained, at.device, at.precision)  # type: ignore[arg-type]


class StageContext:
    """`filters.base.Context` of a running stage.

    Args:
        reads: the scorer or filter.
        encoders: those that it asked for; of those that are trained in this run, the weights come from ``encoder/*``.
        seed: of the run.
        previous: decisions of the filter before, for a filter.
    """

    def __init__(
        self,
        work: Work,
        reads: Reads,
        encoders: Mapping[str, EncoderAt],
        seed: int,
        previous: str | None = None,
    ) -> None:
        self._work, self._reads, self._encoders, self._previous = work, reads, encoders, previous
        self.seed = seed
        self._pools: dict[str, StagePool] = {}

    @property
    def scratch(self) -> str:
        return self._work.artifact.scratch("own")

    @property
    def columns(self) -> ColumnStore:
        return self._columns("")

    @property
    def pool(self) -> StagePool:
        return self._pool("")

    def target(self, name: str) -> StagePool:
        return self._pool(f"target/{name}/")

    def target_columns(self, name: str) -> ColumnStore:
        return self._columns(f"target/{name}/")

    def encoder(self, name: str) -> EncoderAt:
        trained = self._work.inputs.get(f"encoder/{name}")
        if trained is None:
            return self._encoders[name]
        at = self._encoders[name]
        return EncoderAt(storage.join(trained.data, "model"), None, at.device, at.precision)

    def evalset(self, source: EvalSource) -> EvalSource:
        built = self._work.inputs.get(f"evalset/{source.path}")
        return source.at(storage.join(built.data, built.summary["folder"])) if built else source

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        return self._work.gather(function, [arguments])[0]

    def map(
        self, function: Callable[..., dict[str, Any]], parts: Mapping[str, tuple[Any, ...]]
    ) -> dict[str, dict[str, Any]]:
        return self._work.map(function, parts)

    def _columns(self, prefix: str) -> ColumnStore:
        store = column_store(self._work.inputs, prefix)
        wanted = self._reads.targets()[prefix.split("/")[1]] if prefix else self._reads.columns()
        require_columns(
            store, wanted, f"the target set {prefix.split('/')[1]!r}" if prefix else f"this {self._reads.type}"
        )
        return store

    def _pool(self, prefix: str) -> StagePool:
        if prefix not in self._pools:
            survivors = Survivors(self._columns(prefix), None if prefix else self._previous)
            label = prefix.replace("/", "-") or "pool-"
            self._pools[prefix] = StagePool(self._work, survivors, self.seed, label)
        return self._pools[prefix]
