"""Shared by all tests: one thread per process (as in workers), nothing from a model hub, no deadlines for examples."""

import os

from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("curate", deadline=None)  # a busy machine is no failure
settings.load_profile("curate")
