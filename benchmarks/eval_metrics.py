"""Seconds that the metrics of DataComp's 40 tasks take when features are there: all of them, at their real sizes.

    python benchmarks/eval_metrics.py [--json] [--quick] [--threads 2]

Features are synthetic (512 dimensions, L2-normalised, a little nearer to the right text than to others), one set per
row of DataComp's task list (`eval/datacomp_tasks.py`) with as many pictures, classes, templates, captions, cues and
groups as the real one. Each goes through the real suite by `Suite.evaluate`, so what is timed is what an evaluation
does between the last forward pass and the writing of files: class weights from prompts, scores, ranks, group metrics.
``tables_s`` is what is kept beside the numbers: per-sample rows, per-class tables, confusion.

``total_s`` is wall time of one process with `--threads` threads for matrix products; ``cpu_s`` its CPU time. Making the
features is not counted.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

DIM = 512
CAPTIONS, CUES, WINOGAVIL_PICTURES = 5, (5, 6, 10, 12), 8000
TEMPLATES = {
    "vtab/caltech101": 34,
    "cifar10": 18,
    "vtab/cifar100": 18,
    "vtab/clevr_count_all": 2,
    "vtab/clevr_closest_object_distance": 2,
    "country211": 5,
    "vtab/dtd": 8,
    "vtab/eurosat": 3,
    "fgvc_aircraft": 2,
    "gtsrb": 3,
    "vtab/resisc45": 4,
    "cars": 8,
    "stl10": 2,
    "sun397": 2,
    "vtab/svhn": 6,
    "vtab/pcam": 2,
    "objectnet": 80,
    **dict.fromkeys(("imagenet1k", "imagenet_sketch", "imagenetv2", "imagenet-a", "imagenet-o", "imagenet-r"), 80),
}
"""Templates per class as CLIP_benchmark has them; sets that are not here have one or two, and get two."""
GROUPS = {
    "wilds/camelyon17": {"slide": 50},
    "wilds/fmow": {"region": 6, "year": 16},
    "fairness/dollar_street": {"income_ds": 4, "income_meta": 4, "region": 4},
    "fairness/geode": {"region": 6, "country": 30},
    "fairness/fairface": {"age": 9, "gender": 2, "race": 7},
    "fairness/utkface": {"age": 9, "gender": 2, "race": 5},
}
"""Fields of a task's samples, and how many groups each has."""
RACES = ("White", "Black", "Indian", "East Asian", "Southeast Asian", "Middle Eastern", "Latino")


