"""Planning of evaluations: which models are measured on which sets, and what must be kept out of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..eval.suites import Suite
from ..filters.decontaminate import Decontaminate
from ..filters.scorers.checksum import Checksum
from ..filters.scorers.perceptual_hash import PerceptualHash
from ..shards import storage
from ..shards.evalsets.builtin import BUILTIN
from ..shards.evalsets.source import EvalSource
from .plan_training import Offers, check_suites
from .stage import Stage
from .stages.evaluation import EvalCheckStage, EvalSetStage, EvalStage, source_identity

if TYPE_CHECKING:
    from .config import Config
    from .plan_columns import ColumnPlanner
    from .stages.training import PretrainStage


FEATURES = ".features"
"""Folder of the workdir with the features of evaluated models, by content: it may be deleted at any time."""


class EvalPlanner:
    """Plans the section `eval`."""

    def __init__(self, config: Config, add: Callable[[Any], Any], columns: ColumnPlanner) -> None:
        """
        Args:
            add: takes a stage into the plan, and gives back the equal one that is already there.
            columns: knows the encoders.
        """
        self._config, self._add, self._columns = config, add, columns

    def of_training(self, subset: str, trained: PretrainStage, name: str = "") -> EvalStage:
        """How good the models of a training are."""
        recipe = trained.training.recipe
        self._suits(Offers.of_training(f"the models of the recipe {recipe.type!r}", recipe))
        return self._evaluation(name or f"eval/{subset}", {"pretrain": trained})

    def of_encoder(self, name: str) -> EvalStage:
        """How good a filter network is itself, which is not how good a filter it is."""
        at, training, weights = self._columns.encoder_at(name)
        what, train = f"the encoder {name!r}", self._config.encoders[name].train
        self._suits(
            Offers.of_training(what, train.recipe, True) if train else Offers.of_weights(what, at.model, at.pretrained)
        )
        model = None if training else (at.model, at.pretrained)
        return self._evaluation(f"eval-encoder/{name}", dict(training), model, weights)

    def decontamination(self, subset: str) -> Decontaminate | None:
        """What comes before a subset's own filters when evaluation sets are named: nobody is tested on what they saw.

        It is the same stage for all subsets. It compares files, and what the config has scores for: pixels, hashes.
        """
        option, own = self._config.eval, self._config.subsets[subset]
        if option is None or not option.decontaminate or any(isinstance(f, Decontaminate) for f in own):
            return None
        if twice := next((s.path for place, s in enumerate(option.data) if s in option.data[:place]), None):
            raise ConfigError(f"eval.data: {twice!r} is named twice")
        scores = self._config.scores.items()
        pixels = next((name for name, score in scores if isinstance(score, Checksum)), None)
        found = next(((name, score) for name, score in scores if isinstance(score, PerceptualHash)), None)
        hashes = {"hash": found[0], "method": found[1].method, "invariant": found[1].invariant} if found else {}
        return Decontaminate.model_validate({"sets": list(option.data), "pixels": pixels, **hashes})

    def _suits(self, model: Offers) -> None:
        """Refuse suites that a model cannot be evaluated by."""
        assert self._config.eval is not None
        check_suites(self._config.eval.suites, model)

    def _evaluation(
        self,
        name: str,
        inputs: dict[str, Stage],
        model: tuple[str, str | None] | None = None,
        weights: str = "",
    ) -> EvalStage:
        """All suites on all sets for the models of a training, or for a model that is loaded."""
        option = self._config.eval
        assert option is not None
        built = self.builtin_sets(option.data)
        measured = {
            "suites": tuple(option.suites),
            "sources": tuple(option.data),
            "source_identities": (
                *(source_identity(source, "eval.data") for source in option.data),
                *(storage.identity(path) for s in option.suites for file in s.files() for path in found_files(file, s)),
            ),
        }
        check = self._add(EvalCheckStage("evalcheck", dict(built), **measured))
        return self._add(
            EvalStage(
                name,
                {**inputs, **built, "check": check},
                **measured,
                together=option.models_per_pass,
                features=storage.join(self._config.workdir, FEATURES) if option.keep_features else "",
                model=model,
                weights=weights,
            )
        )

    def builtin_sets(self, data: list[EvalSource]) -> dict[str, Stage]:
        """Stages that write the built-in sets among some, by role."""
        names = [source.path for source in data if source.path in BUILTIN]
        return {f"evalset/{n}": self._add(EvalSetStage(f"evalset/{n}", builtin=n)) for n in names}


def found_files(pattern: str, suite: Suite) -> list[str]:
    """What a path or pattern of a suite names.

    Raises:
        ConfigError: nothing.
    """
    found = [pattern] if storage.exists(pattern) else [p for p in storage.expand(pattern) if storage.exists(p)]
    if not found:
        raise ConfigError(f"eval.suites: {suite.label!r}: there is nothing at {pattern}")
    return found
