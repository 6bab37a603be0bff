"""Trained models at work: folders on disk, and images and captions turned into embeddings."""
