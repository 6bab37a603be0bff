"""`curate overlap` and `curate whatif` over a finished run, against its files."""

import json
import os
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from rich.console import Console
from small_run import curate, write_config

from curate.errors import ConfigError, CurateError, DataError
from curate.pipeline.commands.explain import find_samples
from curate.pipeline.commands.overlap import show_overlap
from curate.pipeline.commands.whatif import show_what_if, what_if
from curate.pipeline.config import load
from curate.pipeline.plan import make_plan
from curate.pipeline.run_folder import RunFolder

pytestmark = pytest.mark.slow


def subset(config: str, name: str) -> dict[str, Any]:
    """uid -> dfn_score of the rows of a subset."""
    loaded, _ = load(config)
    plan, folder = make_plan(loaded), RunFolder.of(loaded)
    fates = folder.artifact(plan.named(f"subset/{name}")).data
    scores = folder.artifact(plan.named("score/dfn_score")).data
    query = (
        f"select f.uid, s.dfn_score from read_parquet('{fates}/*.parquet', file_row_number=true, filename=true) f "
        f"join read_parquet('{scores}/*.parquet', file_row_number=true, filename=true) s "
        "on f.file_row_number = s.file_row_number and parse_filename(f.filename) = parse_filename(s.filename) "
        "where f.kept"
    )
    return dict(duckdb.execute(query).fetchall())


def said(show: Any, *arguments: Any, **options: Any) -> str:
    console = Console(width=200, record=True, file=open(os.devnull, "w"), highlight=False)  # noqa: SIM115
    show(*arguments, console, **options)
    return console.export_text()


def files(workdir: Path) -> list[str]:
    return sorted(str(p) for p in workdir.rglob("*"))


def test_overlap_counts_what_the_fates_say(reference_run):
    config, _, _ = reference_run
    told = json.loads(said(show_overlap, config, [], as_json=True))
    names = told["subsets"]
    assert names == ["everything", "random", "curated"]
    rows = {name: set(subset(config, name)) for name in names}
    assert told["rows"] == [[len(rows[a] & rows[b]) for b in names] for a in names]
    table = said(show_overlap, config, [], view="jaccard").splitlines()
    assert len(table[1].split()) == 3 + len(names)
    with pytest.raises(ConfigError, match="did you mean 'jaccard'"):
        show_overlap(config, [], Console(), view="jacard")


def test_what_one_more_filter_would_drop(reference_run):
    config, workdir, _ = reference_run
    before = files(workdir)
    found = what_if(config, "curated", "{type: threshold, by: dfn_score, at_least: 0.05}", 3)
    scores = subset(config, "curated")
    kept = {uid: s for uid, s in scores.items() if s >= np.float32(0.05)}
    assert (found.summary["entered"], found.summary["kept"]) == (len(scores), len(kept))
    assert found.summary["reasons"] == {"below_threshold": len(scores) - len(kept)}
    assert found.spreads[True].quantiles[0] == min(kept.values())
    assert found.spreads[False].quantiles[0] == min(scores.values())
    nearest = sorted(kept, key=lambda uid: kept[uid])[:3]
    assert [one.uid for one in found.shown["just kept"]] == nearest
    assert [one.value for one in found.shown["just kept"]] == [kept[uid] for uid in nearest]
    assert files(workdir) == before


def test_a_filter_of_the_chain_would_drop_what_it_dropped(reference_run):
    """`curated` begins with everything, so its first filters, asked about `everything`, decide as they did there."""
    config, workdir, _ = reference_run
    before = files(workdir)
    loaded, _ = load(config)
    plan, folder = make_plan(loaded), RunFolder.of(loaded)
    done = folder.artifact(plan.named("subset/curated/1-basic")).summary
    options = "type: basic, languages: [en], min_words: 3, min_chars: 6, min_side: 24, max_aspect: 3.0"
    assert what_if(config, "everything", options).summary == done
    shuffled = what_if(config, "everything", "{type: semantic_dedup, encoder: dfn, clusters: 4, epsilon: 0.001}")
    again = what_if(config, "everything", "{type: semantic_dedup, encoder: dfn, clusters: 4, epsilon: 0.001}")
    assert shuffled == again
    assert files(workdir) == before


