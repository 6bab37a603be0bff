import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError
from curate.pretrain.data.view import View
from curate.pretrain.optim.schedule_options import Constant, Cosine
from curate.pretrain.phases import Phase, plan_phases

SIZE = (224, 224)


def test_a_plan_worked_by_hand():
    phases = [
        Phase(share=0.6, image_size=112, patch_keep=0.5, text_length=16, crop_scale=(0.5, 1.0)),
        Phase(share=0.3, text_length=20, text_cut="block", batch_size=50),
        Phase(share=0.1),
    ]
    plan = plan_phases(phases, 1030, 100, SIZE, 77)
    assert [(s.start, s.stop, s.first, s.last) for s in plan.spans] == [
        (0, 6, 0, 600),
        (6, 13, 600, 950),
        (13, 14, 950, 1030),
    ]
    assert (plan.steps, plan.samples_seen) == (14, 1030)
    assert [plan.batch_size(step) for step in (0, 5, 6, 12, 13)] == [100, 100, 50, 50, 80]
    assert plan.view(5) == View((112, 112), (0.5, 1.0), 16)
    assert plan.view(6) == View(SIZE, (0.9, 1.0), None)  # cut later, from whole captions
    assert (plan.span(6).text_length, plan.span(6).text_cut) == (20, "block")
    assert [plan.span(step).patch_keep for step in (0, 6)] == [0.5, 1.0]


def test_no_phases_are_one_that_changes_nothing():
    plan = plan_phases([], 1001, 100, SIZE)
    assert (plan.steps, plan.batch_size(9), plan.batch_size(10)) == (11, 100, 1)
    assert plan.view(10) == View(SIZE)


@given(
    st.lists(st.tuples(st.integers(1, 20), st.none() | st.integers(1, 64)), min_size=1, max_size=5),
    st.integers(1, 5000),
    st.integers(1, 64),
)
def test_every_sample_belongs_to_one_step(parts, samples, batch_size):
    total = sum(part for part, _ in parts)
    try:
        plan = plan_phases([Phase(share=p / total, batch_size=b) for p, b in parts], samples, batch_size, SIZE)
    except ConfigError as error:
        assume("no step" not in str(error))
        raise
    sizes = [plan.batch_size(step) for step in range(plan.steps)]
    assert sum(sizes) == samples
    assert [plan.samples_before(i) for i in range(plan.steps + 1)] == [sum(sizes[:i]) for i in range(plan.steps + 1)]
    for step, size in enumerate(sizes):
        span = plan.span(step)
        assert span.start <= step < span.stop
        assert 1 <= size <= span.batch_size
        assert size == span.batch_size or step == plan.steps - 1
    reached = 0.0
    for span, (part, _) in zip(plan.spans, parts, strict=True):  # borders lie within a batch of where shares put them
        reached += part / total * samples
        assert abs(span.last - reached) <= max(span.batch_size, 1)


def test_rates_follow_phases():
    phases = [Phase(share=0.5), Phase(share=0.25, lr=0.1), Phase(share=0.25, restart=True)]
    plan = plan_phases(phases, 800, 100, SIZE)
    assert [plan.clock(step) for step in (0, 5, 6, 7)] == [(0, 6), (5, 6), (0, 2), (1, 2)]
    assert [plan.rate(step, Constant(), 2.0, 0) for step in range(8)] == pytest.approx([2] * 4 + [0.2] * 2 + [2] * 2)
    assert [plan.rate(step, Cosine(), 1.0, 0.5) for step in (6, 7)] == [1.0, 1.0]  # a warm-up of one step of two
    one = plan_phases([], 800, 100, SIZE)
    assert [one.rate(step, Cosine(), 1.0, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_errors_name_the_phase():
    with pytest.raises(ConfigError, match=r"add up to 0\.9"):
        plan_phases([Phase(share=0.5), Phase(share=0.4)], 100, 10, SIZE)
    with pytest.raises(ConfigError, match="phase 2 gets no step"):
        plan_phases([Phase(share=0.5), Phase(share=0.1), Phase(share=0.4)], 16, 8, SIZE)
    with pytest.raises(ConfigError, match="phase 1 has captions of 80 tokens; the model takes 77"):
        plan_phases([Phase(share=1, text_length=80)], 16, 8, SIZE, 77)
    with pytest.raises(ValidationError, match="is more than most"):
        Phase(share=1, crop_scale=(0.9, 0.5))
