"""Which suite measures which set, and whether all that they need is there: known before a model is loaded.

Nothing is skipped in silence: a suite that no set is for, a set that no suite is for, a missing split are errors, so
that a leaderboard cannot be partial without anybody noticing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from ..shards.evalsets.base import EvalSet, EvalSplit
from ..shards.evalsets.open import open_evalset
from .suites import Suite
from .suites.questions import has_questions

NAME_BYTES = 128  # of a set; with a suite's name it must fit into a file's, whose limit is 255


@dataclass(frozen=True)
class OpenSet:
    """A set with what is asked of it.

    Attributes:
        suites: those that measure it, in the config's order.
        splits: the splits that they need, by name.
    """

    evalset: EvalSet
    suites: list[Suite]
    splits: dict[str, EvalSplit]

    @property
    def name(self) -> str:
        """Name of the set."""
        return self.evalset.name


def open_sets(places: Sequence[str | EvalSet], suites: Sequence[Suite]) -> list[OpenSet]:
    """Open every set with the splits that its suites need.

    Args:
        places: folders, or sets that are open.

    Raises:
        ConfigError: no set, no suite, two of the same name, a set or a suite that would measure nothing.
        DataError: what is missing or broken, and where.
    """
    found = []
    for place in places:
        evalset = open_evalset(place) if isinstance(place, str) else place
        mine = [suite for suite in suites if suite.measures(evalset)]
        wanted = dict.fromkeys(split for suite in mine for split in suite.splits_of(evalset))
        found.append(OpenSet(evalset, mine, {name: evalset.split(name) for name in wanted}))
        for suite in mine:
            suite.templates_for(evalset)
    _require_distinct("suite", [suite.label for suite in suites], "give one of them a `name`")
    for one in found:
        _require_file_name(one)
    files = [one.name.replace("/", "-") for one in found]  # of their outcomes
    _require_distinct("evaluation set", files, "rename one of the folders, or give it a `name`")
    for one in found:
        if not one.suites and has_questions(one.evalset):
            raise ConfigError(
                f"no suite measures {one.evalset.folder}, whose classes are answers to several questions; add "
                "`fairness` to `eval.suites`, or leave the set out"
            )
        if not one.suites:
            raise ConfigError(
                f"no suite measures {one.evalset.folder}, a {one.evalset.kind} set; add one that does, or "
                "leave the set out"
            )
    for suite in suites:
        if not any(suite in one.suites for one in found):
            names = ", ".join(f"{one.name} ({_kind(one.evalset)})" for one in found)
            raise ConfigError(
                f"the suite {suite.label!r} measures {' and '.join(suite.kinds)} sets"
                f"{f' called {list(suite.sets)}' if suite.sets else ''}, and none of the sets is one: {names}"
            )
        suite.check_sets([one.evalset for one in found if suite in one.suites])
    for one in found:
        for suite in one.suites:
            suite.check_splits(one.evalset, {name: one.splits[name] for name in suite.splits_of(one.evalset)})
    return found


def _kind(evalset: EvalSet) -> str:
    return f"{evalset.kind} by several questions, for `fairness`" if has_questions(evalset) else evalset.kind


def _require_file_name(one: OpenSet) -> None:
    """Raise ConfigError for a name that outcome files could not be called by."""
    name = one.name
    if not name.strip() or not name.isprintable() or len(name.encode("utf-8", "surrogateescape")) > NAME_BYTES:
        raise ConfigError(
            f"{one.evalset.folder!r}: results cannot be called {name[:40]!r}; give the set a `name` of at most "
            f"{NAME_BYTES} bytes, without line breaks and control characters"
        )


def _require_distinct(what: str, names: Sequence[str], remedy: str) -> None:
    if not names:
        raise ConfigError(f"there is no {what} to evaluate with")
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise ConfigError(f"two {what}s are called {twice!r}; {remedy}")
