"""Write a report: one HTML page that needs nothing beside it, and the same data as JSON for machines.

The page opens from disk and asks no network for anything. Its content security policy lets run only the scripts whose
hashes it names, so nothing in a caption can, even if an escape were forgotten; everything printed is escaped and made
visible all the same. The price is size: plotly is in it once, if there is a plot, and is 4.8 MB, nearly all of the
page. The same data gives the same bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...errors import DataError
from ...shards import storage
from . import figures, marks, quantity
from .check import check_report
from .data import Picture, Report
from .sections import Section, hero, sections, tiles
from .verdict import headline_sentence
from .visible import json_block, lines, marked, reveal

TEMPLATES = Path(__file__).parent / "templates"


def build_report(report: Report, out: str) -> str:
    """Publish ``index.html`` and ``report.json`` in the folder `out`; returns the page's path.

    Raises:
        DataError: the data contradicts itself, or holds a picture of a kind that is not shown.
        StorageError: the disk refuses.
    """
    check_report(report)
    page = render(report)
    storage.write_json(storage.join(out, "report.json"), machine_readable(report))
    path = storage.join(out, "index.html")
    storage.write_bytes(path, page.encode())
    return path


def render(report: Report) -> str:
    """The page as text."""
    shown = sections(report)
    plots = [p for s in shown for p in s.plots]
    style, theme, script = (_inline(TEMPLATES / name) for name in ("style.css", "theme.js", "page.js"))
    plotly = _plotly() if plots else Markup("")
    scripts = [theme, script, *([plotly] if plots else [])]
    figure_data = {"template": figures.TEMPLATE, "figures": {p.id: p.figure for p in plots}}
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            hero=hero(report.headline) if report.headline else None,
            tiles=tiles(report),
            sections=shown,
            policy=_policy(style, scripts),
            style=style,
            theme=theme,
            script=script,
            plotly=plotly,
            present=_maps_style(plotly),
            figure_data=json_block(figure_data) if plots else Markup(""),
        )
    )


def _policy(style: str, scripts: Sequence[str]) -> str:
    """Content security policy: these scripts, this style sheet, pictures from the page itself, and nothing else.

    plotly makes an empty style element and fills it through the object model, hence the hash of nothing.
    """
    run = " ".join(_hash(s) for s in scripts)
    return (
        f"default-src 'none'; script-src {run}; style-src {_hash(style)} {_hash('')}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _inline(path: Path) -> Markup:
    return _script(path.read_text(encoding="utf-8"), path.name)


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return _script(get_plotlyjs(), "plotly.js")


def _maps_style(plotly: str) -> list[str]:
    """Ids that stop plotly from adding the style sheet of a map library that it carries and no figure here uses.

    It looks for an element with the sheet's hash as its id first. Were it to try, the policy would refuse and say so.
    """
    return re.findall(r'getElementById\("([0-9a-f]{64})"\)', plotly)


def _script(text: str, name: str) -> Markup:
    """Our own code as it goes into its element, byte for byte, so that its hash is right."""
    text = text.replace("\r\n", "\n")
    if "</script" in text.lower() or "<!--" in text or "\r" in text:
        raise DataError(f"{name} cannot stand inside a page: it holds </script, <!-- or a carriage return")
    return Markup(text)


@cache
def _environment() -> Environment:
    """Templates where everything printed is made visible, then escaped; what is not defined is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"lines": lines, "marked": marked, "heat": marks.heat}
    environment.globals |= {"q": quantity}
    return environment


def _finalize(value: Any) -> Any:
    if value is None:
        return ""
    return reveal(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def machine_readable(report: Report) -> dict[str, Any]:
    """The report as strict JSON values: no image bytes, null where there is no number, and the headline in words."""
    told = {"sentence": headline_sentence(report.headline)} if report.headline else {}
    return {"format": "curate-report-1", **told, **_plain(report)}


def _plain(value: Any) -> Any:
    if isinstance(value, Picture):
        return {"mime": value.mime, "width": value.width, "height": value.height, "bytes": len(value.data)}
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, str):
        return _without_surrogates(value)
    if isinstance(value, Mapping):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise DataError(f"a report holds text and numbers, not {type(value).__name__}")


def _without_surrogates(text: str) -> str:
    """Halves of surrogate pairs are not text that UTF-8 can hold; U+FFFD stands for each."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


__all__ = ["Section", "build_report", "machine_readable", "render"]
