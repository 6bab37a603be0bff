"""Where samples come from. Importing this package registers every source by its name in `base.SOURCES`."""

from .base import SOURCES, Ingested, IngestOptions, Source
from .demo import DemoSource
from .shards import ShardsSource
from .urls import UrlsSource

__all__ = ["SOURCES", "DemoSource", "IngestOptions", "Ingested", "ShardsSource", "Source", "UrlsSource"]
