"""Prompts as vectors of an encoder's space: ensembles, zero-shot class weights, the logit scale.

Everything here that touches an encoder is a module-level function for `Context.call`: it runs on a worker, never on the
driver. An ensemble is the normalised mean of its normalised prompts (Radford et al., ICML 2021, section 3.1.4), the
same definition as the zero-shot classifiers of the evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError, DataError
from ..shards import storage
from .base import LoadEncoder

PLACEHOLDER = re.compile(r"\{c?\}")
PROMPTS = 4096  # encoded at a time


def logit_scale(loader: LoadEncoder) -> float:
    """Factor on cosines that the encoder was trained with.

    Raises:
        DataError: it has none that can be used.
    """
    scale = float(loader.load().logit_scale)
    if not (np.isfinite(scale) and scale > 0):
        raise DataError(f"the encoder's logit scale is {scale}; set the temperature by hand")
    return scale


def expand(template: str, name: str) -> str:
    """The template with `name` in place of every ``{c}`` or ``{}``."""
    return PLACEHOLDER.sub(lambda _: name, template)


def read_lines(path: str, what: str) -> list[str]:
    """Stripped lines of a text file.

    Raises:
        ConfigError: the file is missing or empty, or a line between others is blank.
    """
    if not storage.exists(path):
        raise ConfigError(f"{what}: {path} is not there")
    text = storage.read_bytes(path).decode().rstrip()
    lines = [line.strip() for line in text.split("\n")] if text else []
    if not lines:
        raise ConfigError(f"{what}: {path} is empty")
    if "" in lines:
        raise ConfigError(f"{what}: line {lines.index('') + 1} of {path} is blank")
    return lines


def ensembles(loader: LoadEncoder, groups: Sequence[Sequence[str]]) -> np.ndarray:
    """One vector per group of prompts, ``(groups, d) float32`` unit rows: the normalised mean.

    Raises:
        DataError: a prompt's embedding is not a number, or the prompts of a group cancel out.
    """
    encoder = loader.load()
    vectors: list[np.ndarray] = []
    start = 0
    while start < len(groups):
        stop, count = start + 1, len(groups[start])
        while stop < len(groups) and count + len(groups[stop]) <= PROMPTS:
            count += len(groups[stop])
            stop += 1
        found = encoder.encode_texts([prompt for group in groups[start:stop] for prompt in group])
        ends = np.cumsum([len(group) for group in groups[start:stop]])
        for group, rows in zip(groups[start:stop], np.split(found, ends[:-1]), strict=True):
            vectors.append(_ensemble(group, rows))
        start = stop
    return np.stack(vectors).astype(np.float32)


def _ensemble(group: Sequence[str], rows: np.ndarray) -> np.ndarray:
    if not np.isfinite(rows).all():
        bad = group[int(np.argmin(np.isfinite(rows).all(axis=1)))]
        raise DataError(f"the encoder's embedding of the prompt {bad!r} is not a number")
    mean = rows.astype(np.float64).mean(axis=0)
    norm = np.linalg.norm(mean)
    if not norm:
        raise DataError(f"the prompts {group[0]!r}... cancel out; the text tower is broken")
    return mean / norm


def softmax(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Softmax along the last axis, and its entropy in nats, of ``(n, k) float64``; overwrites `logits`."""
    logits -= logits.max(axis=1, keepdims=True)
    powers = np.exp(logits)
    total = powers.sum(axis=1)
    powers /= total[:, None]
    logits *= powers
    return powers, np.maximum(np.log(total) - logits.sum(axis=1), 0)
