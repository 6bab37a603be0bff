"""Evaluation sets that need nothing but the install (`mnist`: one more package): name -> what writes one into a folder.

Writers are deterministic: a set's bytes are the same on every machine with the same libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial


def _write_digits(name: str, folder: str) -> None:
    from . import digit_sets

    getattr(digit_sets, f"write_{name}")(folder)


def _write_mnist(folder: str) -> None:
    from .mnist import write_mnist

    write_mnist(folder)


_DIGITS = (
    "digits",
    "digits_retrieval",
    "digits_pairs",
    "digits_multilabel",
    "digits_shift",
    "digits_groups",
    "digits_count",
    "digits_position",
    "digits_languages",
    "digits_association",
)

BUILTIN: dict[str, Callable[[str], None]] = {name: partial(_write_digits, name) for name in _DIGITS}
BUILTIN["mnist"] = _write_mnist
