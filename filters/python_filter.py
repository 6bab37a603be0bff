"""`python`: keep samples by a function of your own, named in the config: ``table -> keep``.

    # my_filters.py, in the folder that `curate run` is started in
    def not_shouting(table, at_most=3):
        words = [(c or "").split() for c in table["caption"].to_pylist()]
        return np.array([sum(w.isupper() for w in row) <= at_most for row in words])

    subsets: {calm: [{type: python, function: "my_filters:not_shouting", columns: [caption], options: {at_most: 2}}]}

The function gets the rows of one part that are still alive as a `pyarrow.Table` and returns a value per row: bool, or
an integer: how often the row is kept, 0 = dropped. Rows with null are dropped as `null`. A dictionary may add the
number it decided by, and text for dropped rows: ``{"keep": ..., "value": ..., "reason": ...}``. A function that must
see the whole pool is no filter of this kind; one that looks at other rows of its part gives results that depend on the
sharding. Loading, the fingerprint and `depends` are the scorer's (`scorers/python_function.py`).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ..errors import DataError
from .base import FILTERS, Context, Decision, Filter, Part
from .scorers.python_function import PythonFunction

KEEP = "keep"
MOST = np.iinfo(np.int32).max


@FILTERS.register
class PythonFilter(Filter):
    """Keep what a Python function says."""

    type: Literal["python"] = "python"
    function: str = Field(
        pattern=r"^[^:]+:[A-Za-z_]\w*$",
        description="`module:function`, imported as Python does, the folder that the run is started in first; or "
        "`path/to/file.py:function`.",
    )
    columns_: list[str] = Field(
        alias="columns",
        min_length=1,
        description="Columns that it gets: of the row table (`caption`, ...), scores, embeddings (`clip.image`).",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the function.")
    depends: list[str] = Field(
        default_factory=list, description="More files that the result depends on: modules, weights, word lists."
    )

    def _scorer(self) -> PythonFunction:
        """The function as a column, which is all that a filter adds to."""
        return PythonFunction(function=self.function, columns=self.columns_, options=self.options, depends=self.depends)

    def columns(self) -> list[str]:
        return list(self.columns_)

    def files(self) -> list[str]:
        return self._scorer().files()

    def fit_in(self, context: Context) -> Any:
        return self._scorer().fit(context)

    def decide(self, part: Part, state: Any) -> Decision:
        answer = {k: pa.array(v) for k, v in self._scorer().score(part, KEEP, state).items()}
        where = f"function {self.function!r} on part {part.name}"
        known = {KEEP, f"{KEEP}_value", f"{KEEP}_reason"}
        if more := set(answer) - known:
            extra = sorted(more)[0].removeprefix(f"{KEEP}_")
            raise DataError(f"{where} returned {extra!r}; a filter returns `keep` first, then `value` and `reason`")
        times, missing = _times(answer[KEEP], where)
        reason = np.full(len(part), "function", object)
        if f"{KEEP}_reason" in answer:
            given = answer[f"{KEEP}_reason"]
            if not (pa.types.is_string(given.type) or pa.types.is_large_string(given.type)):
                raise DataError(f"{where} returned {given.type} as `reason`; it must be text")
            reason = np.array(given.fill_null("function").to_pylist(), object)
        reason[missing] = "null"
        value = np.full(len(part), np.nan, np.float32)
        if f"{KEEP}_value" in answer:
            given = answer[f"{KEEP}_value"]
            if not (pa.types.is_floating(given.type) or pa.types.is_integer(given.type)):
                raise DataError(f"{where} returned {given.type} as `value`; it must be numbers")
            value = given.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        return Decision(times > 0, value, reason, np.maximum(times, 1).astype(np.int32))

    def describe(self, state: Any) -> dict[str, Any]:
        return {} if state is None else self._scorer().describe(state)


def _times(keep: pa.Array, where: str) -> tuple[np.ndarray, np.ndarray]:
    """How often each row is kept, ``(n,) int64``, and which rows have no answer.

    Raises:
        DataError: neither bools nor whole numbers, or negative or immense ones.
    """
    if not (pa.types.is_boolean(keep.type) or pa.types.is_integer(keep.type) or pa.types.is_null(keep.type)):
        raise DataError(f"{where} returned {keep.type}; a filter returns bools, or integers: how often a row is kept")
    missing = keep.is_null().to_numpy(zero_copy_only=False)
    times = keep.cast(pa.int64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
    if len(times) and (times.min() < 0 or times.max() > MOST):
        raise DataError(f"{where} returned {int(times.min())} to {int(times.max())}; a row is kept 0 to {MOST} times")
    return times, missing
