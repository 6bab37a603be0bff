"""Captions -> token ids.

open_clip's own tokenizer serves every model but those whose config declares ``"tokenizer": "bytes"`` or ``"words"``: two
vocabularies with no file to ship, small enough for a text tower that trains in seconds. Bytes cover everything, at the
price of length: a caption is as many tokens as it has bytes. Hashed words keep a caption as short as its words, at the
price of collisions: two words in ``vocab_size`` - 3 share an id by chance, and the model cannot tell them apart.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..errors import ConfigError

START, END = 256, 257  # END is the largest id, so open_clip's "argmax" pooling finds it
BYTES_VOCABULARY = 258
MAX_WORD_CHARACTERS = 64  # of a caption, so many characters per token are looked at; bounds work on hostile ones
_WORD = re.compile(r"\w+")


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


class WordTokenizer:
    """Lower-cased words, each the CRC-32 of its UTF-8 bytes modulo the vocabulary; 0 pads, the last two ids are marks."""

    def __init__(self, context_length: int, vocabulary: int) -> None:
        if context_length < 3 or vocabulary < 4:
            raise ConfigError(
                f"text_cfg: context_length {context_length} and vocab_size {vocabulary} are too small for words"
            )
        self.context_length, self.vocabulary = context_length, vocabulary

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        room = self.context_length - 2
        start, end = self.vocabulary - 2, self.vocabulary - 1
        tokens = np.zeros((len(texts), self.context_length), np.int64)
        for row, text in zip(tokens, texts, strict=True):
            words = _WORD.findall(text[: room * MAX_WORD_CHARACTERS].lower())[:room]
            row[: len(words) + 2] = [start, *(1 + zlib.crc32(_utf8(w)) % (start - 1) for w in words), end]
        return tokens


def _utf8(word: str) -> bytes:
    return word.encode("utf-8", "replace")


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
        name: ``bytes``; ``words``; ``clip``, the BPE vocabulary that ships with open_clip; or ``open_clip:MODEL``, whatever
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
    if name == "words":
        return WordTokenizer(context_length, int(text_cfg.get("vocab_size", 0)))
    if name != "clip" and not name.startswith("open_clip:"):
        raise ConfigError(f"unknown tokenizer {name!r}; known: bytes, words, clip, open_clip:MODEL")
    import open_clip

    if name == "clip":
        options = text_cfg.get("tokenizer_kwargs") or {}
        return OpenClipTokenizer(open_clip.SimpleTokenizer(context_length=context_length, **options), context_length)
    model = name.removeprefix("open_clip:")
    try:
        return OpenClipTokenizer(open_clip.get_tokenizer(model), context_length)
    except (ImportError, OSError) as error:  # transformers is not installed, or a hub would be asked
        raise ConfigError(f"the tokenizer of {model} is not on this machine: {error}") from error
