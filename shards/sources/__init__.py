"""Where samples come from. Importing this package registers every source by its name in `base.SOURCES`."""

from __future__ import annotations

from .base import SOURCES, Ingested, IngestOptions, Slot, Source
from .datacomp import DatacompSource
from .demo import DemoSource
from .folder import FolderSource
from .parquet import ParquetSource
from .shards import ShardsSource
from .urls import UrlsSource

__all__ = [
    "SOURCES",
    "DatacompSource",
    "DemoSource",
    "FolderSource",
    "IngestOptions",
    "Ingested",
    "ParquetSource",
    "ShardsSource",
    "Slot",
    "Source",
    "UrlsSource",
]
