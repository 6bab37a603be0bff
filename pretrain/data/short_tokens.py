"""Captions cut to fewer tokens than their tokenizer gives; those that are cut have the end mark in the last column."""

from __future__ import annotations

import numpy as np

from .tokenizer import Tokenizer


def end_mark(tokenizer: Tokenizer) -> int:
    """The token that ends a caption, found by looking: the last one before the padding, if it does not depend on the
    caption; otherwise the padding itself, which in SigLIP's tokenizers is the end mark."""
    rows = tokenizer(["a", "b"])
    last = [row[np.flatnonzero(row != row[-1]).max(initial=0)] for row in rows]
    return int(last[0] if last[0] == last[1] else rows[0, -1])


def cut_tokens(tokens: np.ndarray, length: int | None, end: int) -> np.ndarray:
    """``(n, context_length) int64 -> (n, length)``; a row whose end mark is cut off gets it as its last token.

    Args:
        length: None, or at least the context length = as they are.
        end: the end mark.
    """
    if length is None or length >= tokens.shape[1]:
        return tokens
    short = tokens[:, :length].copy()
    short[~(short == end).any(1), -1] = end
    return short