@pytest.mark.parametrize(
    ("name", "text", "error", "words"),
    [
        ("curatd", "type: random", ConfigError, "did you mean 'curated'"),
        ("curated", "{type: top_fractoin, keep: 0.1}", ConfigError, "did you mean 'top_fraction'"),
        ("curated", "type: top_fraction, kep: 0.1, by: dfn_score", ConfigError, "did you mean 'keep'"),
        ("curated", "type: threshold, by: dfn_scor, at_least: 1", ConfigError, "did you mean 'dfn_score'"),
        ("curated", "type: threshold, by: sharpness, at_least: 1", ConfigError, "unknown column 'sharpness'"),
        ("curated", "type: semantic_dedup, encoder: clip", ConfigError, "unknown encoder 'clip'"),
        ("curated", "{type: [", ConfigError, "not valid YAML"),
        ("curated", "type: threshold, by: dfn_score, at_least: 9", DataError, "keeps nothing of the"),
    ],
)
def test_what_cannot_be_asked_is_said(reference_run, name, text, error, words):
    config, _, _ = reference_run
    with pytest.raises(error, match=words):
        what_if(config, name, text)


def test_what_is_not_finished_is_named(reference_run, tmp_path):
    _, workdir, _ = reference_run
    fresh = write_config(tmp_path)
    with pytest.raises(CurateError, match=r"not finished: `curate run --until pool` makes it"):
        what_if(fresh, "everything", "{type: random, count: 3}")
    with pytest.raises(CurateError, match="not ingested yet"):
        show_overlap(fresh, [], Console())
    changed = write_config(tmp_path, workdir=str(workdir), subsets__curated__3__keep=0.5)
    with pytest.raises(CurateError, match=r"subset/curated/5-concept_clusters.*not finished"):
        what_if(changed, "curated", "{type: threshold, by: dfn_score, at_least: 0}")
    assert "not finished: random, curated" in said(show_overlap, changed, [])


def test_the_commands_print_what_people_and_machines_read(reference_run):
    config, _, _ = reference_run
    told = curate("whatif", config, "curated", "{type: top_fraction, by: dfn_score, keep: 0.5}")
    assert told.returncode == 0, told.stderr
    n = len(subset(config, "curated"))
    assert told.stdout.startswith(f"of the {n} rows that curated keeps, top_fraction (by dfn_score, keep 0.5) would")
    assert "just kept" in told.stdout
    assert "median" in told.stdout
    machine = json.loads(
        curate("whatif", config, "curated", "type: random, fraction: 0.5", "--json", "--examples", "1").stdout
    )
    assert machine["kept"] + sum(machine["reasons"].values()) == machine["entered"] == n
    assert curate("overlap", config, "--as", "rows").stdout.count("\n") == 5
    wrong = curate("whatif", config, "curated", "nonsense")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)


def test_captions_cannot_drive_a_terminal(reference_run, monkeypatch):
    import curate.pipeline.commands.whatif as module

    config, _, _ = reference_run
    hostile = "\x1b[31mred\u202e[bold]x[/bold]\nnext"
    plain = module._shown
    monkeypatch.setattr(module, "_shown", lambda run, e: module.Shown(plain(run, e).uid, hostile, 1.0, "\x1b]0;x\x07"))
    text = said(show_what_if, config, "curated", "{type: top_fraction, by: dfn_score, keep: 0.5}", size=1)
    assert "\\x1b[31mred\\u202e[bold]x[/bold]\\nnext" in text
    assert "\x1b" not in text


def test_samples_of_the_pool_alone_are_explained(reference_run):
    config, _, _ = reference_run
    loaded, _ = load(config)
    uid = next(iter(subset(config, "curated")))
    (sample,) = find_samples(loaded, make_plan(loaded), uid)
    assert set(sample["fates"]) == {"everything", "random", "curated"}
