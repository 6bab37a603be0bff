"""A sweep as a real run would fill it: nested sizes and budgets of three strategies, with noise over seeds.

Not a test; the scaling section's tests load it.
"""

import numpy as np

from curate.eval.comparison.power_law import crossing, fit_laws
from curate.eval.report.data import Estimate, Metric
from curate.eval.report.scaling_data import (
    CurvePoint,
    FittedLaw,
    Scaling,
    ScalingCrossing,
    ScalingPanel,
    ScalingPoint,
    ScalingSeries,
)

HOSTILE = '"><script>window.pwned=1</script>'
SIZES = (0.0625, 0.125, 0.25, 0.5, 1.0)
TRUE = {"everything": (6.0, 0.33, 0.02, 9000), "curated": (1.1, 0.15, 0.0, 2600), HOSTILE: (0.55, 0.0, 0.0, 5200)}
METRICS = [Metric("acc1", "digits, zero-shot top-1", chance=0.1), Metric("lp_acc1", "digits, linear-probe top-1")]


def _series(name: str, axis: str, seeds: int, noise: np.random.Generator, sizes: tuple[float, ...]) -> tuple:
    a, b, c, rows = TRUE[name]
    points, raw = [], []
    for share in sizes:
        distinct = int(share * rows)
        seen = 25_600 if axis == "data" else int(25_600 * share)
        x = distinct if axis == "data" else seen
        errors = [float(np.clip(a * x**-b + c + 0.012 * noise.standard_normal(), 0, 1)) for _ in range(seeds)]
        half = 2.78 * float(np.std(errors, ddof=1)) / seeds**0.5 if seeds > 1 else None
        mean = float(np.mean(errors))
        low, high = (mean - half, mean + half) if half else (None, None)
        points.append(ScalingPoint(name, share, distinct, distinct, seen, Estimate(mean, low, high, errors)))
        raw.append((x, errors))
    fits = fit_laws(raw, draws=300)
    if fits.best is None:
        return ScalingSeries(name, "", points, note=fits.why_not), fits
    over = np.geomspace(fits.best.low, 10 * fits.best.high, 25).tolist()
    curve = [CurvePoint(p.x, p.error, p.low, p.high) for p in fits.predict([*over, 2 * over[-1] / 10, over[-1]])]
    laws = [
        FittedLaw(
            law.kind,
            law.a,
            Estimate(law.b, law.b95.low, law.b95.high),
            Estimate(law.c, law.c95.low, law.c95.high) if law.kind == "floor" else None,
            law.left_out,
            not fits.ruled_out(law),
        )
        for law in fits.laws
    ]
    falls = next((law.exponent.low or 0.0) > 0 for law in laws if law.kind == "power")
    return ScalingSeries(name, "", points, laws, curve[:25], curve[25:], falls), fits


def make_scaling(seeds: int = 3, sizes: tuple[float, ...] = SIZES) -> Scaling:
    """Two metrics by data and by training."""
    noise = np.random.default_rng(5)
    panels = []
    for metric in METRICS:
        for axis in ("data", "budget"):
            made = [_series(name, axis, seeds, noise, sizes) for name in TRUE]
            crossings = []
            found = crossing(made[0][1], made[1][1], 500, 90_000)
            if found:
                b = found.bounds
                crossings.append(ScalingCrossing("curated", "everything", found.x, b.low, b.high, found.share, False))
            panels.append(ScalingPanel(metric, axis, [s for s, _ in made], crossings))
    return Scaling(panels, ["2 of 15 trainings see less than all of their data once; there more data cannot show."])
