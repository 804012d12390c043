"""The strict JSON parser: each thing it refuses, and that it agrees with the standard parser on the rest."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfmeta.errors import SchemaError
from dfmeta.schema.json_strict import Limits, parse

SMALL = Limits(size=1000, depth=3, string_bytes=8, array_items=3, object_members=3)
CASES = [
    (b'{"a": 1, "b": {"c": 2, "c": 3}}', "duplicate-key", "b.c", "the key more than once"),
    (b'{"a": [NaN]}', "not-a-number", "a[0]", "NaN"),
    (b"-Infinity", "not-a-number", "document", "-Infinity"),
    (b"[1e999]", "number-out-of-range", "[0]", "'1e999'"),
    (b"9007199254740992", "number-out-of-range", "document", "9007199254740992"),
    (b"[" + b"9" * 900 + b"]", "number-out-of-range", "[0]", "…"),
    (b'["\\ud800"]', "lone-surrogate", "[0]", "half of a surrogate pair"),
    (b'{"\\udc00": 1}', "lone-surrogate", "'\\udc00'", "half of a surrogate pair"),
    (b"[[[[1]]]]", "too-deep", "byte 3", "4 levels"),
    (b'{"a": "123456789"}', "string-too-long", "a", "9 bytes"),
    (b"[1, 2, 3, 4]", "too-many-items", "document", "4 items"),
    (b'{"a":1,"b":2,"c":3,"d":4}', "too-many-items", "document", "4 members"),
    (b" " * 1001, "too-large", "document", "1001 bytes"),
    (b"\xef\xbb\xbf{}", "byte-order-mark", "document", "a byte order mark"),
    (b'"\xff"', "not-utf8", "byte 1", "not UTF-8"),
    (b'"\xed\xa0\x80"', "not-utf8", "byte 1", "not UTF-8"),
    (b"{} {}", "not-json", "line 1 column 4", "Extra data"),
    (b"", "not-json", "line 1 column 1", "Expecting value"),
    (b"{'a': 1}", "not-json", "line 1 column 2", "property name"),
    (b'"a\nb"', "not-json", "line 1 column 3", "control character"),
]


@pytest.mark.parametrize(("raw", "code", "where", "found"), CASES)
def test_each_fault_has_its_code_place_and_text(raw, code, where, found):
    with pytest.raises(SchemaError) as caught:
        parse(raw, "some.json", SMALL)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == (code, where)
    assert found in problem.found
    assert str(caught.value).startswith("some.json: found 1 problem")


def test_all_problems_are_reported_and_not_only_the_first():
    with pytest.raises(SchemaError) as caught:
        parse(b'{"a": NaN, "a": [1e999], "b": "\\udfff"}', "x")
    assert [problem.code for problem in caught.value.problems] == [
        *("not-a-number", "duplicate-key", "number-out-of-range", "lone-surrogate"),
    ]


@pytest.mark.parametrize("raw", [b'"' * 400_001, b'"\\' * 200_000, b"[" * 4_000_000, b'{"a":' * 800_000])
def test_hostile_text_is_refused_in_linear_time(raw):
    began = time.perf_counter()
    with pytest.raises(SchemaError):
        parse(raw, "x")
    assert time.perf_counter() - began < 5


def test_brackets_inside_strings_are_not_nesting():
    text = '[{\\"' * 100
    assert parse(json.dumps([text]).encode(), "x") == [text]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_well_formed_reads_as_the_standard_parser_reads_it(value):
    raw = json.dumps(value, ensure_ascii=False).encode()
    assert parse(raw, "x") == json.loads(raw)


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_but_a_schema_error(raw):
    with contextlib.suppress(SchemaError):
        parse(raw, "x")
