"""Filter networks: each measured encoder's own accuracy beside that of models trained on what it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...eval.comparison.leaderboard import Leaderboard as Board
from ...eval.comparison.leaderboard import gather, leaderboards
from ...eval.report.data import Estimate, FilterNetwork, FilterNetworks, KeptBy, Leaderboard, Metric
from ...shards import storage
from ..artifact import Artifact
from ..columns import MODALITIES
from ..config import Config
from .results import metrics_of
from .source import RunData

MODEL = "model"  # the one part of an encoder's evaluation


def filter_networks(run: RunData, board: Leaderboard | None) -> FilterNetworks | None:
    """Every encoder that was evaluated; None without one. `board`: of the models, if there are any."""
    evaluated = run.named("network")
    if not evaluated:
        return None
    rows = gather({(name, 0): storage.join(artifact.data, MODEL) for name, artifact in evaluated.items()})
    boards = {name: leaderboards([r for r in rows if r.arm == name]) for name in evaluated}  # not against each other
    first: dict[tuple[str, str], Board] = {}
    for one in (b for mine in boards.values() for b in mine):
        first.setdefault((one.dataset, one.suite), one)
    metrics = dict(zip(first, metrics_of(list(first.values())), strict=True))
    arms = {arm.name: dict(arm.scores) for arm in board.arms} if board else {}
    names = {metric.name for metric in metrics.values()}
    shared = {arm: {name: e for name, e in scores.items() if name in names} for arm, scores in arms.items()}
    return FilterNetworks(
        list(metrics.values()),
        [_network(run, name, mine, metrics, shared) for name, mine in boards.items()],
        run.pool.summary["rows"],
        board.control if board else "",
        shared.get(board.control, {}) if board else {},
    )


def _network(
    run: RunData,
    name: str,
    boards: Sequence[Board],
    metrics: Mapping[tuple[str, str], Metric],
    arms: Mapping[str, Mapping[str, Estimate]],
) -> FilterNetwork:
    option = run.config.encoders[name]
    scores = {}
    for board in boards:
        for arm in board.arms:
            low, high = arm.wilson95[0] if arm.wilson95 else (None, None)
            scores[metrics[board.dataset, board.suite].name] = Estimate(arm.over_seeds.mean, low, high)
    network = FilterNetwork(name, model=option.model or "", scores=scores, subsets=_subsets(run, name, arms))
    if option.train is None:
        network.made = f"loaded from {option.pretrained}"
        return network
    network.made = "trained here" + (f" from {option.train.start}" if option.train.start else "")
    network.samples_seen = option.train.samples_seen
    training: Artifact | None = run.named("stage").get(f"encoder/{name}")
    if training is not None:  # equal trainings are one stage, under the name of the first
        network.pairs, network.samples_seen = training.summary["distinct"], training.summary["samples_seen"]
    return network


def _subsets(run: RunData, encoder: str, arms: Mapping[str, Mapping[str, Estimate]]) -> list[KeptBy]:
    """Subsets in whose chain a filter reads something that this encoder made."""
    found = []
    for subset, chain in run.chains.items():
        through = []
        for link in chain:
            columns = [c for c in link.filter.columns() if encoder in encoders_behind(run.config, [c])]
            if columns:
                through.append(f"{link.label} by {', '.join(columns)}")
        if through:
            kept = chain[-1].artifact.summary["kept"]
            found.append(KeptBy(subset, kept, through, arms.get(subset, {})))
    return found


def encoders_behind(config: Config, columns: Sequence[str]) -> set[str]:
    """Encoders of the config whose model had a say in some columns: as embeddings, as prompts, or through a score."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = list(columns)
    while waiting:
        column = waiting.pop()
        if column in seen:
            continue
        seen.add(column)
        encoder, _, modality = column.rpartition(".")
        if modality in MODALITIES and encoder in config.encoders:
            found.add(config.encoders[encoder].of or encoder)
            found.add(encoder)
            continue
        owners = [s for s in config.scores if column == s or column.startswith(f"{s}_")]
        if owners:
            scorer = config.scores[max(owners, key=len)]
            found.update(scorer.encoders())
            waiting += [*scorer.columns(), *(c for wanted in scorer.targets().values() for c in wanted)]
    return found
