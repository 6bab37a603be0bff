"""Stopping a training cleanly: somebody asks, the training saves its state, and `Stopped` says how far it got.

A training is asked to stop by SIGTERM (a node that is taken away, a driver's Ctrl-C) or by a function that it polls (a
file on shared storage, say). Between two steps the trainer asks `StopRequest.requested()`; when that is true it saves
and raises `Stopped`, and whoever runs it again goes on from there, to the same weights.

Processes that train together must stop after the same step, or some would wait for ever for the others' gradients. So
what one of them knows is exchanged at every step: one number over gloo, sent after a step and read after the next, so
nobody waits for it. The price is that a group stops one step later than asked.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from ..errors import Interrupted

POLL_EVERY_S = 0.5  # asking may mean to look at a file on a network disk


class Stopped(Interrupted):
    """A training stopped because it was asked to, after it had saved its state. Not a failure.

    Attributes:
        done, total: samples seen so far, and to be seen.
    """

    def __init__(self, done: int, total: int) -> None:
        super().__init__(done, total)  # both survive pickling
        self.done, self.total = done, total

    def __str__(self) -> str:
        return f"stopped after {self.done:,} of {self.total:,} samples; run again to go on"


class StopRequest:
    """Whether this training is asked to stop. Use it around the training (``with``); SIGTERM is taken meanwhile.

    A handler can only be set in the main thread; elsewhere the function alone decides.

    Args:
        poll: asked at most every `POLL_EVERY_S` seconds whether to stop; None = only SIGTERM asks.
        together: all processes of the default process group train one model; every one of them must call `requested`
            equally often, and gets the same answers.
    """

    def __init__(self, poll: Callable[[], bool] | None = None, together: bool = False) -> None:
        self._poll, self._together = poll, together
        self._asked = False
        self._polled = float("-inf")
        self._before: Any = None
        self._handles = False
        self._group: Any = None
        self._exchange: tuple[Any, Any] | None = None  # what is under way, and the tensor that it fills

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._take)
            self._handles = True
        if self._together:
            import torch.distributed

            self._group = torch.distributed.new_group(backend="gloo")  # its own, so that no other message is overtaken
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._handles:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)
            self._handles = False
        if self._exchange is not None and (kind is None or issubclass(kind, Stopped)):
            self._exchange[0].wait()  # the others have sent theirs, too; after a failure they may not have
        self._exchange = None

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def ask(self) -> None:
        """Ask from within this process."""
        self._asked = True

    def requested(self) -> bool:
        """Whether to save and stop now; call it after every step. Once true, it stays true."""
        if not self._asked and self._poll is not None and time.monotonic() - self._polled >= POLL_EVERY_S:
            self._polled = time.monotonic()
            self._asked = self._poll()
        if not self._together:
            return self._asked
        return self._agreed()

    def _agreed(self) -> bool:
        """Whether somebody had asked by the last call; sends this process's word for the next one."""
        import torch
        import torch.distributed

        agreed = False
        if self._exchange is not None:
            under_way, answer = self._exchange
            under_way.wait()
            agreed = bool(answer.item())
        word = torch.tensor([int(self._asked or agreed)], dtype=torch.int32)
        largest = torch.distributed.ReduceOp.MAX
        under_way = torch.distributed.all_reduce(word, op=largest, group=self._group, async_op=True)
        self._exchange = (under_way, word)
        return agreed
