"""Results of the zoo as `evaluate` writes them, from features that are given."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from zoo_set import IMAGE, Words, Zoo, zoo

from curate.eval.embedding.features import Features, TextFeatures
from curate.eval.opened import open_sets
from curate.eval.results.files import finish, write_result
from curate.eval.suites import EvalContext, Suite, parse_suites
from curate.shards.evalsets.base import LanguageTexts

DIGEST = "0123456789abcdef" * 2


def strict(path: Path):
    def refuse(text):
        raise AssertionError(f"{path} holds {text}")

    return json.loads(path.read_text(), parse_constant=refuse)


def labels_of(split) -> np.ndarray:
    return np.empty(0, np.int64) if split.classes is None else split.classes


def write(out: Path, sets: list[Zoo], suites=("zero_shot",), digest: str = DIGEST) -> Path:
    """What `evaluate` does, with features that are given."""
    asked = [suite if isinstance(suite, Suite) else parse_suites([suite])[0] for suite in suites]
    opened, written = open_sets(sets, asked), []
    for one in opened:
        evalset = one.evalset
        context = EvalContext(
            evalset, evalset.split, lambda s, e=evalset: Features(IMAGE, labels_of(e.split(s))), TextFeatures(Words())
        )  # type: ignore[arg-type]
        for suite in one.suites:
            written.append(write_result(str(out), digest, "ViT", one, suite, suite.evaluate(context)))
    finish(str(out), SimpleNamespace(digest=digest, dim=4, precision="fp32"), opened, written)  # type: ignore[arg-type]
    return out


def babel() -> Zoo:
    words = (
        ("DE", LanguageTexts((0, 1, 2), ("ant", "bee", "cow"), ("ein {}",))),
        ("NE", LanguageTexts((1, 2), ("bee", "cow"), ("{}", "a {}"))),
    )
    return zoo(name="babel", words=words)
