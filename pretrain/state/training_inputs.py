"""What the result of a training depends on: a digest for machines, and the same in words for people.

A state is only gone on from by the training that wrote it. When it is another's, the first thing a person wants to know
is which option changed; so the state keeps all of them, readable, and a refusal names those that differ. No learning
rate is ever worked out anew from other options without a word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ...errors import DataError

TOLD = 6  # differences named in one sentence


class Inputs:
    """All that a training's result is a function of.

    Attributes:
        described: JSON object, nested as the options are.
        digest: 32 hexadecimal characters of it.
    """

    def __init__(self, described: Mapping[str, Any]) -> None:
        """
        Raises:
            ValueError, TypeError: there is something in it that is no JSON.
        """
        text = json.dumps(described, sort_keys=True, allow_nan=False)
        self.described: dict[str, Any] = json.loads(text)
        self.digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def refuse_others(self, described: Any, where: str) -> None:
        """
        Raises:
            DataError: the state in `where` is that of another training; names what changed.
        """
        changed = differences(described, self.described)
        if changed:
            told = "; ".join(changed[:TOLD]) + (f"; and {len(changed) - TOLD} more" if len(changed) > TOLD else "")
            raise DataError(
                f"the training state in {where} belongs to another training: {told}. "
                "Set it back to go on, or use another scratch folder (or remove this one) to start over"
            )


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What changed between two JSON values, a clause each, such as ``recipe.lr was 0.001 and is 0.0005``."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*before, *now}):
            inner = f"{name}.{key}" if name else str(key)
            if key not in now:
                found.append(f"{inner} was {_told(before[key])} and is not there any more")
            elif key not in before:
                found.append(f"{inner} is new ({_told(now[key])})")
            else:
                found += differences(before[key], now[key], inner)
        return found
    if json.dumps(before, sort_keys=True) == json.dumps(now, sort_keys=True):  # 1, 1.0 and true are three things
        return []
    return [f"{name or 'it'} was {_told(before)} and is {_told(now)}"]


def _told(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."
