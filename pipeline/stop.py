"""Asking the running parts of a stage to stop, wherever they run: a file in the artifact's scratch folder.

A part asks `StopSign.is_up` now and then, and the first time it does, it leaves a note that it will: the driver waits,
for a grace time, for parts that left one, and for no others. The name of the sign is one driver's own, so a sign that
a killed driver left behind stops nobody. Folders are listed rather than files looked for, because network disks
remember for a while that a file was not there, but look again when a folder is opened.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from ..shards import storage

FOLDER = ".stop"  # in the scratch folder of an artifact; no part has such a name
LOOK_EVERY_S = 0.5


def new_token() -> str:
    """A name for the signs of one driver."""
    return uuid.uuid4().hex[:12]


@dataclass(frozen=True)
class StopSign:
    """The sign of one driver for the parts of one artifact.

    Attributes:
        folder: where it is put; empty: there is none, and nobody is ever asked to stop.
        token: the driver's.
    """

    folder: str = ""
    token: str = ""
    _looked: list[float] = field(default_factory=list, repr=False, compare=False)  # when last; empty: never

    @classmethod
    def of(cls, artifact_path: str, token: str) -> StopSign:
        """The sign for the parts of the artifact at `artifact_path`."""
        return cls(storage.join(artifact_path, "scratch", FOLDER), token)

    def is_up(self, part: str) -> bool:
        """Whether `part`, which asks, is to save and stop. Looks at most every `LOOK_EVERY_S` seconds."""
        if not self.folder:
            return False
        now = time.monotonic()
        if not self._looked:
            storage.write_bytes(storage.join(self.folder, self._note(part)), b"")
        elif now - self._looked[0] < LOOK_EVERY_S:
            return False
        self._looked[:] = [now]
        return f"{self.token}.stop" in storage.list_names(self.folder)

    def put_up(self) -> None:
        """Ask all parts to stop."""
        storage.write_bytes(storage.join(self.folder, f"{self.token}.stop"), b"")

    def asking(self, parts: list[str]) -> set[str]:
        """Those of `parts` that have asked, and so will stop when they are told."""
        names = set(storage.list_names(self.folder))
        return {part for part in parts if self._note(part) in names}

    def take_down(self) -> None:
        """Remove the sign and the notes of this driver's parts."""
        for name in storage.list_names(self.folder):
            if name.startswith(self.token):
                Path(self.folder, name).unlink(missing_ok=True)

    def _note(self, part: str) -> str:
        return f"{self.token}.{part}.asks"


NO_SIGN = StopSign()
