"""Write a dashboard: one HTML page that needs nothing beside it, and the same data as JSON for machines.

The page opens from disk, asks no network for anything, and draws its plots itself: 20 runs on 40 tasks are well below
1 MB without pictures. Its content security policy lets run only the two scripts whose hashes it names; the script sets
data as text, never as markup. The price: without scripts there is only ``dashboard.json`` to read. The same data gives
the same bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import numbers
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ....errors import DataError
from ....shards import storage
from ..gallery_data import Picture
from ..visible import json_block, reveal
from .check import check_dashboard
from .data import Dashboard
from .payload import choices, filled, payload
from .pictures import bounded

FORMAT = "curate-dashboard-1"
HERE = Path(__file__).parent / "templates"
SHARED = Path(__file__).parents[1] / "templates"
SCRIPTS = (
    "element.js",
    "numbers.js",
    "statistics.js",
    "state.js",
    "columns.js",
    "provenance.js",
    "chooser.js",
    "leaderboard.js",
    "table_text.js",
    "plot.js",
    "scatter.js",
    "curves.js",
    "arms.js",
    "classes.js",
    "groups.js",
    "pager.js",
    "retrieval.js",
    "mistakes.js",
    "funnels.js",
    "start.js",
)
"""Parts of the page's one script, in the order in which they stand in it."""

SECTIONS = {
    "leaderboard": ("Leaderboard", "Leaderboard"),
    "scatter": ("One against another", "Scatter"),
    "curves": ("Curves", "Curves"),
    "classes": ("Classes", "Classes"),
    "confusions": ("What is taken for what", "Confusions"),
    "groups": ("Groups", "Groups"),
    "retrieval": ("Retrieval", "Retrieval"),
    "mistakes": ("Mistakes", "Mistakes"),
    "funnels": ("Curation", "Curation"),
    "measures": ("What was measured", "Protocols"),
}
"""Section -> its title and the text of its link."""


def build_dashboard(data: Dashboard, out: str) -> str:
    """Publish ``index.html`` and ``dashboard.json`` in the folder `out`; returns the page's path.

    Raises:
        DataError: the data contradicts itself, or holds pictures that are too large or of unknown kinds.
        StorageError: the disk refuses.
    """
    data = bounded(data)
    check_dashboard(data)
    page = render(data)
    storage.write_json(storage.join(out, "dashboard.json"), {"format": FORMAT, **_plain(data)})
    path = storage.join(out, "index.html")
    storage.write_bytes(path, page.encode())
    return path


def render(data: Dashboard) -> str:
    """The page as text."""
    data = filled(data)
    style = _own("\n".join(_read(folder / name) for folder, name in _STYLES), "style")
    theme = _own(_read(SHARED / "theme.js"), "theme.js")
    parts = "\n".join(_read(HERE / name) for name in SCRIPTS)
    script = _own(f'"use strict";\n(() => {{\n{parts}\n}})();\n', "script")
    shown = choices(data)
    return (
        _environment()
        .get_template("dashboard.html")
        .render(
            data=data,
            tiles=_tiles(data),
            sections=[(name, *texts) for name, texts in SECTIONS.items() if shown.get(name, True)],
            shown=shown,
            policy=_policy(style, (theme, script)),
            style=style,
            theme=theme,
            script=script,
            payload=json_block(_plain(payload(data))),
        )
    )


_STYLES = ((SHARED, "style.css"), (HERE, "dashboard.css"))


def _tiles(data: Dashboard) -> list[tuple[str, str]]:
    models = sum(len(a.seeds) for a in data.arms)
    runs = len({a.run for a in data.arms if a.run})
    sets = len({m.dataset for m in data.measures if m.dataset})
    counts = [("runs", runs), ("arms", len(data.arms)), ("models", models), ("test sets", sets)]
    return [(label, f"{n:,}") for label, n in [*counts, ("measures", len(data.measures))] if n]


def _policy(style: str, scripts: Sequence[str]) -> str:
    """Content security policy: these scripts, this style sheet, pictures from the page itself, and nothing else."""
    run = " ".join(_hash(s) for s in scripts)
    return (
        f"default-src 'none'; script-src {run}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace("\r\n", "\n")


def _own(text: str, name: str) -> Markup:
    """Our own code as it goes into its element, byte for byte, so that its hash is right."""
    if "</script" in text.lower() or "</style" in text.lower() or "<!--" in text or "\r" in text:
        raise DataError(f"{name} cannot stand inside a page: it holds </script, </style, <!-- or a carriage return")
    return Markup(text)


@cache
def _environment() -> Environment:
    """Templates where everything printed is made visible, then escaped; what is not defined is an error."""
    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda v: reveal(v) if isinstance(v, str) and not isinstance(v, Markup) else v,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _plain(value: Any) -> Any:
    """Strict JSON values: no image bytes, no halves of surrogate pairs, null where there is no number."""
    if isinstance(value, Picture):
        return {"mime": value.mime, "width": value.width, "height": value.height, "bytes": len(value.data)}
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
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
    raise DataError(f"a dashboard holds text and numbers, not {type(value).__name__}")
