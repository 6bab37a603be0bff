"""Example pictures of runs (`eval/examples.py`) and what each arm said to them, as mistakes and galleries of a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ...examples import Seen, captions_of, query_row, retrieved
from ..gallery_data import Picture
from .example_data import Guess, Hit, Mistake, Retrieved

SHOWN = 5  # retrieved items of a query


@dataclass(frozen=True)
class Shown:
    """A measure with examples.

    Attributes:
        measure: its id on the page.
        classnames: of its set.
        seen: what the first model of each arm did.
        bank: the examples of its set, of all runs.
    """

    measure: str
    classnames: Sequence[str]
    seen: Sequence[Seen]
    bank: pa.Table


def mistakes_of(shown: Shown) -> Iterator[Mistake]:
    """Pictures that not all arms got right."""
    rows = {str(row["key"]): row for row in shown.bank.to_pylist() if row["role"] == "mistake"}
    if not rows:
        return
    tables = {one.arm: _by_key(one.table, rows) for one in shown.seen}
    for key, row in rows.items():
        guesses = {}
        true = ""
        for arm, found in tables.items():
            if key in found:
                label, prediction, correct = found[key]
                guesses[arm] = Guess(shown.classnames[prediction], correct)
                true = shown.classnames[label]
        if guesses:
            yield Mistake(shown.measure, key, true, guesses, _picture(row))


def _by_key(table: pa.Table, keys: Mapping[str, object]) -> dict[str, tuple[int, int, bool]]:
    """``key -> (label, prediction, correct)`` of the wanted samples."""
    mine = table.filter(pc.field("key").isin(list(keys)))
    columns = (mine[name].to_pylist() for name in ("key", "label", "prediction", "correct"))
    return {key: (label, prediction, correct) for key, label, prediction, correct in zip(*columns, strict=True)}


def galleries_of(shown: Shown) -> Iterator[Retrieved]:
    """Queries of both directions with what each arm retrieved."""
    rows = shown.bank.to_pylist()
    pictures = {r["number"]: r for r in rows if r["role"] in ("query", "item")}
    texts = {r["number"]: r["text"] for r in rows if r["role"] in ("text_query", "caption")}
    for row in rows:
        if row["role"] not in ("query", "text_query"):
            continue
        direction = "text" if row["role"] == "query" else "image"
        hits, rank = {}, {}
        answers: list[Hit] = []
        for one in shown.seen:
            place = query_row(one.table, direction, row["number"])
            if place >= one.table.num_rows:
                continue
            owner = one.table["owner"][place].as_py()
            rank[one.arm] = one.table["rank"][place].as_py() + 1
            found = retrieved(one.table, direction, row["number"])[:SHOWN]
            if direction == "image":
                hits[one.arm] = [_picture_hit(pictures.get(n), n == owner) for n in found]
                answers = answers or [_picture_hit(pictures.get(owner), True)]
            else:
                answers = answers or [Hit(True, texts[n]) for n in captions_of(one.table, owner) if n in texts]
                hits[one.arm] = [Hit(one.table["owner"][n].as_py() == owner, texts.get(n, "")) for n in found]
        if direction == "text":
            yield Retrieved(shown.measure, row["key"], hits, picture=_picture(row), rank=rank, answers=answers)
        else:
            key = f"caption {row['number']}"
            yield Retrieved(shown.measure, key, hits, text=row["text"], rank=rank, answers=answers)


def _picture_hit(row: Mapping[str, object] | None, right: bool) -> Hit:
    if row is None:
        return Hit(right, "not in the examples of this page")
    return Hit(right, str(row["key"]), _picture(row))


def _picture(row: Mapping[str, object]) -> Picture | None:
    body = row["picture"]
    if not isinstance(body, bytes):
        return None
    return Picture(body, str(row["mime"]), int(row["width"]), int(row["height"]))  # type: ignore[call-overload]
