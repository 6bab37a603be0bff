"""Stage: one step of a run. Everything that a run does is one of these, and the runner knows nothing more.

A stage names its inputs (other stages), says what identifies its result (`identity`), and does its work in `run`,
almost always by `Work.map`: a function over parts that writes finished files and returns a small JSON value. Its
fingerprint is a hash of its kind, version, identity and its inputs' fingerprints; equal fingerprints mean equal
results, so an artifact made by any earlier run is used as it is.

Some stages *grow*: each of their parts depends on one shard alone. All pools share the folder of such a stage, where
parts are named by shard, so when a pool gets new shards only these are worked on; a receipt per fingerprint says for
which pools the folder is complete.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from ..shards import storage
from .artifact import RECEIPT, Artifact
from .calls import Resources
from .group import ALONE, Member
from .stop import NO_SIGN, StopSign

T = TypeVar("T")
TELL_EVERY_S = 0.5  # of a part's progress; each time costs 0.15 ms and a new file


def digest(value: Any) -> str:
    """16 hexadecimal characters that identify a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Task:
    """What a part function knows about itself; always its first argument.

    Attributes:
        part: name of the part.
        out: folder for finished files; publish into it atomically.
        scratch: this part's folder for resumable state.
        member: this process's place among those that do the part together; only member 0's result counts, and it
            alone writes what is written once.
    """

    part: str
    out: str
    scratch: str
    progress_file: str = ""
    sign: StopSign = NO_SIGN
    member: Member = ALONE
    _told: list[float] = field(default_factory=list, repr=False, compare=False)  # when, at most one entry

    def progress(self, done: int, total: int) -> None:
        """Tell the driver how far the part is; may be called for every row, and writes a file now and then."""
        now = time.monotonic()
        if self.progress_file and self.member.rank == 0 and not (self._told and now - self._told[0] < TELL_EVERY_S):
            self._told[:] = [now]
            storage.write_bytes(self.progress_file, f"{done} {total}".encode())

    def stopping(self) -> bool:
        """Whether the run is to stop: save the state in `scratch` and raise `pretrain.stopping.Stopped`.

        A part that has asked once is waited for when the run is stopped, for a grace time; so ask often, or never. It
        may be called for every row: it looks at most twice a second.
        """
        return self.sign.is_up(self.part)


@dataclass(frozen=True)
class Companion:
    """A stage that another one works for along with itself, where its files go, and its own inputs' artifacts."""

    stage: Stage
    artifact: Artifact
    inputs: Mapping[str, Artifact]


class Work(ABC):
    """What a running stage can do. The runner implements it over an engine."""

    artifact: Artifact
    inputs: Mapping[str, Artifact]
    companions: list[Companion]
    """Stages that this one can do along with its own work (`Stage.companions`), as far as they are not done yet."""

    @property
    def out(self) -> str:
        """Folder for finished files."""
        return self.artifact.data

    @abstractmethod
    def map(
        self, function: Callable[..., dict[str, Any]], parts: Mapping[str, tuple[Any, ...]], resources: Resources = ...
    ) -> dict[str, dict[str, Any]]:
        """``function(task, *arguments)`` for every part that has no receipt; results of all parts, in part order.

        With ``Resources(processes=N)`` N processes do each part together, see `group.py`: the function runs in all of
        them, with torch's default process group made, and ``task.member`` says which one it is in.

        Raises:
            CurateError: a part failed (after all others were given their chance); names the parts.
        """

    @abstractmethod
    def map_bundles(
        self,
        function: Callable[..., list[dict[str, Any]]],
        parts: Mapping[str, tuple[Any, ...]],
        weights: Mapping[str, int],
        most: int,
        resources: Resources = ...,
    ) -> dict[str, dict[str, Any]]:
        """`map`, where one call does several neighbouring parts: ``function(tasks, arguments)``, one result per task.

        For work whose cost is not in the parts but in starting (a model's batches that a small shard does not fill).
        What a part results in must not depend on its bundle.

        Args:
            weights: size of each part, say its rows.
            most: sum of weights in one bundle; bundles are smaller when there are workers without one.
        """

    @abstractmethod
    def gpus(self) -> int:
        """How many GPUs the workers can be given; 0 = none."""

    @abstractmethod
    def gather(self, function: Callable[..., T], arguments: list[tuple[Any, ...]]) -> list[T]:
        """``function(*arguments)`` for each tuple, without receipts: small results, cheap to repeat; in order."""


@dataclass(eq=False)
class Stage(ABC):
    """One step of the plan.

    Attributes:
        name: what people see, for example ``subset/curated/3-top_fraction``.
        inputs: stages whose artifacts `run` reads, by role.
        after: stages to wait for, done or failed; unlike inputs they are no part of what the result is.
        gates: likewise, but if one of them fails, this one is not run.
        companions: stages whose parts this one makes along with its own, because both read the same things.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    name: str
    inputs: dict[str, Stage] = field(default_factory=dict)
    after: list[Stage] = field(default_factory=list, kw_only=True)
    gates: list[Stage] = field(default_factory=list, kw_only=True)
    companions: list[Stage] = field(default_factory=list, kw_only=True)

    @property
    def grows(self) -> bool:
        """Whether each of its parts depends on one shard alone."""
        return False

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All options that the result depends on, as JSON."""

    @abstractmethod
    def run(self, work: Work) -> dict[str, Any]:
        """Do the work; returns the JSON summary that the artifact's receipt keeps."""

    def expected_parts(self, done: Mapping[str, Artifact]) -> int | None:
        """How many parts it will have, if that is known before it runs; `done` holds finished inputs by role."""
        return None

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the result: kind, version, options and the inputs' fingerprints."""
        return digest(
            {
                "kind": self.kind,
                "version": self.version,
                "identity": self.identity(),
                "inputs": {role: stage.fingerprint for role, stage in self.inputs.items()},
            }
        )

    def standing(self) -> dict[str, Any]:
        """Of a stage that grows: the part of `identity` that stays when the pool gets new shards."""
        return self.identity()

    @cached_property
    def store(self) -> str:
        """Identity of the artifact's folder: the fingerprint, or for stages that grow, what all pools share of it."""
        if not self.grows:
            return self.fingerprint
        inputs = {role: stage.store for role, stage in self.inputs.items() if role != "pool"}
        return digest({"kind": self.kind, "version": self.version, "standing": self.standing(), "inputs": inputs})

    @property
    def folder(self) -> str:
        """Name of the artifact's folder."""
        return f"{self.kind}-{self.store}"

    def artifact(self, root: str) -> Artifact:
        """Its artifact in the folder of all artifacts."""
        receipt = f"receipts/{self.fingerprint}.json" if self.grows else RECEIPT
        return Artifact(storage.join(root, self.folder), receipt)
