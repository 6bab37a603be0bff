"""Shared by all tests: one thread per process (as in workers), and nothing from a model hub."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
