"""Artifacts and receipts: how a finished piece of work proves that it is finished.

An artifact is a folder named by its stage's fingerprint::

    artifacts/<kind>-<fingerprint>/
        data/             what the stage made
        parts/<part>.json one receipt per finished part: what its function returned, and how long it took
        scratch/          resumable state of unfinished parts; gone when the artifact is done
        artifact.json     the artifact's receipt, written last: the stage is done when it exists

A stage that grows with its pool has one folder for all pools, and ``receipts/<fingerprint>.json`` for each pool that it
is complete for.

Files in ``data/`` are published atomically by the functions that make them and are the same bytes whoever makes them,
so a late worker of a killed driver can do no harm.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..shards import storage

RECEIPT = "artifact.json"


@dataclass(frozen=True)
class Artifact:
    """The folder of one stage's output, and the name of the receipt that says it is complete."""

    path: str
    receipt_name: str = RECEIPT

    @property
    def data(self) -> str:
        """Folder of the outputs."""
        return storage.join(self.path, "data")

    def scratch(self, part: str) -> str:
        """Folder for the resumable state of one part."""
        return storage.join(self.path, "scratch", part)

    def part_path(self, part: str) -> str:
        return storage.join(self.path, "parts", f"{part}.json")

    def progress_path(self, part: str) -> str:
        return storage.join(self.path, "scratch", f"{part}.progress")

    def finished_parts(self) -> set[str]:
        """Names of the parts that have a receipt; one listing, no call per part."""
        names = storage.list_names(storage.join(self.path, "parts"))
        return {n.removesuffix(".json") for n in names if n.endswith(".json")}

    def part_receipt(self, part: str) -> dict[str, Any]:
        """The receipt of a finished part: ``result``, ``seconds``, ``peak_bytes``."""
        return storage.read_json(self.part_path(part))

    def is_done(self) -> bool:
        return storage.exists(storage.join(self.path, self.receipt_name))

    @cached_property
    def receipt(self) -> dict[str, Any]:
        """The artifact's receipt: ``summary`` (what the stage returned), ``seconds``, ``stage``, ``options``..."""
        return storage.read_json(storage.join(self.path, self.receipt_name))

    @property
    def summary(self) -> dict[str, Any]:
        return self.receipt["summary"]

    def publish(self, receipt: dict[str, Any]) -> None:
        """Declare the artifact done, then drop what only an unfinished stage needs."""
        storage.write_json(storage.join(self.path, self.receipt_name), receipt)
        self.clean()

    def clean(self) -> None:
        """Remove scratch and what killed writers left behind."""
        if storage.is_local(self.path):
            shutil.rmtree(Path(self.path) / "scratch", ignore_errors=True)
            storage.remove_temporaries(self.path)
