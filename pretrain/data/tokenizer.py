"""Captions -> token ids.

open_clip's own tokenizer serves every model but the tiny ones, which declare one of two that need no file and that a
text tower of two layers can learn in minutes on a CPU:

* ``words``: a word is a token, its id a hash of it (the hashing trick: Weinberger et al., ICML 2009). Captions are some
  ten tokens long, so the text tower costs little and has little to find out. The price: rare words may share an id,
  and spelling is not seen.
* ``bytes``: UTF-8 bytes. Nothing is lost, every language is covered, the vocabulary is 258; but captions are four times
  longer, and it takes more samples until words are told apart.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ...errors import ConfigError

BYTES_VOCABULARY = 258
# Scripts without spaces between words (Thai to Lao, Khmer, kana, ideographs): there a character is a word.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class Tokenizer(Protocol):
    """Texts -> ``(n, context_length) int64``, padded behind the end mark and cut so that the end mark stays."""

    context_length: int

    def __call__(self, texts: Sequence[str]) -> np.ndarray: ...


class ByteTokenizer:
    """UTF-8 bytes; a cut may fall inside a character."""

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        room = self.context_length - 2
        # Characters are cut first, so that a hostile, megabyte-long caption costs no more than any other.
        bodies = [text[:room].encode("utf-8", "replace")[:room] for text in texts]
        ids = np.frombuffer(b"".join(bodies), np.uint8)
        return _framed(ids, list(map(len, bodies)), self.context_length, BYTES_VOCABULARY)


class WordTokenizer:
    """Lower-case words; ids are hashes in 1 to ``vocab_size - 3``. Punctuation is left out."""

    def __init__(self, context_length: int, vocab_size: int) -> None:
        self.context_length, self.vocab_size = context_length, vocab_size

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        room, buckets = self.context_length - 2, self.vocab_size - 3
        ids: list[int] = []
        lengths: list[int] = []
        for text in texts:
            words = _WORD.findall(text[: 64 * room].lower())[:room]  # 64: no need to read a hostile caption to its end
            ids += [1 + zlib.crc32(word.encode("utf-8", "replace")) % buckets for word in words]
            lengths.append(len(words))
        return _framed(np.array(ids, np.int64), lengths, self.context_length, self.vocab_size)


def _framed(ids: np.ndarray, lengths: list[int], context_length: int, vocab_size: int) -> np.ndarray:
    """Rows of the given lengths between a start mark (``vocab_size - 2``) and an end mark (``vocab_size - 1``, the
    largest id, so that open_clip's "argmax" pooling finds it); 0 pads."""
    n, length = len(lengths), np.array(lengths, np.int64)
    tokens = np.zeros((n, context_length), np.int64)
    column = np.arange(context_length)
    tokens[(column >= 1) & (column <= length[:, None])] = ids
    tokens[:, 0] = vocab_size - 2
    tokens[np.arange(n), length + 1] = vocab_size - 1
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
        name: ``words``; ``bytes``; ``clip``, the BPE vocabulary that ships with open_clip; or ``open_clip:MODEL``,
            whatever open_clip uses for that model.
        text_cfg: the text part of the model's config.

    Raises:
        ConfigError: no such tokenizer, or its files are not on this machine.
    """
    context_length = int(text_cfg.get("context_length", 77))
    if name in ("bytes", "words"):
        vocab_size = int(text_cfg.get("vocab_size", 0))
        if context_length < 3:
            raise ConfigError(f"text_cfg.context_length is {context_length}; the tokenizer {name!r} needs at least 3")
        if name == "words":
            if vocab_size < 16:
                raise ConfigError(f"text_cfg.vocab_size is {vocab_size}; the tokenizer 'words' needs at least 16")
            return WordTokenizer(context_length, vocab_size)
        if vocab_size != BYTES_VOCABULARY:
            raise ConfigError(f"text_cfg.vocab_size is {vocab_size}; the tokenizer 'bytes' needs {BYTES_VOCABULARY}")
        return ByteTokenizer(context_length)
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
