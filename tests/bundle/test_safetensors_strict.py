"""The container: golden bytes, agreement with the reference library, and every way a header can lie."""

from __future__ import annotations

import contextlib
import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from dfmeta.bundle import parse_header, write_safetensors
from dfmeta.bundle.safetensors_strict import HEADER_LIMIT, header_length
from dfmeta.errors import Problem, SchemaError

META = {"__metadata__": {"dfmeta": "x"}}
U8 = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


def check(header: object, data: int = 0, sidecar: bool = True) -> list[tuple[str, str]]:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    try:
        parse_header(text, 8 + len(text) + data, "f.safetensors", sidecar)
    except SchemaError as error:
        return [(problem.where, problem.code) for problem in error.problems]
    return []


def test_golden_bytes():
    raw = write_safetensors({"b": np.array([1], dtype=np.uint8), "a": np.array([1.0])}, {"dfmeta": "id"})
    text = (
        b'{"__metadata__":{"dfmeta":"id"},"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},'
        b'"b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}}'
    )
    padded = text + b" " * (-len(text) % 8)
    assert raw == len(padded).to_bytes(8, "little") + padded + b"\0\0\0\0\0\0\xf0\x3f" + b"\x01"


def test_order_of_tensors_does_not_change_the_bytes(arrays):
    backwards = dict(reversed(arrays.items()))
    assert write_safetensors(arrays, {"dfmeta": "x"}) == write_safetensors(backwards, {"dfmeta": "x"})


def test_the_reference_library_reads_what_we_write(arrays):
    read = safetensors.numpy.load(write_safetensors(arrays, {"dfmeta": "x"}))
    assert read.keys() == arrays.keys()
    for name, values in arrays.items():
        assert read[name].dtype == values.dtype
        np.testing.assert_array_equal(read[name], values)


def test_we_read_what_the_reference_library_writes(arrays):
    raw = safetensors.numpy.save(arrays, {"dfmeta": "x"})
    length = header_length(raw[:8], len(raw))
    assert isinstance(length, int)
    header = parse_header(raw[8 : 8 + length], len(raw))
    assert header.tensors.keys() == arrays.keys()
    for name, entry in header.tensors.items():
        assert raw[entry.start : entry.end] == arrays[name].tobytes()
        assert entry.shape == arrays[name].shape


def test_layout_in_memory_does_not_matter():
    values = np.arange(6.0).reshape(2, 3)
    other = np.asfortranarray(values).astype(">f8")
    one, two = (hashlib.sha256(write_safetensors({"a": each}, {"dfmeta": "x"})).digest() for each in (values, other))
    assert one == two


HEADERS = [
    (b' {"__metadata__":{"dfmeta":"x"}}', 0, [("header", "header-start")]),
    (b"[]", 0, [("header", "header-start")]),
    (b"", 0, [("header", "header-start")]),
    (b'{"__metadata__":{"dfmeta":"x"}}x', 0, [("line 1 column 32", "not-json")]),
    (b'{"__metadata__":{"dfmeta":"x","dfmeta":"y"}}', 0, [("__metadata__.dfmeta", "duplicate-key")]),
    (b'{"__metadata__":{"dfmeta":"x"},"a":{"dtype":"U8","dtype":"I8"}}', 0, [("a.dtype", "duplicate-key")]),
    ({}, 0, [("__metadata__", "bad-metadata")]),
    ({"__metadata__": {}}, 0, [("__metadata__", "bad-metadata")]),
    ({"__metadata__": {"dfmeta": "x", "format": "pt"}}, 0, [("__metadata__", "bad-metadata")]),
    ({"__metadata__": {"dfmeta": 1}}, 0, [("__metadata__", "bad-metadata")]),
    ({**META, "A": U8}, 2, [("A", "bad-tensor-name")]),
    ({**META, "../a": U8}, 2, [("'../a'", "bad-tensor-name")]),
    ({**META, "a\0": U8}, 2, [("'a\\x00'", "bad-tensor-name")]),
    ({**META, "a\n": U8}, 2, [("'a\\n'", "bad-tensor-name")]),
    ({**META, "a" * 129: U8}, 2, [(repr("a" * 129)[:60] + "…", "bad-tensor-name")]),
    ({**META, "a": 1}, 0, [("a", "bad-entry")]),
    ({**META, "a": {**U8, "more": 1}}, 2, [("a", "bad-entry")]),
    ({**META, "a": {"dtype": "U8", "shape": [2]}}, 2, [("a", "bad-entry")]),
    ({**META, "a": {**U8, "dtype": "BF16"}}, 2, [("a.dtype", "bad-dtype")]),
    ({**META, "a": {**U8, "dtype": []}}, 2, [("a.dtype", "bad-dtype")]),
    ({**META, "a": {**U8, "shape": [-2]}}, 2, [("a.shape", "bad-shape")]),
    ({**META, "a": {**U8, "shape": [2.0]}}, 2, [("a.shape", "bad-shape")]),
    ({**META, "a": {**U8, "shape": [True, 2]}}, 2, [("a.shape", "bad-shape")]),
    ({**META, "a": {**U8, "shape": 2}}, 2, [("a.shape", "bad-shape")]),
    ({**META, "a": {**U8, "shape": [1] * 8 + [2]}}, 2, [("a.shape", "bad-shape")]),
    ({**META, "a": {**U8, "shape": [0, 2**53 - 1, 2**53 - 1]}}, 2, [("a.shape", "bad-shape")]),
    ({**META, "a": {**U8, "shape": [2**32, 2**32]}}, 2, [("a.shape", "bad-shape")]),
    ({**META, "a": {**U8, "shape": [3]}}, 2, [("a.data_offsets", "bad-offsets")]),
    ({**META, "a": {**U8, "data_offsets": [0, 3]}}, 2, [("a.data_offsets", "bad-offsets")]),
    ({**META, "a": {**U8, "data_offsets": [2, 0]}}, 2, [("a.data_offsets", "bad-offsets")]),
    ({**META, "a": {**U8, "data_offsets": [-2, 0]}}, 2, [("a.data_offsets", "bad-offsets")]),
    ({**META, "a": {**U8, "data_offsets": [0]}}, 2, [("a.data_offsets", "bad-offsets")]),
    ({**META, "a": U8, "b": U8}, 2, [("b", "overlap")]),
    ({**META, "a": U8, "b": {**U8, "data_offsets": [1, 3]}}, 3, [("b", "overlap")]),
    ({**META, "a": U8, "b": {**U8, "data_offsets": [3, 5]}}, 5, [("b", "hole")]),
    ({**META, "a": {**U8, "data_offsets": [1, 3]}}, 3, [("a", "hole")]),
    ({**META, "a": U8}, 9, [("header", "hole")]),
    (META, 1, [("header", "hole")]),
]


