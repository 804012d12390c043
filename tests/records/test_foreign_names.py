"""Which weight a name from another tool means."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dfmeta.errors import DataError, MissingExtra, SchemaError, UnknownName
from dfmeta.graph.operator_inputs import OperatorInput
from dfmeta.records.foreign_names import by_map, by_rules, llama_names, read_map


def read(weight: str, label: str = "") -> OperatorInput:
    return OperatorInput(label or f"op of {weight}", "MatMul", weight, "x", 2)


LAYERS = tuple(
    read(f"model.layers.{layer}.{part}.weight")
    for layer in (0, 1, 11)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj")
)
TRACED = (
    read("onnx::MatMul_17", "/model/layers.0/self_attn/q_proj/MatMul"),
    read("onnx::MatMul_18", "/model/layers.0/mlp/down_proj/MatMul"),
    read("fc.weight", "node_linear"),
)


def names(matched: tuple[OperatorInput, ...]) -> list[str]:
    return [one.weight for one in matched]


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("model.layers.1.mlp.up_proj.weight", ["model.layers.1.mlp.up_proj.weight"]),
        ("layers.1.mlp.up_proj", ["model.layers.1.mlp.up_proj.weight"]),
        ("module.model.layers.1.mlp.up_proj.weight", ["model.layers.1.mlp.up_proj.weight"]),
        ("blk.11.attn_q.weight", ["model.layers.11.self_attn.q_proj.weight"]),
        ("blk.1.ffn_up.weight", ["model.layers.1.mlp.up_proj.weight"]),
        ("1_o", ["model.layers.1.self_attn.o_proj.weight"]),
        ("1_qkv", ["model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight"]),
        ("1_up", ["model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.up_proj.weight"]),
    ],
)
def test_rules(name: str, weights: list[str]) -> None:
    found = by_rules([name], LAYERS)
    assert names(found.reads[name]) == weights
    assert not found.unmatched


@pytest.mark.parametrize(
    "name", ["1_norm", "5_qkv", "blk.1.attn_norm.weight", "up_proj", "blk.7.attn_q.weight", "1_up2"]
)
def test_what_fits_no_rule_is_named(name: str) -> None:
    found = by_rules([name], LAYERS)
    assert not found.reads
    assert [one.name for one in found.unmatched] == [name]


def test_names_of_nodes_serve_where_weights_have_none() -> None:
    found = by_rules(["blk.0.attn_q.weight", "0_down", "node_linear"], TRACED)
    assert {name: names(reads) for name, reads in found.reads.items()} == {
        "blk.0.attn_q.weight": ["onnx::MatMul_17"],
        "0_down": ["onnx::MatMul_18"],
        "node_linear": ["fc.weight"],
    }


def test_what_could_be_several_weights_is_left_to_a_map() -> None:
    reads = (read("fc.weight"), read("model.fc.weight"))
    found = by_rules(["module.fc"], reads)
    assert "could be any of op of fc.weight, op of model.fc.weight" in found.unmatched[0].reason
    assert names(by_rules(["fc.weight"], reads).reads["fc.weight"]) == ["fc.weight"]


def test_a_map_is_all_that_counts_beside_equal_names() -> None:
    given = {"a": ("fc.weight", "/model/layers.0/mlp/down_proj/MatMul")}
    found = by_map(["a", "blk.0.attn_q.weight", "fc.weight"], TRACED, given)
    assert names(found.reads["a"]) == ["fc.weight", "onnx::MatMul_18"]
    assert names(found.reads["fc.weight"]) == ["fc.weight"]
    assert [(one.name, one.reason) for one in found.unmatched] == [("blk.0.attn_q.weight", "the map does not have it")]
    with pytest.raises(UnknownName, match="name in the map: found 'b'"):
        by_map(["a"], TRACED, {"b": ("fc.weight",)})
    with pytest.raises(UnknownName, match=r"Did you mean 'fc\.weight'"):
        by_map(["a"], TRACED, {"a": ("fc.weights",)})


@pytest.mark.parametrize("text", ["[]", "{}", '{"a": 1}', '{"a": []}', '{"a": ["b", 1]}', '"a"'])
def test_a_map_is_an_object_of_names(text: str, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(DataError, match=str(path)):
        read_map(str(path))


def test_a_map_is_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{"a": "b", "a": "c"}')
    with pytest.raises(SchemaError, match="duplicate"):
        read_map(str(path))
    path.write_text(json.dumps({"a": "b", "c": ["d", "e"]}))
    assert read_map(str(path)) == {"a": ("b",), "c": ("d", "e")}


def test_names_for_llama_cpp() -> None:
    found = llama_names((*LAYERS, *TRACED, read("lm_head.weight")))
    assert found["model.layers.11.self_attn.q_proj.weight"] == "blk.11.attn_q.weight"
    assert found["onnx::MatMul_18"] == "blk.0.ffn_down.weight"
    assert found["lm_head.weight"] == "output.weight"
    assert "fc.weight" not in found


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gguf", "gguf.constants", "gguf.tensor_mapping"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"dfmeta\[imatrix\]"):
        by_rules(["blk.0.attn_q.weight"], LAYERS)
    with pytest.raises(MissingExtra, match=r"dfmeta\[imatrix\]"):
        llama_names(LAYERS)
    assert by_rules(["1_o", "fc.weight"], (*LAYERS, *TRACED)).reads
