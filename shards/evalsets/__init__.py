"""Evaluation sets: what they are (`base`), how they lie on disk, and how they are written."""
