"""Several data sets in one training, each with its share of the positions: replay, or captions and labels in one run.

Which data set a position belongs to is a pure function of the position, spread as evenly as can be (Bresenham's line):
of any n consecutive positions each data set has its share to within one sample, or two with more than two data sets, so
every batch and every process's part of it are mixed alike. Each data set goes through its own order, epoch after epoch,
over the positions that are its own. Price: shares are rounded to a millionth.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from ...errors import ConfigError
from .. import streams
from .samples import Samples

_BITS = 20  # of a share; positions up to 2^43 fit 64 bits


class Mixture:
    """A data set made of several. See `samples.Samples`.

    Attributes:
        distinct: number of different samples in all of them.
        without_caption: selected rows that were left out of them, see `dataset.SubsetDataset`.
    """

    def __init__(self, members: Sequence[tuple[Samples, float]]) -> None:
        """
        Args:
            members: data sets and their shares, which need not sum to 1.

        Raises:
            ConfigError: a share is not positive, or two data sets have different classes.
        """
        if not members:
            raise ConfigError("a mixture of no data sets")
        for _, share in members:
            if not (share > 0 and math.isfinite(share)):
                raise ConfigError(f"the share {share} of a data set is not a positive number")
        self._members = [member for member, _ in members]
        # Each member is split from those after it, so its share is of what they have together.
        shares = [share for _, share in members]
        self._split = [max(1, round(share / sum(shares[k:]) * (1 << _BITS))) for k, share in enumerate(shares)]
        self._first = np.concatenate([[0], np.cumsum([len(member) for member in self._members])])
        self._first_source = np.concatenate([[0], np.cumsum([member.distinct for member in self._members])])
        self.distinct = int(self._first_source[-1])
        self.without_caption = sum(member.without_caption for member in self._members)
        labelled = [list(member.classes) for member in self._members if len(member.classes)]
        if any(classes != labelled[0] for classes in labelled):
            raise ConfigError("the data sets of a mixture number their classes differently; name the classes")
        self._classes: Sequence[str] = labelled[0] if labelled else ()

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes; empty without labels."""
        return self._classes

    def __len__(self) -> int:
        """Samples of all data sets, repeats included."""
        return int(self._first[-1])

    def identity(self) -> str:
        """32 hexadecimal characters over the data sets and their shares."""
        digest = hashlib.blake2b(digest_size=16)
        for member, split in zip(self._members, self._split, strict=True):
            digest.update(f"{member.identity()} {split}\n".encode())
        return digest.hexdigest()

    def place(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which data set has each of ``positions (b,)``, and the position there, ``(b,) int64`` each."""
        which = np.full(len(positions), len(self._members) - 1, np.int64)
        own = positions.astype(np.int64)
        for k, split in enumerate(self._split[:-1]):
            here = which == len(self._members) - 1
            before = own * split >> _BITS  # positions before this one that belong to member k
            taken = here & ((own + 1) * split >> _BITS > before)
            which[taken] = k
            own = np.where(taken, before, np.where(here, own - before, own))
        return which, own

    def order(self, seed: int, start: int, stop: int) -> np.ndarray:
        """Samples at positions ``start..stop-1`` of a training, ``(stop - start,) int64``."""
        which, own = self.place(np.arange(start, stop))
        found = np.empty(stop - start, np.int64)
        for k, member in enumerate(self._members):
            mine = np.flatnonzero(which == k)
            if len(mine):  # consecutive positions here are consecutive there
                first = int(own[mine[0]])
                samples = member.order(self._seed(seed, k), first, first + len(mine))
                found[mine] = samples + self._first[k]
        return found

    @staticmethod
    def _seed(seed: int, k: int) -> int:
        return streams.key(seed, "mixture", k) if k else seed

    def _find(self, i: int) -> tuple[int, int]:
        k = int(np.searchsorted(self._first, i, "right")) - 1
        return k, i - int(self._first[k])

    def substitute(self, i: int, word: int) -> int:
        """A sample of the same data set that may stand in for sample `i`."""
        k, inner = self._find(i)
        return self._members[k].substitute(inner, word) + int(self._first[k])

    def source(self, i: int) -> int:
        """Number of the distinct sample behind sample `i`."""
        k, inner = self._find(i)
        return self._members[k].source(inner) + int(self._first_source[k])

    def image(self, i: int) -> bytes:
        """The encoded image of sample `i`."""
        k, inner = self._find(i)
        return self._members[k].image(inner)

    def name(self, i: int) -> str:
        """``shard/key`` of sample `i`, for messages."""
        k, inner = self._find(i)
        return self._members[k].name(inner)

    def texts(self, samples: np.ndarray, seed: int, positions: np.ndarray) -> list[str | None]:
        """The caption of each sample at its position in the training; None = it has none."""
        found: list[str | None] = [None] * len(samples)
        which = np.searchsorted(self._first, samples, "right") - 1
        for k in np.unique(which).tolist():
            mine = np.flatnonzero(which == k)
            texts = self._members[k].texts(samples[mine] - self._first[k], self._seed(seed, k), positions[mine])
            for at, text in zip(mine.tolist(), texts, strict=True):
                found[at] = text
        return found

    def labels(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class numbers of ``samples (b,)``: rows ``(k,) int64`` ascending in 0..b-1, and ids ``(k,) int64``."""
        which = np.searchsorted(self._first, samples, "right") - 1
        rows, ids = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for k in np.unique(which).tolist():
            mine = np.flatnonzero(which == k)
            inner, found = self._members[k].labels(samples[mine] - self._first[k])
            rows.append(mine[inner])
            ids.append(found)
        all_rows, all_ids = np.concatenate(rows), np.concatenate(ids)
        by_row = np.argsort(all_rows, kind="stable")
        return all_rows[by_row], all_ids[by_row]
