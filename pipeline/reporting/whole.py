"""The whole report of a run, from its finished artifacts."""

from __future__ import annotations

import os
import platform

import psutil
import yaml

from ...eval.report.data import Header, Provenance, Report, Stages, StageTime
from ...shards.images.error import CODES
from ...shards.web.fetch import ERRORS
from ..config import Config
from .distributions import distributions
from .encoders import looks
from .filter_networks import filter_networks
from .filters import filter_facts, leakage, quotas
from .galleries import galleries
from .overlap import overlap
from .pool import cluster_maps, funnels, language_column, pool_section
from .results import results
from .scaling import scaling
from .scores import learned_scores, score_facts
from .source import RunData
from .training import curves, stage_cost, trainings
from .truth import Truth, filter_truth


def _short(text: str) -> str:
    """The first clause of an explanation, as it stands under a code."""
    clause = text.split(";", 1)[0].rstrip(".").replace("`", "")
    return clause[:1].lower() + clause[1:]


MEANINGS = {
    **{code: _short(text) for code, text in (ERRORS | CODES).items()},
    "refused": "nothing answers at that address",
    "timeout": "no complete answer in time",
    "dns": "the host name does not resolve",
    "truncated": "the image file ends too early",
    "corrupt": "the image file is broken",
    "not_image": "the answer is no image",
    "incomplete_read": "the server stopped before the announced length",
    "too_large": "more bytes than allowed",
    "too_many_pixels": "more pixels than allowed, refused before decoding",
    "too_many_redirects": "a chain or a circle of redirects",
    "opted_out": "the server asked not to be used for training",
    "address_denied": "the address is not a public one",
    "scheme_denied": "neither http nor https",
    "aspect": "image is too long or too wide",
    "http_404": "the server has no such page",
    "http_410": "the server says it is gone for good",
    "http_429": "the server was asked too often",
    "http_500": "the server failed",
    "http_503": "the server was too busy",
    "hash_mismatch": "not the bytes whose hash the row tells",
    "language": "not in a wanted language",
    "words": "caption has too few words",
    "chars": "caption has too few characters",
    "side": "image is too small",
    "below_threshold": "score is too low",
    "above_threshold": "score is too high",
    "no_value": "has no score",
    "duplicate_image": "the same bytes as another image",
    "near_duplicate": "nearly the same as an earlier image of its cluster",
    "over_quota": "its concept is represented enough",
    "no_embedding": "has no embedding",
    "not_drawn": "not drawn at random",
    "same_file": "the same file as an evaluation image",
    "same_pixels": "the same pixels as an evaluation image",
    "near_hash": "its perceptual hash is near that of an earlier picture, or of an evaluation image",
    "near_embedding": "nearly the same as an evaluation image, to the encoder",
    "same_hash": "the same perceptual hash as an earlier picture",
    "condition": "the condition is not true",
    "null": "the condition has no value",
    "function": "the function said no",
    "outside": "outside of the interval",
    "inside": "inside of the interval",
    "not_among_top": "not among the best",
    "no_quota": "its group has no quota",
    "no_group": "belongs to no group",
    "no_share": "its group has no share",
    "over_share": "its group has its share",
    "no_class": "belongs to no class",
    "no_entry": "names no entry of the list",
    "not_chosen": "not chosen into the set",
    "not_in_all": "not in all of the subsets",
    "in_none": "in none of the subsets",
    "not_in_first": "not in the first subset",
    "in_another": "in a subset that is taken away",
    "not_listed": "not in the subset file",
    "listed_for_another_row": "the subset file means another row with this uid",
}
"""What reasons mean, in the words of the report."""

DEMO_NOTES = (
    "The pool is a demonstration: real handwritten digits with planted faults at chosen rates. Claim the paired "
    "differences between subsets, not that other pools behave alike.",
    "The shipped share of wrong captions was raised, in pilots that partly looked at the test pictures, until the "
    "unfiltered arm was clearly hurt: that it is hurt is a choice, not a finding.",
    "The scans do not say who wrote them, so the same hands appear in training and test pictures.",
)
SEED_NOTE = (
    "Intervals are Student's t over training seeds (initialisation and order). The pool, the filter network and the "
    "evaluation set are the same for all seeds, so their own chance is not in them."
)


def whole_report(run: RunData) -> Report:
    """Everything that the finished stages have to show; the rest is left out."""
    config = run.config
    truth = Truth.of_run(run)
    headline, leaderboard = results(run)
    language = language_column(run)
    columns = distributions(run, truth, told=[language] if language else [])
    is_demo = any(source.type == "demo" for source in config.pool.named().values())
    return Report(
        header=Header(config.name, _summary(config)),
        headline=headline,
        notes=[*(DEMO_NOTES if is_demo else ()), *([SEED_NOTE] if leaderboard else [])],
        pool=pool_section(run),
        funnels=funnels(run),
        histograms=columns.histograms,
        galleries=galleries(run, truth),
        truth=filter_truth(run, truth) if truth else [],
        clusters=cluster_maps(run, truth),
        curves=curves(run),
        trainings=trainings(run),
        leaderboard=leaderboard,
        scaling=scaling(run),
        networks=filter_networks(run, leaderboard),
        looks=looks(run),
        commonest=columns.commonest,
        learned=learned_scores(run),
        score_facts=score_facts(run, columns.not_drawn),
        overlap=overlap(run),
        filter_facts=filter_facts(run),
        quotas=quotas(run),
        leakage=leakage(run),
        stages=_stages(run),
        provenance=_provenance(run),
        meanings=MEANINGS,
    )


def _summary(config: Config) -> str:
    told = f"{len(config.subsets)} subsets of one pool"
    if config.pretrain:
        p = config.pretrain
        seeds = f"{p.seeds} seeds" if p.seeds > 1 else "one seed"
        model = p.model.rstrip("/").rsplit("/", 1)[-1]
        told += f", {len(config.trained_subsets())} trained at {p.samples_seen:,} samples seen each, {seeds}"
        told += f"; {model}, {p.recipe.type}"
    return told


def _stages(run: RunData) -> Stages:
    """Time of every stage: seconds of work, summed over its calls; stages wait for each other's workers."""
    times = []
    for name, artifact in run.named("stage").items():
        receipt = artifact.receipt
        summary = receipt["summary"]
        items = summary.get("rows") or summary.get("entered") or summary.get("samples")
        times.append(
            StageTime(
                name,
                receipt["part_seconds"],
                parts=receipt.get("parts") or None,
                items=items,
                unit="rows",
                bytes=summary.get("bytes"),
                peak_bytes=receipt["peak_bytes"] or None,
                cost=stage_cost(receipt, run.config.report),
            )
        )
    return Stages(times)


def _provenance(run: RunData) -> Provenance:
    config = run.config.model_dump(mode="json", exclude_defaults=True)
    stages = run.named("stage")
    pretrain = run.config.pretrain
    return Provenance(
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        command="curate run CONFIG, with the config below",
        fingerprints={name: a.receipt["fingerprint"] for name, a in stages.items()},
        versions=run.pool.receipt["versions"],
        machine={
            "system": f"{platform.system()} {platform.machine()}",
            "CPUs": str(os.cpu_count()),
            "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GB",
        },
        seeds=[run.config.seed, *range(pretrain.seeds if pretrain else 0)],
    )
