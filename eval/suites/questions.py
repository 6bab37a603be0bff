"""Sets whose classes answer several questions at once (FairFace, UTKFace): told by the first word of each class.

Only `fairness` measures them: one argmax over ages, genders and insults together would be a number of nothing.
"""

from __future__ import annotations

from ...shards.evalsets.base import EvalSet

QUESTIONS = ("age", "gender", "race", "toxic")


def has_questions(evalset: EvalSet) -> bool:
    """Whether all classes of a set are answers to one of the questions."""
    return bool(evalset.classnames) and all(split_question(name)[0] is not None for name in evalset.classnames)


def split_question(line: str) -> tuple[str | None, str]:
    """The question that a class name or template is for, None if it names none, and the rest of it."""
    prefix, colon, rest = line.partition(":")
    return (prefix.strip(), rest.strip()) if colon and prefix.strip() in QUESTIONS else (None, line)
