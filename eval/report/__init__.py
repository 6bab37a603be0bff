"""The report: one self-contained page that shows what was dropped and why, and what it did to the model.

Five lines of map: `data` is what a page shows, as plain dataclasses that add up (`check`); `build_report` turns one
into ``index.html`` and ``report.json``; `figures` and `marks` draw; `verdict` words the result; `visible` makes hostile
text harmless.
"""

from .build import build_report
from .data import Report

__all__ = ["Report", "build_report"]
