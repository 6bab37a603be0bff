"""Which images of a batch are compared with which captions, and in which pieces.

The batch falls into `groups` runs of consecutive samples, as equal as possible; a pair counts if both are of the same
group (grouped aggregation: M2-Encoder, Guo et al., arXiv:2401.15896). Everything is a function of places in the whole
batch, so processes only decide who computes what: each its own images, against the captions of its images' groups. Of
the others' captions no more than that travels, and nothing at all where every group lies within one process.

A sample without a caption counts as if it were not there: its image is no row, and its caption's column is pushed so
far down that its exponential is exactly 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ...errors import ConfigError
from ..features import Features
from ..processes.world import Window, World, share


@dataclass(frozen=True)
class Piece:
    """A chunk of one process's images against the captions of their group.

    Attributes:
        rows: ``(n,) int64``, images, counted within this process's part.
        columns: captions, counted within this process's window.
        own: ``(n,) int64``, where among `columns` each image's own caption is.
    """

    rows: torch.Tensor
    columns: slice
    own: torch.Tensor


def windows(total: int, groups: int, world: World) -> list[Window]:
    """The captions that every process compares its images with: all groups that its share touches."""
    if groups == 1:
        return [(0, total)] * world.size  # also of processes without samples: a plain all-gather
    return [_window(part, total, groups) for part in world.shares(total)]


class Pairs:
    """What of a batch this process compares.

    Attributes:
        windows: see `windows`; `window` is this process's.
        alone: nothing that others have is needed.
        count: ``()``, pairs of the whole batch, 1 if there are none.
        columns: ``(w,)``, 0 for captions of the window that are there, else a number whose exponential is 0.
    """

    def __init__(self, features: Features, world: World, groups: int, chunk: int) -> None:
        self.total, self.world, self._groups, self._chunk = features.total, world, groups, chunk
        start, stop = self._share = world.share(features.total)
        if (features.first, features.first + len(features.image)) != self._share:
            raise ValueError(
                f"features of samples {features.first}..{features.first + len(features.image)}; "
                f"the share of process {world.rank} of {world.size} is {start}..{stop} of {features.total}"
            )
        self.windows = windows(features.total, groups, world)
        self.window = self.windows[world.rank]
        self.alone = self.windows == world.shares(features.total)
        like = in_float32(features.image.detach())
        self._captioned = features.captioned
        here = like.new_ones(len(like)) if self._captioned is None else self._captioned.to(like.dtype)
        self.count = world.sum(here.sum()).clamp(min=1)
        self.columns = self.collect((1 - here) * absent(like.dtype))

    def captions(self, text: torch.Tensor) -> torch.Tensor:
        """`text` with zeros for captions that are not there."""
        return present(text, self._captioned)

    def collect(self, local: torch.Tensor) -> torch.Tensor:
        """The window's rows of what every process has a share of."""
        return self.world.collect(local, self.total, self.windows)

    def give_back(self, seen: torch.Tensor) -> torch.Tensor:
        """Sum over processes of something for every row of their windows, of this process's samples."""
        return self.world.give_back(seen, self.total, self.windows)

    def pieces(self) -> Iterator[Piece]:
        """All comparisons of this process, at most `chunk` images at a time."""
        (start, stop), (left, _) = self._share, self.window
        rows = torch.arange(stop - start, device=self.columns.device)
        if self._captioned is not None:
            rows = rows[self._captioned]
        if start == stop:
            return
        for group in range(_group(start, self.total, self._groups), _group(stop - 1, self.total, self._groups) + 1):
            first, last = share(self.total, group, self._groups)
            low, high = max(first, start) - start, min(last, stop) - start
            # Comparing row numbers would wait for the device where all samples have captions and nothing has to.
            inside = rows[low:high] if self._captioned is None else rows[(rows >= low) & (rows < high)]
            for some in inside.split(self._chunk) if len(inside) else ():
                yield Piece(some, slice(first - left, last - left), some + (start - first))


def texts_of(features: Features) -> torch.Tensor:
    """Text features, or `ConfigError` where the model has none."""
    if features.text is None:
        raise ConfigError("a contrastive loss compares images with captions; this model has no text tower")
    return features.text


def present(text: torch.Tensor, captioned: torch.Tensor | None) -> torch.Tensor:
    """`text` ``(b, d)`` with zeros for captions that are not there, whatever their rows held."""
    return text if captioned is None else torch.where(captioned[:, None], text, 0)


def captioned(features: Features) -> torch.Tensor:
    """How many of this process's samples have a caption, ``() int64``."""
    if features.captioned is None:
        return torch.tensor(len(features.image), device=features.image.device)
    return features.captioned.sum()


def absent(dtype: torch.dtype) -> float:
    """A logit that stands for "not there": finite, so that differences of two are; its exponential is exactly 0."""
    return torch.finfo(dtype).min / 4


def in_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Losses are computed in float32 at least, whatever the towers' arithmetic."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _window(part: Window, total: int, groups: int) -> Window:
    start, stop = part
    if start == stop:
        return part
    return share(total, _group(start, total, groups), groups)[0], share(total, _group(stop - 1, total, groups), groups)[
        1
    ]


def _group(sample: int, total: int, groups: int) -> int:
    """The group of a sample of the batch: the last one that begins at it or before."""
    return ((sample + 1) * groups - 1) // total
