"""Evaluate models on several sets with several suites: load once, embed once, keep every sample's outcome.

What is wrong with the sets is found before a model is loaded (`opened.py`). Pictures are read and decoded once for all
models and suites (`embedding/`), texts of all suites and sets are encoded together. What is written is byte for byte
a function of model, sets and suites (no times, no paths): `results/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..shards.evalsets.base import EvalSet
from .embedding.embed_once import EmbedOnce, wanted_rows
from .embedding.features import ClassScores, Features, TextFeatures, has_head
from .opened import OpenSet, open_sets
from .results.files import Written, finish, write_result
from .suites import EvalContext, Suite

if TYPE_CHECKING:
    from ..pretrain.encoders.encoder import Encoder

Progress = Callable[[int, int], None]


def evaluate(
    encoder_dir: str,
    evalsets: Sequence[str | EvalSet],
    suites: Sequence[Suite],
    out: str,
    cache_dir: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    pretrained: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Run every suite on every set that it is for, and write the results.

    Args:
        encoder_dir: encoder folder, or anything that `load_encoder` takes.
        evalsets: sets, or folders of sets.
        suites: what to measure, from `suites.parse_suites` or a config.
        out: folder for the files.
        cache_dir: folder where features are kept; with it, a killed evaluation goes on where it was.
        device: ``auto``, ``cpu``, ``cuda``...
        progress: called with (texts and images embedded, texts and images to embed).
        pretrained: local checkpoint, when `encoder_dir` is a model name.
        threads: on a CPU, threads that run the model, each with one core; on a GPU, threads that decode. None: as many
            as torch may use. Numbers do not depend on it.

    Returns:
        The results without the tables, as strict JSON: ``{"encoder": digest, "results": [...]}``.

    Raises:
        ConfigError: no set, no suite, two of the same name, a set or suite that would measure nothing, no such model.
        DataError: a set, a split, a tar, an image or the templates are missing or broken; says which.
    """
    name = encoder_dir.rstrip("/").rsplit("/", 1)[-1]
    models = {name: (encoder_dir, pretrained)}
    return evaluate_models(models, evalsets, suites, {name: out}, cache_dir, device, progress, threads)[name]


def evaluate_models(
    models: Mapping[str, tuple[str, str | None]],
    evalsets: Sequence[str | EvalSet],
    suites: Sequence[Suite],
    outs: Mapping[str, str],
    cache_dir: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    threads: int | None = None,
) -> dict[str, dict[str, Any]]:
    """As `evaluate`, for several models and one pass over the pictures.

    Args:
        models: name -> what `load_encoder` takes: a folder or name, and a local checkpoint or None.
        outs: name -> folder for its files.
    """
    sets = open_sets(evalsets, suites)
    from ..pretrain.encoders.load_encoder import load_encoder  # torch, once it is clear that there is work

    encoders = {name: load_encoder(model, weights, device=device) for name, (model, weights) in models.items()}
    return evaluate_encoders(encoders, sets, outs, cache_dir, progress, threads)


def evaluate_encoders(
    encoders: Mapping[str, Encoder],
    sets: Sequence[OpenSet],
    outs: Mapping[str, str],
    cache_dir: str | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> dict[str, dict[str, Any]]:
    """As `evaluate`, for models in memory and sets that are open, with one pass over the pictures for all models.

    Args:
        encoders: models by the name that CLIP_benchmark's files call them.
        outs: name -> folder for its files.
    """
    for name, encoder in encoders.items():
        require(encoder, sets, name)
    together = list(dict.fromkeys(_texts(sets)))
    order = [(split, wanted_rows(one, name)) for one in sets for name, split in one.splits.items()]
    before, todo = len(together) * len(encoders), sum(len(s) if rows is None else len(rows) for s, rows in order)
    texts = {}
    for number, (name, encoder) in enumerate(encoders.items()):
        texts[name] = TextFeatures(encoder, cache_dir, threads)
        texts[name].add(together, _part(progress, number * len(together), before + todo))
    models, report = list(encoders.values()), _part(progress, before, before + todo)
    embed = EmbedOnce(models, cache_dir, report, todo, threads, order)
    written: dict[str, list[Written]] = {name: [] for name in encoders}
    for one in sets:
        found = {split: embed(one, split) for split in one.splits}
        for number, (name, encoder) in enumerate(encoders.items()):
            of_model = {split: by_model[number] for split, by_model in found.items()}
            context = _context(encoder, one, of_model, texts[name])
            for suite in one.suites:
                result = suite.evaluate(context)
                written[name].append(write_result(outs[name], encoder.digest, name, one, suite, result))
    return {name: finish(outs[name], encoder, sets, written[name]) for name, encoder in encoders.items()}


def _part(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of a part of the work, told as progress of the whole."""
    return None if progress is None else lambda done, _: progress(before + done, total)


def _texts(sets: Sequence[OpenSet]) -> list[str]:
    return [
        text
        for one in sets
        for suite in one.suites
        if "text" in suite.needs
        for text in suite.texts(one.evalset, one.splits.__getitem__)
    ]


def _context(encoder: Encoder, one: OpenSet, found: Mapping[str, Any], text: TextFeatures) -> EvalContext:
    def features(split: str) -> Features:
        return found[split][0]

    scores = ClassScores(encoder, lambda split: found[split][1]) if has_head(encoder) else None
    return EvalContext(one.evalset, one.splits.__getitem__, features, text, scores, encoder)


def require(encoder: Encoder, sets: Sequence[OpenSet], name: str) -> None:
    """Raise ConfigError if the model lacks what a suite needs: told before the first image is embedded."""
    classes: tuple[str, ...] = encoder.head.classes if has_head(encoder) else ()  # type: ignore[attr-defined]
    for one in sets:
        for suite in one.suites:
            if "text" in suite.needs and "text" not in getattr(encoder, "modalities", ("image", "text")):
                raise ConfigError(
                    f"the suite {suite.label!r} compares pictures with texts, and {name} is an image model; "
                    "evaluate it with knn, linear_probe or, if it has a classifier, supervised"
                )
            if "head" in suite.needs and not classes:
                raise ConfigError(
                    f"the suite {suite.label!r} needs a model with a classifier and names of its classes, and {name} "
                    "has none; name the folder of a supervised training"
                )
            suite.check_set(one.evalset, classes)


__all__ = ["evaluate", "evaluate_encoders", "evaluate_models", "open_sets", "require"]
