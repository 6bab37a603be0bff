"""curate: from an unruly web of image-text pairs to a released dataset, a trained model and an evaluation report."""

__version__ = "0.1.0"
