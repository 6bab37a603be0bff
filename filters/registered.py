"""The registries with everything in them: import `FILTERS` and `SCORERS` from here.

Importing a module registers its class; nothing heavy (torch, faiss, fasttext) is imported until it is used.
"""

from __future__ import annotations

from . import basic, concept_clusters, exact_dedup, random, semantic_dedup, threshold, top_fraction, uids
from .base import FILTERS, SCORERS
from .scorers import (
    aesthetic,
    caption_statistics,
    checksum,
    class_probabilities,
    clip_similarity,
    el2n,
    entity_match,
    flyt,
    image_quality,
    image_size,
    image_text_overlap,
    import_scores,
    language,
    metadata_match,
    mix,
    norm_sim,
    nsfw,
    nudity,
    perceptual_hash,
    prompt_safety,
    python_function,
    s_clip_loss,
    text_in_image,
)

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
    s_clip_loss,
    norm_sim,
    aesthetic,
    prompt_safety,
    class_probabilities,
    language,
    caption_statistics,
    entity_match,
    metadata_match,
    image_size,
    image_quality,
    perceptual_hash,
    checksum,
    nsfw,
    nudity,
    text_in_image,
    image_text_overlap,
    mix,
    flyt,
    el2n,
    import_scores,
    python_function,
)

__all__ = ["FILTERS", "MODULES", "SCORERS"]
