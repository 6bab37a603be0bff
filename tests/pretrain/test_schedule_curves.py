import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip_train import scheduler
from pydantic import TypeAdapter, ValidationError

from curate.pretrain.optim import schedule_options as curves
from curate.pretrain.optim.schedule import learning_rate, rate, warmup_steps

ALL = [
    curves.Cosine(floor=0.1),
    curves.Linear(),
    curves.Constant(),
    *(curves.Cooldown(length=0.3, shape=s) for s in ("linear", "sqrt", "square", "1-sqrt", "cosine")),
    curves.Infinite(settle=0.3, anneal=0.2),
    curves.WarmRestarts(cycles=3, growth=2.0, decay=0.7, floor=0.05),
    curves.WarmRestarts(lengths=(7, 20)),
]


def whole(schedule, steps, peak=1.0, warmup=0):
    return [rate(schedule, step, steps, peak, warmup) for step in range(steps)]


def open_clips(make, steps, *args):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    adjust = make(optimizer, *args)
    return [adjust(step) for step in range(steps)]


@pytest.mark.parametrize(
    ("steps", "warmup", "peak"), [(100, 10, 5e-4), (3125, 500, 5e-4), (125, 500, 1e-4), (50, 0, 1e-3)]
)
def test_rates_are_open_clips_to_the_bit(steps, warmup, peak):
    cosine = open_clips(scheduler.cosine_lr, steps, peak, warmup, steps)
    assert whole(curves.Cosine(), steps, peak, warmup) == cosine
    assert [learning_rate(step, steps, peak, warmup) for step in range(steps)] == cosine
    assert whole(curves.Constant(), steps, peak, warmup) == open_clips(scheduler.const_lr, steps, peak, warmup, steps)
    for shape, power in (("linear", 1.0), ("sqrt", 0.5), ("square", 2.0)):
        for floor in (0.0, 0.1):
            theirs = open_clips(scheduler.const_lr_cooldown, steps, peak, warmup, steps, 20, power, floor * peak)
            assert whole(curves.Cooldown(length=20, shape=shape, floor=floor), steps, peak, warmup) == theirs


def test_points_worked_by_hand():
    assert whole(curves.Linear(floor=0.5), 4, 2.0) == [2.0, 1.75, 1.5, 1.25]
    assert whole(curves.Cooldown(length=4), 8)[4:] == pytest.approx([1, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)])
    infinite = whole(curves.Infinite(settle=4, constant=0.5, anneal=2, floor=0.05), 12, 2.0, 2)
    half = math.sqrt(0.5)
    assert infinite == pytest.approx([1, 2, 2, 1.5 + half / 2, 1.5, 1.5 - half / 2, 1, 1, 1, 1, 1, 1 * math.sqrt(0.1)])
    restarts = whole(curves.WarmRestarts(cycles=2, growth=3.0, decay=0.5), 8)  # cycles of 2 and 6 steps
    assert restarts == pytest.approx([1, 0.5] + [0.25 * (1 + math.cos(math.pi * i / 6)) for i in range(6)])
    assert whole(curves.WarmRestarts(lengths=(1, 2)), 7) == pytest.approx([1, 1, 0.5, 1, 0.5, 1, 0.5])


@settings(deadline=None)
@given(st.sampled_from(ALL), st.integers(1, 400), st.integers(0, 500), st.floats(1e-6, 10))
def test_rates_stay_between_zero_and_the_peak(schedule, steps, warmup, peak):
    rates = whole(schedule, steps, peak, warmup)
    assert all(0 <= r <= peak * (1 + 1e-12) for r in rates)
    risen = rates[:warmup]
    assert risen == sorted(risen)
    assert rates[warmup : warmup + 1] in ([], [pytest.approx(peak)]) or isinstance(
        schedule, curves.Infinite | curves.Cooldown
    )


@pytest.mark.parametrize("schedule", [s for s in ALL if not isinstance(s, curves.WarmRestarts)])
def test_all_but_restarts_never_rise_after_the_warmup(schedule):
    rates = whole(schedule, 200, 1.0, 15)[15:]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rates))


@pytest.mark.parametrize(
    "schedule", [curves.Constant(), curves.Infinite(settle=30, anneal=0), curves.WarmRestarts(lengths=(20, 40))]
)
def test_open_ended_curves_do_not_know_how_long_the_run_is(schedule):
    assert whole(schedule, 300, 1.0, 10)[:100] == whole(schedule, 100, 1.0, 10)


def test_lengths_are_steps_or_a_share():
    assert warmup_steps(500, 100) == 500
    assert warmup_steps(0.02, 1000) == 20
    assert warmup_steps(0, 1000) == 0
    assert whole(curves.Cooldown(length=0.25), 8) == whole(curves.Cooldown(length=2), 8)


def test_a_schedule_is_named_or_described():
    option = TypeAdapter(curves.ScheduleOption)
    assert option.validate_python("infinite") == curves.Infinite()
    assert option.validate_python({"type": "cooldown", "length": 100}).length == 100
    for schedule in ALL:
        assert option.validate_python(option.dump_python(schedule, mode="json")) == schedule
    with pytest.raises(ValidationError, match="did you mean 'cosine'"):
        option.validate_python("cosin")
    with pytest.raises(ValidationError, match="above the constant"):
        option.validate_python({"type": "infinite", "constant": 0.1, "floor": 0.2})
