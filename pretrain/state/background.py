"""One thread that writes files while training goes on, and the copies that it writes from.

A save costs the step only the copy into CPU memory. At most one write is under way: the next waits for it, so there is
never more than one copy (its price: once more the size of the state), and its buffers are used again. Nothing that goes
wrong in the thread is lost: it is raised where the next write begins, or at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


class BackgroundWriter:
    """Runs one job at a time beside the caller; a context that ends when the last job has."""

    def __init__(self, threaded: bool = True) -> None:
        """
        Args:
            threaded: False = jobs run at once, in the caller's thread.
        """
        self._threaded = threaded
        self._pool: ThreadPoolExecutor | None = None
        self._job: Future[None] | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` when the one before has ended; raises what that one raised."""
        self.wait()
        if not self._threaded:
            job()
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "curate-checkpoint")
        self._job = self._pool.submit(job)

    def wait(self) -> None:
        """Until nothing is being written; raises what the last job raised."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        """`wait`, and end the thread."""
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        try:
            self.close()
        except Exception as late:
            if error is None:
                raise
            error.add_note(f"besides, a file could not be written: {late}")


class Copies:
    """Tensors copied into CPU memory that is allocated once (page-locked for a GPU's, which is what makes it fast)."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], torch.Tensor] = {}

    def take(self, value: Any, place: tuple[Any, ...] = ()) -> Any:
        """A tree of dictionaries and lists with all tensors copied; they hold until `take` is called again."""
        taken = self._take(value, place)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()  # copies into page-locked memory are only begun by `copy_`
        return taken

    def _take(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, Mapping):
            return {name: self._take(item, (*place, name)) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._take(item, (*place, i)) for i, item in enumerate(value)]
        if not torch.is_tensor(value):
            return value
        tensor = value.detach()
        buffer = self._buffers.get(place)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            pinned = tensor.device.type == "cuda"
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=pinned)
            self._buffers[place] = buffer
        buffer.copy_(tensor, non_blocking=True)
        return buffer
