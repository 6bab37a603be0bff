"""From shards to batches: which samples, in which order, how pictures, captions and labels reach the model."""
