"""Learners of sample weights: FLYT, and proxies that tell which samples are hard."""
