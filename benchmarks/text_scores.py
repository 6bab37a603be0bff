"""CPU per caption of the scorers over text, side by side with what the field runs, and with equal answers.

    python benchmarks/text_scores.py [--json] [--quick]

Captions are ten words each from the definitions in WordNet (Debian's ``wordnet-base``), which are real English; entries
are the names of its synsets and, up to 500,000, words and phrases of the same definitions. Peers live in environments
of their own (`peers`): nltk 3.8.1, which DataComp pins, over the same database, and pyahocorasick over padded entries.
The plain loop over entries is timed on a few captions. All sides run with one thread, in turn; figures are medians over
rounds of CPU time. Answers are compared caption by caption. With `--json` the last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DATABASE = "/usr/share/wordnet"
ENTRIES = 500_000
NLTK = ("nltk==3.8.1",)
AHOCORASICK = ("pyahocorasick==2.3.1",)


def timed(function: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Median CPU seconds, and the answer."""
    seconds, answer = [], None
    for _ in range(rounds):
        start = time.process_time()
        answer = function()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), answer


def padded(text: str) -> str:
    for white in "\t\n\r":
        text = text.replace(white, " ")
    for sign in ",.;:?!":
        text = text.replace(sign, f" {sign} ")
    return f" {text} "


# --- inputs


