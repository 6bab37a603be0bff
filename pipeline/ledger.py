"""The ledger of a growing pool: which shard number belongs to which part of a source, for ever.

Numbers are given in the order in which parts are first seen, so that files that come later, wherever their names sort,
never move a shard that exists. It also remembers which shards were tried again (`--retry`), because from then on those
are other shards. It lies in the folder of the source's shards and is changed only by the one driver of the workdir.

Price: a pool that was ingested in one go and one that grew to the same files may number their shards differently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..shards import storage

FILE = "ledger.json"


@dataclass
class Ledger:
    """Numbers by part key, and retries in order.

    Attributes:
        retries: ``{"codes": [...], "shards": [numbers]}`` each: rows of those shards that failed with those codes.
    """

    path: str
    numbers: dict[str, int] = field(default_factory=dict)
    retries: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, folder: str) -> Ledger:
        """The ledger in a source's folder; an empty one when there is none yet."""
        path = storage.join(folder, FILE)
        if not storage.exists(path):
            return cls(path)
        found = storage.read_json(path)
        return cls(path, found["numbers"], found["retries"])

    def assign(self, keys: Iterable[str]) -> list[int]:
        """Numbers of the parts; those not seen before get the next ones, and the ledger is saved."""
        known = len(self.numbers)
        found = [self.numbers.setdefault(key, len(self.numbers)) for key in keys]
        if len(self.numbers) > known:
            self.save()
        return found

    def rounds(self, number: int) -> list[list[str]]:
        """The codes of every retry of a shard, in order."""
        return self.all_rounds().get(number, [])

    def all_rounds(self) -> dict[int, list[list[str]]]:
        """`rounds` of every shard that was ever retried."""
        found: dict[int, list[list[str]]] = {}
        for retry in self.retries:
            for number in retry["shards"]:
                found.setdefault(number, []).append(retry["codes"])
        return found

    def save(self) -> None:
        storage.write_json(self.path, {"numbers": self.numbers, "retries": self.retries})
