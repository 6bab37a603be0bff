"""Arrays in, numbers out; and what happened to each sample."""
