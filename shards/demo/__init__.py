"""The demo's own little web: real handwritten-digit scans, made unruly from a seed, with the truth kept aside."""
