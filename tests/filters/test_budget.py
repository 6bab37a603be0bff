"""`keep: auto`: kept samples as a function of what the training sees."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError
from curate.filters.budget import Budgeted, budget


class Auto(Budgeted):
    type: str = "auto_filter"
    keep: float | str = "auto"

    @property
    def wants_budget(self) -> bool:
        return self.keep == "auto"


@pytest.mark.parametrize(
    ("rows", "seen", "kept", "bound"),
    [
        (128_000_000, 128_000_000, 32_000_000, "none"),  # DataComp-medium: a quarter, each four times
        (128_000_000, 1_280_000_000, 128_000_000, "most"),  # long training: everything, ten times
        (1000, 10, 2, "none"),
        (1000, 3, 1, "least"),  # never an empty subset
        (0, 10, 0, "most"),
    ],
)
def test_worked_cases(rows, seen, kept, bound):
    found = budget(rows, seen)
    assert (found.kept, found.bound) == (kept, bound)


@given(
    st.integers(0, 10**9),
    st.integers(1, 10**11),
    st.floats(0.01, 100),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_more_training_never_keeps_less_and_bounds_hold(rows, seen, repeats, a, b):
    least, most = sorted((a, b))
    found, longer = (budget(rows, s, repeats, least, most) for s in (seen, 2 * seen))
    assert found.kept <= longer.kept
    assert min(rows, int(rows * least)) <= found.kept <= max(int(rows * most), min(1, rows))
    assert found.kept == int(seen / repeats) or found.bound != "none"
    assert 0 <= found.fraction <= 1
    facts = found.facts()
    json.dumps(facts, allow_nan=False)
    assert (facts["kept"], facts["samples_seen"], facts["bound"]) == (found.kept, seen, found.bound)


def test_the_budget_is_passed_on_once():
    assert Auto().with_budget(40).budget_of(100).kept == 10
    assert Auto(samples_seen=80).with_budget(40).budget_of(100).kept == 20
    assert Auto(keep=0.5).with_budget(40) == Auto(keep=0.5)
    assert Auto(repeats=2, most=0.15).with_budget(40).budget_of(100).facts() == {
        "rule": "samples_seen / repeats, clamped",
        "samples_seen": 40,
        "repeats": 2.0,
        "rows": 100,
        "kept": 15,
        "fraction": 0.15,
        "bound": "most",
        "views": 40 / 15,
    }
    with pytest.raises(ConfigError, match="auto_filter: `auto` needs a training"):
        Auto().budget_of(100)
    with pytest.raises(ValidationError, match="nothing lies between"):
        Auto(least=0.5, most=0.4)


@pytest.mark.parametrize("wrong", [(-1, 1), (1, 0), (1, 1, 0.0), (1, 1, 1.0, 0.5, 0.4), (1, 1, 1.0, 0.0, 2.0)])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="no budget"):
        budget(*wrong)
