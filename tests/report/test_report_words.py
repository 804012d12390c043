"""Numbers and names as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfmeta.report import clean, integer, percent, seconds, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (61_706, "61.7 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (3_200_000, "3.2 MB"),
        (2_500_000_000_000, "2,500.0 GB"),
    ],
)
def test_bytes_count_in_thousands(count: int, text: str) -> None:
    assert size(count) == text


def test_numbers() -> None:
    assert percent(97.5) == "97.50 %"
    assert integer(1234567) == "1,234,567"
    assert [seconds(value) for value in (7.25, 59.94, 185, 119.6)] == [
        *("7.2 s", "59.9 s"),
        *("3 min 05 s", "2 min 00 s"),
    ]


@given(st.text())
def test_clean_text_is_printable_and_printable_text_stays(text: str) -> None:
    assert clean(text).isprintable()
    assert clean(text) == text or not text.isprintable()
