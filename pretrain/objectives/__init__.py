"""Losses over the features of a batch, one file each. A recipe names its objective."""
