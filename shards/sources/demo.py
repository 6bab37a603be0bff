"""The `demo` source: a small unruly web of real handwritten digits on loopback, whose truth is known.

It prepares its own data (`demo.web.build`), serves it while it is ingested (`demo.server.online`), and is read like any
list of URLs, over HTTP and through the same code. Pool and trusted pairs are two splits of one prepared web.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from ...errors import DataError
from .. import storage
from ..demo.options import WebOptions
from .base import SOURCES, Slot, Source
from .urls import UrlsSource


@SOURCES.register
class DemoSource(WebOptions, Source):
    """Handwritten digits on a small web of our own, with planted and recorded faults."""

    version: ClassVar[int] = 1
    prepares: ClassVar[bool] = True
    type: Literal["demo"] = "demo"
    split: Literal["pool", "trusted"] = Field(
        default="pool", description="The unruly pool, or the trusted pairs beside it."
    )

    def preparation(self) -> dict[str, Any]:
        """The options that decide the prepared files; sources that agree in them share one prepared folder."""
        return self.model_dump(include=set(WebOptions.model_fields))

    def prepare(self, out: str, seed: int) -> None:
        """Write the web, both splits and the truth into folder `out`."""
        from ..demo.web import build

        build(out, seed, self)

    @contextmanager
    def online(self, prepared: str | None) -> Iterator[dict[str, str]]:
        """Serve the prepared web on loopback; yields where each of its hosts is found."""
        from ..demo.server import online

        with online(_required(prepared)) as routes:
            yield routes

    def fingerprint(self) -> str:
        """The scans' digest: the web is made from them, the options and the seed alone."""
        from ..demo.digits import SCANS_DIGEST

        return SCANS_DIGEST

    def parts(self, prepared: str | None, samples_per_shard: int) -> list[dict[str, Any]]:
        """Row ranges of the split's list of URLs."""
        return self._urls(_required(prepared)).parts(None, samples_per_shard)

    def table(self, part: dict[str, Any]) -> pa.Table:
        """The rows of a part of the list of URLs."""
        return self._urls("").table(part)

    def fetches(self) -> bool:
        return True

    def check(self, slot: Slot) -> None:
        """Refuse what was fetched when the server went away meanwhile (its process was killed).

        What was fetched then is not the web's answer, and a shard full of refused links must not pass for a finished
        one.

        Raises:
            DataError: it is gone.
        """
        _require_alive(slot.connect_to)

    def truth(self, prepared: str | None) -> str | None:
        """What is really behind every row: `demo.web.TRUTH_SCHEMA`."""
        return storage.join(_required(prepared), "truth.parquet")

    def _urls(self, prepared: str) -> Source:
        return UrlsSource.model_validate({"path": storage.join(prepared, f"{self.split}.parquet")})


def _required(prepared: str | None) -> str:
    if prepared is None:
        raise ValueError("the demo source must be prepared first")
    return prepared


def _require_alive(connect_to: Mapping[str, str]) -> None:
    import http.client

    from ..demo.routes import MAIN
    from ..demo.server import ALIVE

    host, _, port = connect_to[f"{MAIN}:80"].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request("GET", ALIVE, headers={"Host": MAIN})
        alive = connection.getresponse().status == 204
    except (OSError, http.client.HTTPException):
        alive = False
    finally:
        connection.close()
    if not alive:
        raise DataError(f"the demo's web server at {host}:{port} went away; run the same command again")
