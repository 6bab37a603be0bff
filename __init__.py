"""curate: from an unruly web of image-text pairs to a released dataset, a trained model and an evaluation report.

The command line (`curate run config.yaml`) is the usual way in. The rooms are also plain libraries on one machine,
without a config or Ray; the names below are the ones that people need first, and are loaded when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .eval.evaluate import evaluate
    from .filters.memory import MemoryPool, run_filters
    from .pretrain.data.dataset import SubsetDataset
    from .pretrain.encoders.encoder import Encoder
    from .pretrain.encoders.load_encoder import load_encoder
    from .pretrain.trainer import train
    from .shards.evalsets.base import EvalSet
    from .shards.evalsets.open import open_evalset
    from .shards.shard import Shard
    from .shards.tar import TarReader, TarWriter
    from .shards.uid import read_subset, write_subset

_HOME = {
    "Encoder": ".pretrain.encoders.encoder",
    "EvalSet": ".shards.evalsets.base",
    "MemoryPool": ".filters.memory",
    "Shard": ".shards.shard",
    "SubsetDataset": ".pretrain.data.dataset",
    "TarReader": ".shards.tar",
    "TarWriter": ".shards.tar",
    "evaluate": ".eval.evaluate",
    "open_evalset": ".shards.evalsets.open",
    "load_encoder": ".pretrain.encoders.load_encoder",
    "read_subset": ".shards.uid",
    "run_filters": ".filters.memory",
    "train": ".pretrain.trainer",
    "write_subset": ".shards.uid",
}

__all__ = [
    "Encoder",
    "EvalSet",
    "MemoryPool",
    "Shard",
    "SubsetDataset",
    "TarReader",
    "TarWriter",
    "evaluate",
    "load_encoder",
    "open_evalset",
    "read_subset",
    "run_filters",
    "train",
    "write_subset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
