"""The sections about scores of the sample report: filter networks, a learned mix, thirty columns, hostile names.

Not a test; `report_sample.py` loads it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from curate.eval.report.data import (
    Commonest,
    Estimate,
    FilterNetwork,
    FilterNetworks,
    Histogram,
    KeptBy,
    Learned,
    LearningCurve,
    Look,
    Report,
    ScoreFacts,
    Tally,
    Weight,
)

HOSTILE_NAME = "</td><script>window.pwned=1</script>"
COLUMNS = (
    "aesthetic",
    "norm_sim_2",
    "norm_sim_inf",
    "s_clip",
    "nsfw",
    "offensive",
    "text_area",
    "t_mars",
    "entropy",
    "blur",
    "blank",
    "original_width",
    "original_height",
    "aspect",
    "words",
    "chars",
    "digits_share",
    "metadata_hits",
    "entity_hits",
    "overlap",
    "el2n",
    "grand",
    "class_prob",
    "imported_score",
    "a_very_long_name_of_a_column_that_somebody_chose",
    HOSTILE_NAME,
)


def with_scores(report: Report) -> Report:
    """The report with everything that scores have to show."""
    rng = np.random.Generator(np.random.Philox(key=23))
    return dataclasses.replace(
        report,
        histograms=[*report.histograms, *(_histogram(rng, name, report) for name in COLUMNS)],
        networks=networks(report),
        looks=looks(report),
        commonest=commonest(report),
        learned=learned(),
        score_facts=facts(),
    )


def _histogram(rng: np.random.Generator, name: str, report: Report) -> Histogram:
    assert report.pool is not None
    kinds = (rng.normal(0.3, 0.1, 4000), rng.gamma(2, 0.1, 4000), rng.beta(8, 2, 4000), rng.integers(0, 12, 4000))
    values = kinds[len(name) % 4][: report.pool.fetched - 17]
    wrong = rng.random(len(values)) < 0.3
    counts, edges = np.histogram(values, np.linspace(values.min(), values.max(), 61))
    bad = np.histogram(values[wrong], edges)[0].tolist()
    good = np.histogram(values[~wrong], edges)[0].tolist()
    return Histogram(name, edges.tolist(), counts.tolist(), missing=17, correct=good, wrong=bad)


def networks(report: Report) -> FilterNetworks:
    """Two networks that rank otherwise than what they keep, and one that nothing uses."""
    assert report.leaderboard is not None
    assert report.pool is not None
    kept = {f.subset: f.kept for f in report.funnels}
    arms = {a.name: dict(a.scores) for a in report.leaderboard.arms}
    first, second = (m.name for m in report.leaderboard.metrics)
    return FilterNetworks(
        report.leaderboard.metrics,
        [
            FilterNetwork(
                "dfn",
                "trained here",
                "RN-mini-32",
                300,
                19_200,
                {first: Estimate(0.684, 0.64, 0.725), second: Estimate(0.947, 0.922, 0.964)},
                [
                    KeptBy("curated", kept["curated"], ["4-top_fraction by mix"], arms["curated"]),
                ],
            ),
            FilterNetwork(
                "big_clip",
                "loaded from <b>weights</b>/ViT-L-14.pt",
                "ViT-L-14",
                scores={first: Estimate(0.861, 0.826, 0.89), second: Estimate(0.984, 0.968, 0.992)},
                subsets=[KeptBy("clip_top", kept["clip_top"], ["1-top_fraction by big_score"], arms["clip_top"])],
            ),
            FilterNetwork("idle", "trained here", "ViT-mini-8-32", 12, 640, {first: Estimate(0.131, 0.1, 0.17)}),
        ],
        report.pool.rows,
        "everything",
        arms["everything"],
    )


def looks(report: Report) -> list[Look]:
    """Encoders, a score of pixels and an import; all add up to the pool's rows."""
    assert report.pool is not None
    rows, gone = report.pool.rows, report.pool.rows - report.pool.fetched

    def tally(what: str, **nulls: int) -> Tally:
        named = {"not fetched": gone} | {k.replace("_", " "): n for k, n in nulls.items()}
        return Tally(what, rows - sum(named.values()), named)

    return [
        Look(
            "dfn",
            "encoder",
            rows,
            [
                tally("images", corrupt=3, missing_from_the_tar=1, not_finite=0),
                tally("captions", no_caption=41, not_finite=2),
            ],
        ),
        Look("big_clip", "encoder", rows, [tally("images", corrupt=3, missing_from_the_tar=1), tally("captions")]),
        Look("nsfw", "score of pixels", rows, [tally("images", corrupt=3, missing_from_the_tar=1)]),
        Look(
            "clip_l14",
            "imported embeddings",
            rows,
            [tally("images", no_match=212), tally("captions", no_match=212)],
            {"rows": 5000, "malformed": 3, "repeated": 12, "conflicting": 0, "not_in_pool": 1431},
        ),
        Look(HOSTILE_NAME, "imported score", rows, [tally("rows", no_match=4)]),
    ]


