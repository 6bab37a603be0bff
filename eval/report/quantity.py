"""Numbers as people read them: 12,345 · 91.2 % · +12.8 points · 4 min 32 s · 1.2 MB."""

from __future__ import annotations

import math

from .data import Estimate, Metric

NARROW = "\u202f"  # narrow no-break space, between a number and its unit
MINUS = "\u2212"
NONE = "–"


def count(n: int | None) -> str:
    """12,345."""
    return NONE if n is None else f"{n:,}".replace("-", MINUS)


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.912 -> 91.2 %."""
    if fraction is None or not math.isfinite(fraction):
        return NONE
    return f"{100 * fraction:.{digits}f}{NARROW}%".replace("-", MINUS)


def share(part: int, whole: int) -> str:
    """A part of a whole in percent; small ones that are not nothing do not round to 0."""
    if not whole:
        return NONE
    fraction = part / whole
    return f"<{NARROW}0.1{NARROW}%" if 0 < fraction < 0.001 else percent(fraction)


def value(x: float | None) -> str:
    """A score, to four significant digits."""
    if x is None or not math.isfinite(x):
        return NONE
    text = f"{x:,.0f}" if 1e4 <= abs(x) < 1e15 else f"{x:.4g}"
    return text.replace("-", MINUS)


def reading(x: float | None, metric: Metric) -> str:
    """A metric's value in its unit."""
    return percent(x) if metric.unit == "percent" else value(x)


def change(x: float, metric: Metric, unit: bool = True, round_off: bool = False) -> str:
    """A signed difference: +12.8 points; `round_off` drops a fraction that is not there."""
    scale, digits = (100, 1) if metric.unit == "percent" else (1, 3)
    if round_off and float(scale * x).is_integer():
        digits = 0
    number = f"{scale * x:+.{digits}f}".replace("-", MINUS)
    if not float(number.replace(MINUS, "-")):
        number = number.lstrip(f"+{MINUS}")  # no sign on a zero
    name = " point" if number.strip(f"+{MINUS}") == "1.0" else " points"
    return number + (name if unit and metric.unit == "percent" else "")


def interval(estimate: Estimate, metric: Metric, signed: bool = False) -> str:
    """``[10.1, 15.5]``, or nothing when there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    if signed:
        return f"[{change(estimate.low, metric, unit=False)}, {change(estimate.high, metric, unit=False)}]"
    scale, digits = (100, 1) if metric.unit == "percent" else (1, 3)
    return f"[{scale * estimate.low:.{digits}f}, {scale * estimate.high:.{digits}f}]".replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """0.42 s, 7.3 s, 4 min 32 s, 3 h 05 min."""
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.2f}{NARROW}s" if seconds < 0.995 else f"{seconds:.1f}{NARROW}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NARROW}s"
    if whole < 3600:
        return f"{whole // 60}{NARROW}min {whole % 60:02d}{NARROW}s"
    return f"{whole // 3600}{NARROW}h {whole % 3600 // 60:02d}{NARROW}min"


def clock(seconds: float) -> str:
    """Short times for axes: 0, 15 s, 1:30, 2:00:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:g}{NARROW}s" if seconds else "0"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def size(n: int | None) -> str:
    """1.2 MB, in powers of 1000."""
    if n is None:
        return NONE
    amount, units = float(n), ["B", "kB", "MB", "GB", "TB", "PB"]
    while amount >= 999.5 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.0f}{NARROW}B" if units[0] == "B" else f"{amount:.3g}{NARROW}{units[0]}"


def ratio(x: float | None) -> str:
    """25.6×."""
    return NONE if x is None else f"{x:.1f}×"


def compact(n: float) -> str:
    """1,234 -> 1.2k, for axes and tight places."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= limit:
            return f"{n / limit:.3g}{letter}"
    return f"{n:.3g}"


def scaled(n: float) -> str:
    """Counts of parameters: 86.6 M, 1.01 G."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= limit:
            return f"{n / limit:.3g}{NARROW}{letter}"
    return f"{n:.0f}"


def operations(n: float) -> str:
    """Floating-point operations: 4.4 × 10¹⁵ FLOP."""
    if n < 1e6:
        return f"{n:,.0f}{NARROW}FLOP"
    power = math.floor(math.log10(n) + 1e-12)
    digits = str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{n / 10**power:.2f}{NARROW}×{NARROW}10{digits}{NARROW}FLOP"
