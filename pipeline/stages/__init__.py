"""The stages of a run, one kind per file, in the order in which a run does them."""