def commonest(report: Report) -> list[Commonest]:
    """Words and a flag."""
    assert report.pool is not None
    fetched = report.pool.fetched
    top = {"tabby cat": 800, "<script>window.pwned=1</script>": 412, "a\u202eb": 40, "": 7, "x" * 300: 3}
    rest = fetched - sum(top.values()) - 20
    return [
        Commonest("spoken", {"en": fetched - 120, "de": 60, "und": 60}, 3),
        Commonest("top_class", top, 321, rest, 20, "The likeliest of 1,000 classes."),
        Commonest("has_text", {"no": fetched - 300, "yes": 290}, 2, 0, 10),
    ]


def learned() -> list[Learned]:
    """A mix of thirty columns with intervals, one without, and a head."""
    rng = np.random.Generator(np.random.Philox(key=29))
    weights = []
    for i, name in enumerate(COLUMNS):
        center = float(rng.normal(0, 0.5 / (1 + i / 4)))
        seeds = (center + rng.normal(0, 0.06, 3)).tolist()
        weights.append(
            Weight(
                name,
                center,
                center - 0.12,
                center + 0.12,
                float(rng.normal()),
                float(rng.random()),
                i * 7,
                seeds,
                0.5 + i / 60,
            )
        )
    weights[4].std = 0.0
    steps = list(range(0, 401, 10))
    curves = [
        LearningCurve(seed, steps, [2.3 * float(np.exp(-s / 150)) + 0.4 + float(rng.normal(0, 0.05)) for s in steps])
        for seed in range(3)
    ]
    facts = {
        "trusted_rows": 300,
        "seeds": {"0": 0.71, "1": 0.7},
        "training": {"steps": 400, "model": HOSTILE_NAME, "lr": 0.0001},
        "long": list(range(100)),
    }
    return [
        Learned(
            "mix",
            "m_flyt",
            weights,
            "Student t over 3 seeds",
            curves,
            0.913,
            "over 60 trusted and 400 pool rows that were held out",
            facts,
        ),
        Learned("plain", "fixed", [Weight("aesthetic", 1.0), Weight("s_clip", -0.5), Weight("blur", 0.0)]),
        Learned("head", "flyt", curves=curves[:1]),
        Learned("odd", HOSTILE_NAME, [Weight("aesthetic", 1e-9, -1e-9, 3e-9, 0.0, 0.0, 0)]),
    ]


def facts() -> list[ScoreFacts]:
    """What scorers say of themselves."""
    return [
        ScoreFacts("nsfw", "nsfw", "", {"model": "nsfw.onnx", "sha256": "8f" * 32, "licence": "MIT", "threshold": 0.5}),
        ScoreFacts(
            "s_clip",
            "s_clip_loss",
            "encoder dfn, batch_size 4096",
            {"temperature": 0.01, "batch_size": 4096, "one_batch_of_all": False, "permutations": 5, "scored": 3680},
        ),
        ScoreFacts("phash", "perceptual_hash", not_drawn={"phash": "uint64"}),
        ScoreFacts(HOSTILE_NAME, "import", "path <b>scores</b>.parquet", {HOSTILE_NAME: {HOSTILE_NAME: "a\u202eb"}}),
        ScoreFacts("plain", "clip_similarity"),
    ]
