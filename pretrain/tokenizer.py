"""Captions -> token ids.

open_clip's own tokenizer serves every model but those whose config declares ``"tokenizer": "bytes"``. For those the
vocabulary is the 256 bytes and two marks: small enough for a text tower that trains in seconds, no file to ship, every
language covered. The price is length: a caption is as many tokens as it has bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..errors import ConfigError

START, END = 256, 257  # END is the largest id, so open_clip's "argmax" pooling finds it
BYTES_VOCABULARY = 258


class Tokenizer(Protocol):
    """Texts -> ``(n, context_length) int64``, padded behind the end mark and cut so that the end mark stays."""

    context_length: int

    def __call__(self, texts: Sequence[str]) -> np.ndarray: ...


class ByteTokenizer:
    """UTF-8 bytes between a start and an end mark; 0 pads. A cut may fall inside a character."""

    def __init__(self, context_length: int) -> None:
        if context_length < 2:
            raise ConfigError(f"text_cfg.context_length is {context_length}; the byte tokenizer needs at least 2")
        self.context_length = context_length

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        room = self.context_length - 2
        # Cutting characters first bounds the work for a hostile, megabyte-long caption: a character is 1 byte at least.
        bodies = [text[:room].encode("utf-8", "replace")[:room] for text in texts]
        lengths = np.fromiter(map(len, bodies), np.int64, len(bodies))
        tokens = np.zeros((len(bodies), self.context_length), np.int64)
        column = np.arange(self.context_length)
        inside = (column >= 1) & (column <= lengths[:, None])
        tokens[inside] = np.frombuffer(b"".join(bodies), np.uint8)
        tokens[:, 0] = START
        tokens[np.arange(len(bodies)), lengths + 1] = END
        return tokens


class OpenClipTokenizer:
    """An open_clip tokenizer, giving numpy arrays."""

    def __init__(self, tokenizer: object, context_length: int) -> None:
        self._tokenizer = tokenizer
        self.context_length = context_length

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        if not texts:
            return np.zeros((0, self.context_length), np.int64)
        return self._tokenizer(list(texts), self.context_length).numpy()  # type: ignore[operator]


def tokenizer_for(name: str, text_cfg: dict) -> Tokenizer:
    """The tokenizer that a `models.ModelSpec` declares.

    Args:
        name: ``bytes``; ``clip``, the BPE vocabulary that ships with open_clip; or ``open_clip:MODEL``, whatever
            open_clip uses for that model.
        text_cfg: the text part of the model's config.

    Raises:
        ConfigError: no such tokenizer, or its files are not on this machine.
    """
    context_length = int(text_cfg.get("context_length", 77))
    if name == "bytes":
        if text_cfg.get("vocab_size") != BYTES_VOCABULARY:
            raise ConfigError(
                f"text_cfg.vocab_size is {text_cfg.get('vocab_size')}; the byte tokenizer needs {BYTES_VOCABULARY}"
            )
        return ByteTokenizer(context_length)
    if name != "clip" and not name.startswith("open_clip:"):
        raise ConfigError(f"unknown tokenizer {name!r}; known: bytes, clip, open_clip:MODEL")
    import open_clip

    if name == "clip":
        options = text_cfg.get("tokenizer_kwargs") or {}
        return OpenClipTokenizer(open_clip.SimpleTokenizer(context_length=context_length, **options), context_length)
    model = name.removeprefix("open_clip:")
    try:
        return OpenClipTokenizer(open_clip.get_tokenizer(model), context_length)
    except (ImportError, OSError) as error:  # transformers is not installed, or a hub would be asked
        raise ConfigError(f"the tokenizer of {model} is not on this machine: {error}") from error
