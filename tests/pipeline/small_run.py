"""A small run of everything: the quickstart's config, a twentieth of its size."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import yaml

from curate.pipeline.config_file import ConfigFile

CONFIG = """\
name: small
workdir: {workdir}
seed: 3
pool:
  source: {{type: demo, rows: 240, trusted_rows: 60}}
  image: {{size: 32, resize: keep_ratio}}
  fetch: {{timeout: 10, retries: 1, concurrency: 16}}
  samples_per_shard: 60
encoders:
  dfn:
    model: RN-mini-32
    train:
      data: {{type: demo, split: trusted, rows: 240, trusted_rows: 60}}
      recipe: {{type: clip, batch_size: 32, warmup: 2}}
      samples_seen: 1600
scores:
  dfn_score: {{type: clip_similarity, encoder: dfn}}
  language: {{type: language}}
subsets:
  everything: []
  random:
    - {{type: random, like: curated}}
  curated:
    - {{type: basic, languages: [en], min_words: 3, min_chars: 6, min_side: 24, max_aspect: 3.0}}
    - {{type: exact_dedup, on: [image]}}
    - {{type: semantic_dedup, encoder: dfn, clusters: 4, epsilon: 0.0001}}
    - {{type: top_fraction, by: dfn_score, keep: 0.6}}
    - {{type: concept_clusters, encoder: dfn, clusters: 4, keep: 0.8}}
release: {{subsets: [curated], embeddings: [dfn], samples_per_shard: 20}}
pretrain: {{recipe: {{type: clip, warmup: 2}}, model: RN-mini-32, batch_size: 32, samples_seen: 200, seeds: 2}}
eval: {{suites: [zero_shot, linear_probe], data: [digits], control: everything}}
cluster: {{address: {address}, workers: {workers}}}
"""

VARYING = ("_stats.json", "index.html", "report.json", "dashboard.json", "comparison.json")  # hold durations
VARYING_FOLDERS = ("tensorboard",)


def write_config(folder: Path, address: str = "inline", workers: int = 2, **changes: object) -> str:
    """Write the small config; `changes` are dotted keys with ``__`` for dots."""
    text = CONFIG.format(workdir=folder / "runs", address=address, workers=workers)
    value = ConfigFile(text, "small").values  # plain YAML would read the option `on` as a boolean
    for dotted, new in changes.items():
        target = value
        *path, last = dotted.split("__")
        for key in path:
            target = target[int(key) if key.isdigit() else key]
        target[last] = new
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return str(path)


def curate(*arguments: str, timeout: float = 280) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "curate.pipeline.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env={**os.environ, "COLUMNS": "160"}
    )


def outputs(workdir: Path) -> dict[str, str]:
    """Digest of every finished output file that may not vary, by its path below the artifacts."""
    found = {}
    for artifact in sorted((workdir / "artifacts").iterdir()):
        done = (artifact / "artifact.json").exists() or list(artifact.glob("receipts/*.json"))
        assert done, f"{artifact.name} is not finished"
        for path in sorted((artifact / "data").rglob("*")):
            relative = path.relative_to(workdir / "artifacts")
            if path.is_file() and not path.name.endswith(VARYING) and not set(VARYING_FOLDERS) & set(relative.parts):
                found[str(relative)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