def definitions() -> list[str]:
    if not Path(DATABASE, "data.noun").exists():
        raise SystemExit(f"this benchmark needs the WordNet database in {DATABASE}: apt-get install wordnet-base")
    files = [Path(DATABASE, f"data.{kind}") for kind in ("noun", "verb", "adj")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n")]
    return [line.partition("| ")[2].strip() for line in lines if "| " in line]


def captions_of(texts: Sequence[str], count: int) -> list[str]:
    """The first ten words of every few definitions."""
    long = [" ".join(t.split()[:10]) for t in texts if len(t.split()) >= 10]
    return long[:: max(1, len(long) // count)][:count]


def entries_of(texts: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names of synsets, then words and phrases of two and three words, by first use."""
    entries = dict.fromkeys(names)
    for words in (1, 2, 3):
        for text in texts:
            pieces = padded(text).split()
            for i in range(len(pieces) - words + 1):
                entries.setdefault(" ".join(pieces[i : i + words]), None)
            if len(entries) >= ENTRIES:
                return list(entries)[:ENTRIES]
    return list(entries)


# --- the peers, each in a process of its own: a JSON file in, a JSON file out


def peer_nltk(job: dict[str, Any]) -> dict[str, Any]:
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    nltk.data.path[:] = [job["data"]]
    database = WordNetCorpusReader(nltk.data.find("corpora/wordnet"), None)
    database.synsets("dog")
    as_list, as_set = job["offsets"], set(job["offsets"])

    def decide(caption: str, entities: list[int] | set[int]) -> bool:
        for word in caption.split():
            synsets = database.synsets(word)
            if synsets and synsets[0].offset() in entities:
                return True
        return False

    few = job["captions"][:300]
    listed, _ = timed(lambda: [decide(c, as_list) for c in few], 1)
    fast, kept = timed(lambda: [decide(c, as_set) for c in job["captions"]], job["rounds"])
    return {"list_us": listed / len(few) * 1e6, "set_us": fast / len(kept) * 1e6, "answer": kept}


def peer_ahocorasick(job: dict[str, Any]) -> dict[str, Any]:
    import ahocorasick

    def build() -> Any:
        automaton = ahocorasick.Automaton()
        for i, entry in enumerate(job["entries"]):
            automaton.add_word(f" {entry} ", i)
        automaton.make_automaton()
        return automaton

    seconds, automaton = timed(build, 1)
    texts = job["captions"]
    spent, found = timed(lambda: [sorted({i for _, i in automaton.iter(padded(t))}) for t in texts], job["rounds"])
    return {"build_s": seconds, "us": spent / len(texts) * 1e6, "answer": found}


PEERS = {"nltk": peer_nltk, "ahocorasick": peer_ahocorasick}


def ask(python: Path, peer: str, job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "job.json")
        place.write_text(json.dumps(job))
        subprocess.run([str(python), __file__, "--peer", peer, str(place)], check=True, stderr=subprocess.DEVNULL)
        return json.loads(place.read_text())


def nltk_data(folder: Path) -> str:
    """The database as nltk wants it; it reads two more files, whose content plays no part here."""
    place = folder / "corpora" / "wordnet"
    shutil.copytree(DATABASE, place)
    (place / "lexnames").write_text("".join(f"{i:02d}\tfile.{i}\t1\n" for i in range(45)))
    (place / "index.sense").touch()
    return str(folder)


# --- ours


def measure(count: int, rounds: int) -> dict[str, Any]:
    from peers import venv

    from curate.filters.captions import text
    from curate.filters.scorers.caption_statistics import statistics as caption_statistics
    from curate.filters.scorers.entity_match import EntityMatcher, entities_path, read_wnids
    from curate.filters.scorers.language import fasttext_tokens, identify
    from curate.filters.substring_matcher import SubstringMatcher
    from curate.filters.wordnet import WordNet, synset_names

    texts = definitions()
    captions = captions_of(texts, count)
    n, column = len(captions), text(captions)
    figures: dict[str, Any] = {"captions": n}

    identify(captions[:10])  # loads the model
    seconds, _ = timed(lambda: identify(column), rounds)
    figures["language"] = {"captions_per_s": n / seconds}
    seconds, _ = timed(lambda: fasttext_tokens(column), rounds)
    figures["language"]["tokens_us"] = seconds / n * 1e6

    caption_statistics(text(["x"]))
    seconds, _ = timed(lambda: caption_statistics(column), rounds)
    figures["statistics"] = {"us": seconds / n * 1e6}

    entries = entries_of(texts, synset_names(DATABASE))
    build, matcher = timed(lambda: SubstringMatcher(entries), 1)
    seconds, found = timed(lambda: matcher.match(captions), rounds)
    few = captions[:: n // 20][:20]
    naive, answers = timed(lambda: [[i for i, e in enumerate(entries) if f" {e} " in p] for p in map(padded, few)], 1)
    peer = ask(
        venv("pyahocorasick", AHOCORASICK), "ahocorasick", {"captions": captions, "entries": entries, "rounds": rounds}
    )
    figures["metadata"] = {
        "entries": len(entries),
        "us": seconds / n * 1e6,
        "build_s": build,
        "matches_per_caption": len(found.flatten()) / n,
        "naive_us": naive / len(few) * 1e6,
        "ahocorasick_us": peer["us"],
        "ahocorasick_build_s": peer["build_s"],
        "equal": found.to_pylist() == peer["answer"] and matcher.match(few).to_pylist() == answers,
    }

    load, database = timed(lambda: WordNet(DATABASE), 1)
    wnids = read_wnids(entities_path())
    cold, (first, _) = timed(lambda: EntityMatcher(database, wnids).match(column), rounds)
    warm = EntityMatcher(database, wnids)
    warm.match(column)
    seconds, _ = timed(lambda: warm.match(column), rounds)
    with tempfile.TemporaryDirectory() as folder:
        job = {"captions": captions, "offsets": [int(w[1:]) for w in wnids], "rounds": 1}
        peer = ask(venv("nltk", NLTK), "nltk", job | {"data": nltk_data(Path(folder))})
    figures["entities"] = {
        "us": seconds / n * 1e6,
        "cold_us": cold / n * 1e6,
        "load_s": load,
        "nltk_list_us": peer["list_us"],
        "nltk_set_us": peer["set_us"],
        "equal": (first >= 0).tolist() == peer["answer"],
        "kept": float((first >= 0).mean()),
    }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer captions and rounds")
    parser.add_argument("--peer", nargs=2, metavar=("NAME", "JOB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        name, place = options.peer[0], Path(options.peer[1])
        place.write_text(json.dumps(PEERS[name](json.loads(place.read_text()))))
        return
    figures = measure(*((5_000, 3) if options.quick else (20_000, 5)))
    language, metadata, entities = figures["language"], figures["metadata"], figures["entities"]
    print(f"{figures['captions']} captions of ten words, CPU of one core")
    print(f"language    {language['captions_per_s']:,.0f} captions/s; fastText tokens {language['tokens_us']:.2f} us")
    print(f"statistics  {figures['statistics']['us']:.1f} us per caption")
    print(
        f"metadata    {metadata['us']:.1f} us per caption, {metadata['entries']:,} entries, built in "
        f"{metadata['build_s']:.1f} s; pyahocorasick {metadata['ahocorasick_us']:.1f} us, "
        f"{metadata['ahocorasick_build_s']:.1f} s; plain loop {metadata['naive_us']:,.0f} us; "
        f"equal sets: {metadata['equal']}"
    )
    print(
        f"entities    {entities['us']:.1f} us per caption ({entities['cold_us']:.1f} with nothing remembered); nltk "
        f"{entities['nltk_list_us']:,.0f} us with DataComp's list, {entities['nltk_set_us']:.1f} us with a set; "
        f"equal decisions: {entities['equal']}"
    )
    if options.json:
        flat = {
            "language_per_s": round(language["captions_per_s"]),
            "metadata_us": round(metadata["us"], 2),
            "entities_us": round(entities["us"], 2),
            "statistics_us": round(figures["statistics"]["us"], 2),
            "equal": metadata["equal"] and entities["equal"],
        }
        print(json.dumps(flat | {"figures": figures}))


if __name__ == "__main__":
    sys.exit(main())
