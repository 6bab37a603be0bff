"""Errors meant for the person at the keyboard: what, where, and what to do.

The command line prints the message of a `CurateError` in one line, without a traceback, and exits with
`exit_code`. Anything else that escapes is a bug and shows its traceback.
"""

from __future__ import annotations


class CurateError(Exception):
    """A failure that a person can act on."""

    exit_code = 1


class ConfigError(CurateError):
    """The config (or a path, model or option that it names) is wrong; nothing was run."""

    exit_code = 2


class DataError(CurateError):
    """The data cannot be used as asked: an empty pool, a torn file, a filter that keeps nothing."""


class StorageError(CurateError):
    """A disk or object store refused: full, read-only, missing."""


class Interrupted(CurateError):
    """Stopped on request (Ctrl-C, SIGTERM); running the same command again goes on."""

    exit_code = 130
