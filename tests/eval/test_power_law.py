"""Power laws are recovered, their intervals hold what they should, and too little data is said to be too little."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.eval.comparison.power_law import Fits, Law, crossing, fit_laws

SIZES = [1000.0 * 2**i for i in range(6)]


def law_of(fits: Fits, kind: str) -> Law:
    return next(law for law in fits.laws if law.kind == kind)


def exact(function, sizes=SIZES) -> list[tuple[float, list[float]]]:
    return [(x, [function(x)]) for x in sizes]


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 1.2), st.floats(0.05, 0.9), st.sampled_from([1.0, 1e3, 1e9]))
def test_an_exact_power_law_is_found(b: float, at_first: float, unit: float) -> None:
    a = at_first * (SIZES[0] * unit) ** b
    points = exact(lambda x: a * x**-b, [x * unit for x in SIZES])
    best = fit_laws(points, draws=20).best
    assert best is not None
    assert best.kind == "power"
    assert best.b == pytest.approx(b, abs=1e-5)
    assert best.a == pytest.approx(a, rel=1e-3)
    assert best.left_out < 1e-6


@settings(max_examples=20, deadline=None)
@given(st.floats(0.3, 1.2), st.floats(0.2, 0.6), st.floats(0.05, 0.3))
def test_an_exact_floor_is_found(b: float, at_first: float, c: float) -> None:
    a = at_first * SIZES[0] ** b
    fits = fit_laws(exact(lambda x: a * x**-b + c), draws=20)
    assert fits.best is not None
    assert fits.best.kind == "floor"
    assert fits.best.b == pytest.approx(b, abs=1e-3)
    assert fits.best.c == pytest.approx(c, abs=1e-3)
    assert fits.predict([1e5])[0].error == pytest.approx(a * 1e5**-b + c, abs=1e-4)


def test_the_best_exponent_is_that_of_a_naive_search() -> None:
    noise = np.random.default_rng(1)
    e = np.array([0.9 * (x / 1000) ** -0.3 + 0.05 * noise.standard_normal() for x in SIZES])

    def squares(b: float, floor: bool) -> float:
        p = np.array(SIZES) ** -b
        columns = np.stack([p, np.ones(len(p))], 1) if floor else p[:, None]
        return float(((e - columns @ np.linalg.lstsq(columns, e, rcond=None)[0]) ** 2).sum())

    fits = fit_laws(list(zip(SIZES, [[v] for v in e], strict=True)), draws=20)
    for kind in ("power", "floor"):
        law = law_of(fits, kind)
        if kind == "floor" and law.c == 0:
            continue
        mine = squares(law.b, kind == "floor")
        assert mine <= min(squares(b, kind == "floor") for b in np.linspace(0.02, 4, 2000)) + 1e-9


def test_equal_steps_are_told_from_a_power_law() -> None:
    fits = fit_laws(exact(lambda x: 0.9 - 0.2 * math.log(x / 1000)), draws=200)
    assert fits.not_a_power_law
    assert fits.laws[0].kind != "log"  # it would go through 0
    assert law_of(fits, "log").b == pytest.approx(0.2)
    assert fits.predict([1e9])[0].low == 0.0
    assert not fit_laws(exact(lambda x: 5 * x**-0.3), draws=20).not_a_power_law


@pytest.mark.parametrize(("seeds", "sizes", "floor"), [(1, 5, 0.0), (3, 4, 0.0), (3, 5, 0.15)])
def test_predictions_at_ten_times_hold_the_truth_about_as_often_as_they_say(
    seeds: int, sizes: int, floor: float
) -> None:
    noise, hits, exponents = np.random.default_rng(seeds * 10 + sizes), 0, 0
    runs, x = 60, [1000.0 * 2**i for i in range(sizes)]
    for run in range(runs):
        points = [
            (v, [0.6 * (v / 1000) ** -0.4 + floor + 0.01 * noise.standard_normal() for _ in range(seeds)]) for v in x
        ]
        fits = fit_laws(points, seed=run, draws=200)
        told = fits.predict([10 * x[-1]])[0]
        truth = 0.6 * (10 * x[-1] / 1000) ** -0.4 + floor
        hits += told.low <= truth + 0.01 * noise.standard_normal(seeds).mean() <= told.high
        bounds = law_of(fits, "floor" if floor else "power").b95
        exponents += (bounds.low or 0) <= 0.4 <= (bounds.high or 9)
    assert hits >= 0.85 * runs
    assert exponents >= 0.85 * runs


def test_flat_errors_have_an_exponent_around_nothing_and_no_wild_prediction() -> None:
    noise = np.random.default_rng(3)
    points = [(x, list(0.4 + 0.01 * noise.standard_normal(3))) for x in SIZES]
    fits = fit_laws(points)
    bounds = law_of(fits, "power").b95
    assert bounds.low is not None
    assert bounds.high is not None
    assert bounds.low < 0 < bounds.high
    told = fits.predict([10 * SIZES[-1]])[0]
    assert 0.25 < told.low < 0.4 < told.high < 0.55


def test_errors_that_rise_or_jump_stay_within_the_possible() -> None:
    for errors in ([0.2, 0.3, 0.5, 0.7], [0.1, 0.9, 0.1, 0.9], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.9, 0.0]):
        fits = fit_laws(list(zip(SIZES, [[e] for e in errors], strict=False)))
        told = fits.predict([SIZES[0], 10 * SIZES[-1], 1e12])
        assert all(0 <= t.low <= t.error <= t.high <= 1 for t in told)
        assert all(math.isfinite(v) for law in fits.laws for v in (law.a, law.b, law.c, law.left_out))
    jumps = fit_laws([(x, [e]) for x, e in zip(SIZES, [0.1, 0.9, 0.1, 0.9], strict=False)]).predict([4e4])[0]
    assert jumps.high - jumps.low > 0.5


def test_noisier_seeds_and_fewer_sizes_give_wider_intervals() -> None:
    def width(spread: float, sizes: int) -> float:
        points = [(x, [2 * x**-0.2 + s * spread for s in (-1, 0, 1)]) for x in SIZES[:sizes]]
        told = fit_laws(points).predict([3e5])[0]
        return told.high - told.low

    assert width(0.002, 6) < width(0.02, 6)
    assert width(0.01, 6) < width(0.01, 4)


def test_points_weigh_by_the_spread_of_their_seeds() -> None:
    points = [(x, [2 * x**-0.3 + s * 0.001 for s in (-1, 1)] * 3) for x in SIZES]
    wild = [*points[:-1], (SIZES[-1], [0.5, 0.0, 0.45, 0.05, 0.3, 0.1])]
    plain = [(x, [float(np.mean(e))]) for x, e in wild]
    assert abs(law_of(fit_laws(wild), "power").b - 0.3) < abs(law_of(fit_laws(plain), "power").b - 0.3) / 2


def test_too_few_sizes_are_said_to_be_too_few() -> None:
    one = fit_laws([(1000, [0.5, 0.4])])
    assert one.best is None
    assert one.predict([10]) == []
    assert one.why_not == "1 size: a power law needs at least 3."
    assert fit_laws([(1000, [0.5]), (1000, [0.4]), (2000, [0.3])]).best is None  # two sizes, though three points
    three = fit_laws(exact(lambda x: x**-0.2, SIZES[:3]))
    assert {law.kind for law in three.laws} == {"power", "log"}
    assert "cannot show a floor" in three.why_not
    assert "floor" in {law.kind for law in fit_laws(exact(lambda x: x**-0.2, SIZES[:4])).laws}


def test_the_same_points_give_the_same_intervals_in_any_order() -> None:
    noise = np.random.default_rng(4)
    points = [(x, list(0.4 + 0.01 * noise.standard_normal(3))) for x in SIZES]
    first, again = fit_laws(points), fit_laws(points[::-1])
    assert first.predict([1e5]) == again.predict([1e5])
    assert fit_laws(points, seed=1).predict([1e5]) != first.predict([1e5])


def test_what_is_no_number_is_refused() -> None:
    for bad in [(0.0, [0.1]), (-5.0, [0.1]), (10.0, []), (10.0, [math.nan])]:
        with pytest.raises(ValueError, match="no law"):
            fit_laws([bad, (20.0, [0.1]), (30.0, [0.1])])


def test_where_curves_cross() -> None:
    noise = np.random.default_rng(6)

    def arm(a: float, b: float, spread: float) -> Fits:
        return fit_laws([(x, list(a * (x / 1000) ** -b + spread * noise.standard_normal(4))) for x in SIZES], draws=400)

    steep, flat = arm(0.8, 0.5, 0.002), arm(0.4, 0.1, 0.002)  # 2 = (x/1000)^0.4
    found = crossing(steep, flat, 1000, 300_000)
    assert found is not None
    assert found.x == pytest.approx(1000 * 2**2.5, rel=0.05)
    assert found.bounds.low is not None
    assert found.bounds.high is not None
    assert found.bounds.low < 1000 * 2**2.5 < found.bounds.high
    assert found.share > 0.99
    assert crossing(flat, steep, 1000, 300_000) == found
    assert crossing(steep, arm(0.9, 0.5, 0.002), 1000, 300_000) is None
    unsure = crossing(arm(0.4, 0.10, 0.03), arm(0.401, 0.101, 0.03), 1000, 300_000)
    assert unsure is None or unsure.share < 0.95
