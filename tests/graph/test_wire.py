"""Parts of a serialized model, counted before they are parsed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dfmeta.errors import GraphError
from dfmeta.graph import Graph, wire

MODEL = onnx.ModelProto.DESCRIPTOR


def valid() -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w"], ["h"], name="layer", alpha=0.5, transB=0),
            helper.make_node("Transpose", ["h"], ["y"], perm=[1, 0]),
        ],
        "g",
        [info("x", TensorProto.FLOAT, ["n", 3])],
        [info("y", TensorProto.FLOAT, [2, "n"])],
        [numpy_helper.from_array(np.ones((3, 2), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def counted(message: Message) -> int:
    """The messages inside, by the parser."""
    inner = [
        part
        for field, content in message.ListFields()
        if field.message_type is not None
        for part in ([content] if isinstance(content, Message) else content)
    ]
    return sum(1 + counted(part) for part in inner)


def refused(raw: bytes, monkeypatch: pytest.MonkeyPatch, messages: int = 10**9, fields: int = 10**9) -> str:
    monkeypatch.setattr(wire, "MAX_MESSAGES", messages)
    monkeypatch.setattr(wire, "MAX_FIELDS", fields)
    return wire.too_many(raw, MODEL)


def test_it_counts_what_the_parser_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = valid()
    raw, count = model.SerializeToString(), counted(model)
    assert refused(raw, monkeypatch, messages=count) == ""
    assert refused(raw, monkeypatch, messages=count - 1) == f"more than {count - 1} messages"


def test_it_counts_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    opset = helper.make_opsetid("", 18)
    model = onnx.ModelProto(ir_version=8, producer_name="a", opset_import=[opset])
    count = 3 + len(opset.ListFields())
    assert refused(model.SerializeToString(), monkeypatch, fields=count) == ""
    assert refused(model.SerializeToString(), monkeypatch, fields=count - 1) == f"more than {count - 1} fields"


def test_a_crowd_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred empty nodes of two bytes each, where fifty messages are allowed."""
    raw = b"\x08\x08\x3a\xc8\x01" + b"\x0a\x00" * 100
    assert len(onnx.load_model_from_string(raw).graph.node) == 100
    monkeypatch.setattr(wire, "MAX_MESSAGES", 50)
    monkeypatch.setattr(onnx, "load_model_from_string", lambda raw: pytest.fail("parsed"))
    with pytest.raises(GraphError, match="more than 50 messages") as caught:
        Graph.from_bytes(raw, "m.onnx")
    assert caught.value.code == "graph-too-large"


@pytest.mark.parametrize(
    "before", [b"\xa3\x06\xa4\x06", b"\xa1\x06" + bytes(8), b"\xa5\x06" + bytes(4), b"\xa2\x06\x01a"]
)
def test_nothing_before_it_hides_a_crowd(before: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that no model has, one of each form, a group among them: the parser passes over all of them."""
    raw = before + valid().SerializeToString()
    count = counted(onnx.load_model_from_string(raw))
    assert count == counted(valid())
    assert refused(raw, monkeypatch, messages=count - 1)


def test_real_models_are_far_from_the_limits() -> None:
    assert counted(valid()) * 1000 < wire.MAX_MESSAGES


@given(st.binary(max_size=100))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_counted_to_an_end(raw: bytes) -> None:
    assert wire.too_many(raw, MODEL) == ""


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_change_of_a_byte_hides_a_message(data: st.DataObject) -> None:
    """Whatever the parser accepts was counted in full."""
    raw = bytearray(valid().SerializeToString())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = counted(onnx.load_model_from_string(bytes(raw)))
    except (DecodeError, ValueError):
        return
    with pytest.MonkeyPatch.context() as patch:
        assert not made or refused(bytes(raw), patch, messages=made - 1)