def rows(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random features ``(count, DIM) float32``, L2-normalised."""
    values = rng.standard_normal((count, DIM), np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values


class CachedTexts:
    """Features of texts that are in memory; texts that sets share are there once."""

    dim = DIM

    def __init__(self) -> None:
        self._row: dict[str, int] = {}
        self._features = np.empty((0, DIM), np.float32)

    def add(self, rng: np.random.Generator, texts: Sequence[str]) -> None:
        """Make up features of those that are new."""
        new = [text for text in dict.fromkeys(texts) if text not in self._row]
        self._row.update((text, len(self._features) + i) for i, text in enumerate(new))
        self._features = np.concatenate([self._features, rows(rng, len(new))])

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return self._features[[self._row[text] for text in texts]]


def words(task: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names and templates of a task; ImageNet's family shares them."""
    if task.key in ("fairness/fairface", "fairness/utkface"):
        sizes = GROUPS[task.key]
        names = [f"{field}: {field} {i}" for field in ("age", "gender") for i in range(sizes[field])]
        names += [f"race: {race}" for race in RACES[: sizes["race"]]]
        names += [f"toxic: word {i}" for i in range(21)]
        return tuple(names), tuple(
            f"{field}: a photo of a {{c}} person" for field in ("age", "gender", "race", "toxic")
        )
    family = "imagenet" if task.key.startswith("imagenet") else task.key
    templates = tuple(f"a photo {i} of the {{c}}." for i in range(TEMPLATES.get(task.key, 2)))
    return tuple(f"{family} class {i}" for i in range(task.classes or 0)), templates


@functools.cache
def _kinds() -> tuple[type, type]:
    """Sets and splits in memory, as the suites know them."""
    from curate.shards.evalsets.base import EvalSet, EvalSplit

    class MemorySplit(EvalSplit):
        def __init__(self, name: str, count: int, **known: Any) -> None:
            self.name, self.where = "test", f"{name}: split 'test'"
            self.keys = [f"s{i:07d}" for i in range(count)]
            for attribute, value in known.items():
                setattr(self, attribute, value)

        def image(self, index: int) -> bytes:
            raise NotImplementedError

    class MemorySet(EvalSet):
        digest = "synthetic"  # type: ignore[assignment]

        def split_names(self) -> list[str]:
            return ["test"]

        def split(self, name: str) -> EvalSplit:
            raise NotImplementedError

    return MemorySet, MemorySplit


def made(task: Any, rng: np.random.Generator, factor: int) -> tuple[Any, Any]:
    """A set of a task's kind and size, and its split."""
    from curate.shards.evalsets.base import Association, Captions, Groups

    memory_set, memory_split = _kinds()
    count = max(50, task.size // factor)
    names, templates = words(task)
    known: dict[str, Any] = {}
    if task.kind == "retrieval":
        owner = np.repeat(np.arange(count), CAPTIONS)
        known["captions"] = Captions(tuple(f"{task.key} caption {i}" for i in range(len(owner))), owner)
    elif task.kind == "association":
        pictures = max(50, WINOGAVIL_PICTURES // factor)
        questions = []
        for i in range(count):
            chosen = tuple(rng.choice(pictures, CUES[i % len(CUES)], replace=False).tolist())
            questions.append(Association(f"q{i}", f"cue {i % 2000}", chosen, chosen[: 2 + i % 3]))
        known["associations"] = questions
        count = pictures
    else:
        known["classes"] = rng.integers(0, max(1, task.classes or 1), count)
    if task.key in GROUPS:
        fields = GROUPS[task.key]
        values = np.stack([rng.integers(0, size, count) for size in fields.values()], 1)
        known["groups"] = Groups(tuple(fields), values, {})
    one = memory_set(task.folder, f"synthetic/{task.folder}", names, templates, task.kind)
    return one, memory_split(task.folder, count, **known)


def suite_for(task: Any) -> Any:
    """The suite that measures a task."""
    from curate.eval.suites import parse_suites

    types = {"retrieval": "retrieval", "association": "association"}
    faces = task.key in ("fairness/fairface", "fairness/utkface")
    return parse_suites(["fairness" if faces else types.get(task.kind, "zero_shot")])[0]


def features_of(rng: np.random.Generator, split: Any, evalset: Any, text: CachedTexts) -> np.ndarray:
    """Features of the pictures: noise, and some of the text that belongs to each."""
    image = rng.standard_normal((len(split), DIM), np.float32) / np.float32(np.sqrt(DIM))
    if split.captions is not None:
        image += 0.3 * text(split.captions.texts[::CAPTIONS])
    elif split.classes is not None and evalset.templates and ":" not in evalset.classnames[0]:
        firsts = [evalset.prompts(name)[0] for name in evalset.classnames]
        image += 0.3 * text(firsts)[split.classes]
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    return image


def run(factor: int) -> dict[str, Any]:
    """Every task, one after the other."""
    from curate.eval.embedding.features import Features
    from curate.eval.suites import EvalContext
    from curate.eval.tasks.datacomp import TASKS

    text, found = CachedTexts(), []
    for number, task in enumerate(TASKS):
        rng = np.random.default_rng(number)
        evalset, split = made(task, rng, factor)
        suite = suite_for(task)
        if not suite.measures(evalset):
            raise SystemExit(f"{suite.label} does not measure {task.key}")
        text.add(rng, list(suite.texts(evalset, lambda _, split=split: split)))
        image = features_of(rng, split, evalset, text)
        labels = split.classes if split.classes is not None else np.zeros(0, np.int64)
        features = Features(image, labels)
        context = EvalContext(
            evalset,
            lambda _, split=split: split,
            lambda _, features=features: features,
            text,  # type: ignore[arg-type]
        )
        cpu, wall = time.process_time(), time.monotonic()
        result = suite.evaluate(context)
        seconds, cpu = time.monotonic() - wall, time.process_time() - cpu
        wall = time.monotonic()
        result.outcomes.table(split)
        result.outcomes.tables(evalset, split)
        tables = time.monotonic() - wall
        main = suite.main_metric_of(evalset)
        value = result.metrics[main] if main else None
        found.append(
            {
                "task": task.key,
                "n": len(split),
                "classes": len(evalset.classnames),
                "suite": suite.label,
                "metrics": len(result.metrics),
                "main_metric": main,
                "value": value,
                "seconds": seconds,
                "cpu_s": cpu,
                "tables_s": tables,
            }
        )
        print(
            f"{task.key:50}{len(split):8}{len(evalset.classnames):6} {suite.label:12}{seconds:8.3f} s"
            f"{tables:8.3f} s of tables   {main} {value if value is None else round(value, 4)}",
            file=sys.stderr,
            flush=True,
        )
    return {
        "tasks": found,
        "total_s": sum(t["seconds"] for t in found),
        "cpu_s": sum(t["cpu_s"] for t in found),
        "tables_s": sum(t["tables_s"] for t in found),
        "pictures": sum(t["n"] for t in found),
        "largest": max(found, key=lambda t: t["seconds"])["task"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the pictures")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of matrix products")
    options = parser.parse_args()
    from threadpoolctl import threadpool_limits

    with threadpool_limits(options.threads):
        result = run(20 if options.quick else 1)
    words = f"{len(result['tasks'])} tasks, {result['pictures']} pictures"
    print(f"{words}: {result['total_s']:.1f} s, of CPU {result['cpu_s']:.1f} s; tables {result['tables_s']:.1f} s")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
