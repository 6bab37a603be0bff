"""`multilingual`: zero-shot in the languages that a set has class names in (Babel-ImageNet: Geigle et al., 2024).

Each language names only some of the classes, so it is scored on its own part of the test: pictures of other classes are
left out, and the model chooses among the classes that have a name. Fewer classes are easier, so **accuracies of two
languages are not comparable** as they are. Beside the plain mean over languages there is one corrected for chance,
(accuracy - 1/k) / (1 - 1/k) with k classes: 0 = guessing, 1 = all right; and every table gives k and the samples.

Pictures are embedded once, for all languages; the price is the texts, classes x templates for each language.
Retrieval in other languages needs no suite of its own: it is `retrieval` on sets that say their `language`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from ...errors import DataError
from ...shards.evalsets.base import EvalSet, EvalSplit, LanguageTexts
from ..metrics.accuracy import BLOCK
from ..metrics.outcomes import Outcomes, SampleOutcomes, outcomes, small
from ..tasks.prompts import ClassTexts, class_texts, ensemble, named_templates, text_hash
from .base import SUITES, EvalContext, Need, Splits, Suite, SuiteResult
from .prompted import Templates, require_places

ANY = "*"


@dataclass(frozen=True)
class LanguageOutcomes(SampleOutcomes):
    """Outcomes of each language, one after another.

    Attributes:
        found: language -> its outcomes; labels and predictions are numbers of its own classes, `rows` its samples.
        indices: language -> numbers of its classes in the set, ``(k,) int64``.
    """

    found: dict[str, Outcomes]
    indices: dict[str, np.ndarray]

    def __len__(self) -> int:
        return sum(map(len, self.found.values()))

    @property
    def correct(self) -> np.ndarray:
        """``(rows,) bool``."""
        return np.concatenate([one.correct for one in self.found.values()])

    def table(self, split: EvalSplit) -> pa.Table:
        """As of a classification, with the set's class numbers, and the columns ``language`` and ``classes`` (that it
        names)."""
        parts = []
        for language, one in self.found.items():
            of_set, table = self.indices[language], one.table(split)
            below = int(of_set.max()) + 1
            for name, numbers in (("label", one.labels), ("prediction", one.prediction)):
                place = table.schema.get_field_index(name)
                table = table.set_column(place, name, small(of_set[numbers], below).cast(pa.uint32()))
            place = table.schema.get_field_index("rank")
            table = table.set_column(place, "rank", table["rank"].cast(pa.uint32()))
            table = table.append_column("language", pa.array([language] * len(one), pa.string()))
            parts.append(table.append_column("classes", pa.array(np.full(len(one), len(of_set), np.uint32))))
        return pa.concat_tables(parts).combine_chunks()


def above_chance(accuracy: float, classes: int) -> float | None:
    """Accuracy on a scale where guessing among `classes` is 0 and all right is 1; None with fewer than two classes.

    (Cohen's kappa against a uniform guess.)
    """
    return (accuracy - 1 / classes) / (1 - 1 / classes) if classes > 1 else None


@SUITES.register
class Multilingual(Suite):
    """Zero-shot classification in each language of a set."""

    task: ClassVar[str] = "zeroshot_multilingual"
    main_metric: ClassVar[str] = "acc1:mean"
    needs: ClassVar[tuple[Need, ...]] = ("text",)

    type: Literal["multilingual"] = "multilingual"
    languages: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Languages to measure; default: all that a set has names in."
    )
    templates: dict[str, Templates] | None = Field(
        default=None,
        min_length=1,
        description="Language -> templates (a list, a file, or a name as in zero_shot), instead of those of the set; "
        "`*` = for all languages that have none otherwise. {'*': ['{c}']} is the bare name.",
    )
    canonicalize: bool = Field(default=False, description="Prepare names and templates as in zero_shot.")

    @field_validator("templates")
    @classmethod
    def _have_places(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        for templates in (value or {}).values():
            if isinstance(templates, tuple):
                require_places(templates)
        return value

    def measures(self, evalset: EvalSet) -> bool:
        """Whether it is for this set: of its kind, with class names in other languages."""
        return super().measures(evalset) and bool(evalset.languages())

    def languages_of(self, evalset: EvalSet) -> list[str]:
        """Languages that are measured, sorted.

        Raises:
            DataError: the set lacks one that was asked for.
        """
        known = evalset.languages()
        if self.languages is None:
            return known
        if lost := sorted(set(self.languages) - set(known)):
            raise DataError(f"{evalset.folder} has no class names in {', '.join(lost)}; it has {', '.join(known)}")
        return sorted(set(self.languages))

    def words_of(self, evalset: EvalSet, language: str) -> LanguageTexts:
        """Classes that have a name in `language`, their names, and the templates to use."""
        found = evalset.language_texts(language)
        given = self.templates or {}
        chosen = given.get(language) or found.templates or given.get(ANY) or ()
        if isinstance(chosen, str):
            chosen = named_templates(chosen)
        if not chosen:
            raise DataError(
                f"{_where(evalset, language)} has no templates; give `templates` of {self.label!r} for it, or for all "
                "languages without under '*', or name the `languages` to measure"
            )
        return LanguageTexts(found.indices, found.names, tuple(chosen))

    def texts_of(self, evalset: EvalSet, language: str) -> ClassTexts:
        """Prompts of the classes that have a name in `language`."""
        _, names, templates = self.words_of(evalset, language)
        return class_texts(_where(evalset, language), names, templates, None, self.canonicalize)

    def templates_for(self, evalset: EvalSet) -> tuple[str, ...]:
        """Templates of all languages, one after another."""
        return tuple(t for lang in self.languages_of(evalset) for t in self.words_of(evalset, lang).templates)

    def text_hash_for(self, evalset: EvalSet) -> str:
        """Hash of the classes, names and templates of every language."""
        names, templates, prompts = [], [], []
        for language in self.languages_of(evalset):
            words = self.words_of(evalset, language)
            names += [f"{language}\0{i}\0{name}" for i, name in zip(words.indices, words.names, strict=True)]
            templates += [f"{language}\0{template}" for template in words.templates]
            prompts += self.texts_of(evalset, language).prompts if self.canonicalize else ()
        return text_hash(names, templates, prompts)

    def texts(self, evalset: EvalSet, split: Splits) -> list[str]:
        return [prompt for lang in self.languages_of(evalset) for prompt in self.texts_of(evalset, lang).flat()]

    def rows(self, evalset: EvalSet, split: EvalSplit) -> np.ndarray | None:
        named = [self.words_of(evalset, language).indices for language in self.languages_of(evalset)]
        return np.flatnonzero(np.isin(split.labels, np.unique(np.concatenate(named))))

    def evaluate(self, context: EvalContext) -> SuiteResult:
        evalset = context.evalset
        image, labels = context.features(self.split)
        found: dict[str, Outcomes] = {}
        indices: dict[str, np.ndarray] = {}
        rows: list[dict[str, Any]] = []
        for language in self.languages_of(evalset):
            mine, texts = np.array(evalset.language_texts(language).indices, np.int64), self.texts_of(evalset, language)
            number = np.full(len(evalset.classnames), -1, np.int64)
            number[mine] = np.arange(len(mine))
            samples = np.flatnonzero(number[labels] >= 0)
            if not len(samples):
                raise DataError(f"{evalset.folder}: no {self.split} sample is of a class with a name in {language}")
            weights = ensemble(context.text, texts.prompts, texts.classnames, _where(evalset, language))
            starts = range(0, len(samples), BLOCK)
            blocks = (image[samples[start : start + BLOCK]] @ weights.T for start in starts)
            one = replace(outcomes(blocks, number[labels[samples]]), rows=samples)
            found[language], indices[language] = one, mine
            about = {"language": language, "n": len(samples), "classes": len(mine), "chance": 1 / len(mine)}
            about["text_hash"] = texts.digest
            metrics = one.metrics()
            kappa = above_chance(metrics["acc1"] or 0.0, len(mine))
            rows.append(about | {"templates": len(texts.templates), "acc1_above_chance": kappa, "metrics": metrics})
        corrected = [row["acc1_above_chance"] for row in rows if row["acc1_above_chance"] is not None]
        metrics = {
            "acc1:mean": float(np.mean([row["metrics"]["acc1"] for row in rows])),
            "acc1_above_chance:mean": float(np.mean(corrected)) if corrected else None,
            **{f"acc1:{row['language']}": row["metrics"]["acc1"] for row in rows},
        }
        facts = {"languages": len(rows), "prompts": sum(r["templates"] * r["classes"] for r in rows)}
        chance = float(np.mean([row["chance"] for row in rows]))
        return SuiteResult(metrics, LanguageOutcomes(found, indices), facts, {"languages": rows}, chance)


def _where(evalset: EvalSet, language: str) -> str:
    return f"{evalset.folder}, language {language}"