@pytest.mark.parametrize(("header", "data", "expected"), HEADERS)
def test_each_lie_is_named(header, data, expected):
    assert check(header, data) == expected


def test_all_lies_are_named_at_once():
    header = {"a": {**U8, "dtype": "X"}, "b": {**U8, "shape": [-1]}}
    assert [code for _, code in check(header, 4)] == ["bad-metadata", "bad-dtype", "bad-shape"]


def test_weights_are_held_to_the_container_only():
    header = {
        "__metadata__": {"format": "pt"},
        "Layer.0.W": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]},
    }
    assert check(header, 2, sidecar=False) == []
    assert check({"Layer.0.W": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 3]}}, 3, sidecar=False)
    assert check({"a\0": U8}, 2, sidecar=False) == [("'a\\x00'", "bad-tensor-name")]
    assert check({"__metadata__": 1}, 0, sidecar=False) == [("__metadata__", "bad-metadata")]


def test_sizes_that_a_container_may_have():
    assert check({**META, "a": {**U8, "shape": []}}, 1) == [("a.data_offsets", "bad-offsets")]
    assert check({**META, "a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]}}, 1) == []
    assert check({**META, "a": {"dtype": "F64", "shape": [0, 7], "data_offsets": [0, 0]}, "b": U8}, 2) == []


@pytest.mark.parametrize(
    ("prefix", "size", "code"),
    [
        (b"\0" * 7, 7, "truncated"),
        (b"\0" * 8, 100, "header-length"),
        ((93).to_bytes(8, "little"), 100, "header-length"),
        (b"\xff" * 8, 100, "header-length"),
        ((HEADER_LIMIT + 1).to_bytes(8, "little"), 2**40, "header-length"),
    ],
)
def test_the_stated_length_is_never_trusted(prefix, size, code):
    problem = header_length(prefix, size)
    assert isinstance(problem, Problem)
    assert problem.code == code


def test_what_may_not_be_written():
    with pytest.raises(SchemaError, match=r"a: found bool, expected one of float16.*\[bad-dtype\]"):
        write_safetensors({"a": np.array([True])}, {"dfmeta": "x"})
    with pytest.raises(SchemaError, match="bad-tensor-name"):
        write_safetensors({"A": np.array([1.0])}, {"dfmeta": "x"})
    with pytest.raises(SchemaError, match="bad-metadata"):
        write_safetensors({"a": np.array([1.0])}, {"dfmeta": "x", "more": "y"})


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda raw: b'{"a":{' + raw))
def test_no_header_raises_anything_but_a_schema_error(raw):
    with contextlib.suppress(SchemaError):
        parse_header(raw, 100)


@pytest.mark.parametrize("sidecar", [True, False])
def test_minus_zero_is_refused_as_the_reference_reader_refuses_it(sidecar):
    """Found by fuzzing: Python reads -0 as an integer, others do not."""
    name = "a" if sidecar else "a-0"
    for shape, offsets in (("[-0]", "[0,0]"), ("[0]", "[-0,0]"), ("[0]", "[0, -0 ]")):
        entry = f'"{name}":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}'
        text = f'{{"__metadata__":{{"dfmeta":"-0"}},{entry}}}'
        raw = len(text).to_bytes(8, "little") + text.encode()
        with pytest.raises(safetensors.SafetensorError):
            safetensors.deserialize(raw)
        with pytest.raises(SchemaError, match=r"bad-shape|bad-offsets"):
            parse_header(text.encode(), len(raw), sidecar=sidecar)
        plain = text.replace("[-0", "[0").replace("-0 ]", "0]")
        assert parse_header(plain.encode(), 8 + len(plain), sidecar=sidecar).tensors[name].shape == (0,)
