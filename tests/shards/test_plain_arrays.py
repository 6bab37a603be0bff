"""Arrow arrays made without pandas' help equal those that `pyarrow.array` makes."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.shards.tables.plain_arrays import int32_array, text_array

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.none() | TEXT))
def test_text(values: list[str | None]) -> None:
    made = text_array(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.string()))


@given(st.lists(st.none() | st.integers(-(2**31), 2**31 - 1)))
def test_integers(values: list[int | None]) -> None:
    made = int32_array(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.int32()))


def test_what_does_not_fit() -> None:
    with pytest.raises(OverflowError):
        int32_array([2**31])
    with pytest.raises(UnicodeEncodeError):
        text_array(["\ud800"])


def test_pandas_stays_out() -> None:
    code = (
        "import sys; sys.modules.pop('pandas', None)\n"
        "from curate.shards.tables.plain_arrays import int32_array, text_array\n"
        "text_array(['a', None]); int32_array([1, None]); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
