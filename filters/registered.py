"""The registries with everything in them: import `FILTERS` and `SCORERS` from here.

Importing a module registers its class; nothing heavy (torch, faiss, fasttext) is imported until it is used.
"""

from __future__ import annotations

from . import basic, concept_clusters, exact_dedup, random, semantic_dedup, threshold, top_fraction, uids
from .base import FILTERS, SCORERS
from .scorers import caption_statistics, clip_similarity, language

MODULES = (
    basic,
    threshold,
    top_fraction,
    exact_dedup,
    semantic_dedup,
    concept_clusters,
    random,
    uids,
    clip_similarity,
    language,
    caption_statistics,
)

__all__ = ["FILTERS", "MODULES", "SCORERS"]
