"""The dashboard: one page that sets many runs beside each other, chooses tasks, and shows how sure each number is.

Five lines of map: `data` is what a page shows (arms, measures, scores, pictures); `check` refuses what contradicts
itself; `build_dashboard` writes ``index.html`` and ``dashboard.json``; ``templates/*.js`` draw, each file one idea, all
in one script whose hash the page's policy names. Means, ranks and intervals over *chosen* tasks are worked out in the
page, from the same numbers that the JSON holds.
"""

from .build import build_dashboard
from .data import Dashboard

__all__ = ["Dashboard", "build_dashboard"]
