"""`curate init`: a commented starter config."""

from __future__ import annotations

import os

from rich.console import Console

from ...errors import ConfigError
from ...shards import storage

STARTER = """\
# A curate run. `curate check FILE` validates it, `curate plan FILE` shows the stages, `curate run FILE` does the work
# and, after a kill, goes on where it was. `curate schema` prints all options.
name: my-run
workdir: runs            # finished work is kept here and reused by every run
seed: 0

pool:
  # Rows with a URL and a caption: parquet, csv, tsv or jsonl. Use {type: shards, path: folder/} for existing
  # WebDataset shards, or {type: demo} to try everything on a small built-in web.
  source: {type: urls, path: "pool/*.parquet", url: url, caption: text}
  image: {size: 256, resize: keep_ratio_largest}
  samples_per_shard: 10000

encoders:
  clip: {model: ViT-B-32, pretrained: models/vit_b32.pt}    # a local open_clip checkpoint

scores:                  # columns over the whole pool, computed once
  clip_score: {type: clip_similarity, encoder: clip}
  language: {type: language}

subsets:                 # named strategies: ordered lists of filters
  everything: []
  clip30:
    - {type: top_fraction, by: clip_score, keep: 0.3}
  curated:
    - {type: basic, languages: [en], min_words: 3, min_chars: 6, min_side: 200, max_aspect: 3.0}
    - {type: exact_dedup, on: [image]}
    - {type: semantic_dedup, encoder: clip, clusters: 100, epsilon: 0.07}
    - {type: top_fraction, by: clip_score, keep: 0.4}
  random:                # the control: as many samples as curated, chosen at random
    - {type: random, like: curated}

release: {subsets: [curated]}

# One model per subset and seed, all at exactly the same number of samples seen. Recipes: clip, siglip, supervised
# (learns a column of labels), datacomp (brings model and budget). Optimizers, schedules, phases: docs/pretraining.md.
# pretrain:
#   recipe: {type: clip, batch_size: 4096, lr: 5.0e-4, warmup: 500}
#   # recipe: {type: supervised, labels: {column: label}}, with a model such as timm:resnet50
#   # recipe: {type: datacomp, scale: small}, without model and samples_seen
#   model: ViT-B-32
#   samples_seen: 12_800_000
#   seeds: 3
#   # processes: 8             # that train one model together, a GPU each
# How good the models are. Suites: zero_shot, retrieval, linear_probe, knn, supervised (for models with a head) and more
# in docs/evaluation.md; sets: folders in CLIP_benchmark's layout, image folders, parquet, built-in ones (digits).
# eval:
#   suites: [zero_shot, retrieval, {type: linear_probe, sets: ["vtab-*"]}]
#   data: [evalsets/]
#   control: everything

cluster: {address: local}   # local (Ray) | processes | inline | auto | the address of a Ray cluster
"""


def write_starter(path: str, out: Console) -> None:
    """Write the starter config; never overwrites a file.

    Raises:
        ConfigError: the file exists.
    """
    if os.path.exists(path):
        raise ConfigError(f"{path!r} exists already; name another file")
    storage.write_bytes(path, STARTER.encode())
    out.print(f"wrote {path}: set pool.source, then `curate check {path}`", markup=False)
