"""What the gate refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfmeta.errors import GraphError, UnsupportedOperator
from dfmeta.graph import Graph

Change = Callable[[onnx.ModelProto], None]


def valid() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], name="layer"),
        helper.make_node("Relu", ["h"], ["y"], name="act"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["batch", 3])],
        [info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.ones((3, 2), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def load(model: onnx.ModelProto) -> Graph:
    return Graph.from_bytes(model.SerializeToString(), "m.onnx")


def external(tensor: TensorProto, location: str = "../secret") -> TensorProto:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def external_initializer(model: onnx.ModelProto) -> None:
    external(model.graph.initializer[0])


def half_external_initializer(model: onnx.ModelProto) -> None:
    """Entries without the flag: some readers follow them all the same."""
    model.graph.initializer[0].external_data.add(key="location", value="weights")


def external_sparse(model: onnx.ModelProto) -> None:
    values = external(TensorProto(name="s", data_type=TensorProto.FLOAT, dims=[1]))
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def external_attribute(model: onnx.ModelProto) -> None:
    tensor = external(TensorProto(name="a", data_type=TensorProto.FLOAT, dims=[1]))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))


def external_in_subgraph(model: onnx.ModelProto) -> None:
    tensor = external(TensorProto(name="deep", data_type=TensorProto.FLOAT, dims=[1]))
    inner = helper.make_graph([helper.make_node("Constant", [], ["k"], value=tensor)], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))


def sparse_tensor() -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    return helper.make_sparse_tensor(values, indices, [4])


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(sparse_tensor())


def sparse_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], name="thin", sparse_value=sparse_tensor()))


def sparse_list(model: onnx.ModelProto) -> None:
    listed = onnx.AttributeProto(name="many", type=onnx.AttributeProto.SPARSE_TENSORS)
    listed.sparse_tensors.append(sparse_tensor())
    model.graph.node[1].attribute.append(listed)


def sparse_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_sparse_tensor_value_info("thin", TensorProto.FLOAT, [2]))


def function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "Trick", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))


def training(model: onnx.ModelProto) -> None:
    model.training_info.add()


def domain(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.microsoft"


def domain_in_subgraph(model: onnx.ModelProto) -> None:
    odd = helper.make_node("Odd", [], ["k"], name="hidden", domain="evil")
    inner = helper.make_graph([odd], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))


def choice(model: onnx.ModelProto) -> None:
    inner = helper.make_graph(
        [helper.make_node("Neg", ["y"], ["n"])],
        "inner",
        [],
        [helper.make_tensor_value_info("n", TensorProto.FLOAT, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    node = helper.make_node("If", ["c"], ["z"], name="choose", then_branch=inner, else_branch=inner)
    model.graph.node.append(node)


def endless_loop(model: onnx.ModelProto) -> None:
    """Sound, tiny, and at work for a century."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Relu", ["v"], ["w2"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, None)],
        [info("again", TensorProto.BOOL, []), info("w2", TensorProto.FLOAT, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "trips"))
    model.graph.node.append(helper.make_node("Loop", ["trips", "", "y"], ["z"], name="forever", body=body))


def scan(model: onnx.ModelProto) -> None:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Neg", ["row"], ["n"])],
        "body",
        [info("row", TensorProto.FLOAT, [2])],
        [info("n", TensorProto.FLOAT, [2])],
    )
    model.graph.node.append(helper.make_node("Scan", ["y"], ["z"], name="rows", body=body, num_scan_inputs=1))


def sequence_map(model: onnx.ModelProto) -> None:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Neg", ["e"], ["n"])],
        "body",
        [info("e", TensorProto.FLOAT, None)],
        [info("n", TensorProto.FLOAT, None)],
    )
    model.graph.node.append(helper.make_node("SequenceConstruct", ["y"], ["s"]))
    model.graph.node.append(helper.make_node("SequenceMap", ["s"], ["z"], name="each", body=body))


def several_subgraphs(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node[1].attribute.append(helper.make_attribute("many", [inner]))


def disguised_subgraph(model: onnx.ModelProto) -> None:
    attribute = helper.make_attribute("hidden", helper.make_graph([], "inner", [], []))
    attribute.type = onnx.AttributeProto.INT
    model.graph.node[1].attribute.append(attribute)


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Rleu"


def later_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Gelu"


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def undefined(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "ghost"


def duplicate(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "h"


def shadowed(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "w"


def missing_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


def opset_25(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 25


def opset_8(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 8


def two_opsets(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("ai.onnx", 17))


def no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def huge(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([60000, 60000]), "sizes"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["sizes"], ["bomb"], name="boom"))


def too_many_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [3, 2, 1, 1, 1, 1, 1, 1, 1]


def negative_size(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-3, -2]


def short_data(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [300, 2]


def text(model: onnx.ModelProto) -> None:
    words = TensorProto(name="words", data_type=TensorProto.STRING, dims=[1], string_data=[b"w"])
    model.graph.initializer.append(words)


def text_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], name="word", value_string=b"w"))


def text_constants(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], name="words", value_strings=[b"w", b"x"]))


def text_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("name", TensorProto.STRING, [1]))


def text_sequence(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_sequence_value_info("names", TensorProto.STRING, [1]))


def optional_text(model: onnx.ModelProto) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.STRING, [1]))
    model.graph.input.append(helper.make_value_info("perhaps", kind))


def dictionary(model: onnx.ModelProto) -> None:
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    model.graph.input.append(helper.make_value_info("table", kind))


def computed_text(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Cast", ["y"], ["said"], name="say", to=TensorProto.STRING))


def contradiction(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7


def bad_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("invented", 1))


CONTROL_FLOW: list[tuple[Change, str, str]] = [
    (choice, r"'choose' \(If\)", "else_branch"),
    (endless_loop, r"'forever' \(Loop\)", "body"),
    (scan, r"'rows' \(Scan\)", "body"),
    (sequence_map, r"'each' \(SequenceMap\)", "body"),
    (several_subgraphs, r"'act' \(Relu\)", "many"),
    (disguised_subgraph, r"'act' \(Relu\)", "hidden"),
]

REFUSED: list[tuple[Change, str]] = [
    (external_initializer, r"m.onnx: tensor 'w': found external data.*external_data=False"),
    (half_external_initializer, r"tensor 'w': found external data"),
    (external_sparse, r"tensor 's': found external data"),
    (external_attribute, r"tensor 'a': found external data"),
    (external_in_subgraph, r"tensor 'deep': found external data"),
    (sparse, r"tensor 's': found a sparse initializer"),
    (function, r"function 'Trick': found 1 model-local functions.*inline_local_functions"),
    (training, r"found training information"),
    (domain, r"node 'act' \(Relu\): found operator domain 'com.microsoft'"),
    (domain_in_subgraph, r"node 2 \(If\): found a subgraph in attribute 'else_branch'"),
    *(
        (change, rf"m.onnx: node {node}: found a subgraph in attribute '{attribute}'.*loops unrolled")
        for change, node, attribute in CONTROL_FLOW
    ),
    (sparse_constant, r"node 'thin' \(Constant\): found a sparse tensor in attribute 'sparse_value'"),
    (sparse_list, r"node 'act' \(Relu\): found a sparse tensor in attribute 'many'"),
    (sparse_input, r"graph input: found value 'thin' of a sparse tensor type"),
    (unknown_operator, r"node 'act' \(Rleu\): found operator 'Rleu', which opset 18 does not have"),
    (later_operator, r"node 'act' \(Gelu\): found operator 'Gelu', which opset 18 does not have"),
    (cycle, r"node 'layer' \(Gemm\): found input 'y' before it is produced.*cycle or are out of order"),
    (undefined, r"node 'layer' \(Gemm\): found input 'ghost' that nothing defines"),
    (duplicate, r"node 'act' \(Relu\): found a second value named 'h'"),
    (shadowed, r"node 'layer' \(Gemm\): found a second value named 'w'"),
    (missing_output, r"output 'nowhere': found nothing that produces it"),
    (opset_25, r"found opset 25, expected 9 to 24"),
    (opset_8, r"found opset 8, expected 9 to 24"),
    (two_opsets, r"found default operator set versions \[17, 18\]"),
    (no_opset, r"found default operator set versions \[\]"),
    (huge, r"node 'boom' \(ConstantOfShape\): found value 'bomb' of 3600000000 elements"),
    (too_many_dims, r"tensor 'w': found rank 9"),
    (negative_size, r"tensor 'w': found shape \[-3, -2\]"),
    (short_data, r"tensor 'w': found data that do not fill shape \[300, 2\]"),
    (text, r"tensor 'words': found element type string"),
    (text_constant, r"node 'word' \(Constant\): found text in attribute 'value_string'"),
    (text_constants, r"node 'words' \(Constant\): found text in attribute 'value_strings'"),
    (text_input, r"graph input: found value 'name' of element type string"),
    (text_sequence, r"graph input: found value 'names' of element type string"),
    (optional_text, r"graph input: found value 'perhaps' of element type string"),
    (dictionary, r"graph input: found value 'table' of a map type"),
    (computed_text, r"node 'say' \(Cast\): found value 'said' of element type string"),
    (contradiction, r"found shapes that do not fit"),
    (bad_attribute, r"found an invalid model: .*invented"),
]


def test_a_valid_graph_passes() -> None:
    graph = load(valid())
    assert (graph.opset, graph.ir_version, graph.parameter_count) == (18, 8, 6)


@pytest.mark.parametrize(("change", "text"), REFUSED, ids=lambda item: getattr(item, "__name__", ""))
def test_refused(change: Change, text: str) -> None:
    model = valid()
    change(model)
    with pytest.raises(GraphError, match=text):
        load(model)


def test_unknown_operators_have_their_own_class() -> None:
    model = valid()
    unknown_operator(model)
    with pytest.raises(UnsupportedOperator):
        load(model)


@pytest.mark.parametrize("change", [change for change, _, _ in CONTROL_FLOW])
def test_control_flow_is_unsupported_rather_than_broken(change: Change) -> None:
    model = valid()
    change(model)
    with pytest.raises(UnsupportedOperator) as caught:
        load(model)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("change", [choice, endless_loop, scan, sequence_map])
def test_the_control_flow_that_is_refused_is_valid_onnx(change: Change) -> None:
    model = valid()
    change(model)
    onnx.checker.check_model(model, full_check=True)


def test_empty_bytes() -> None:
    with pytest.raises(GraphError, match=r"m\.onnx: found an empty file"):
        Graph.from_bytes(b"", "m.onnx")


def test_unused_foreign_opset_imports_are_harmless() -> None:
    model = valid()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert load(model).opset == 18


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="found no readable file"):
        Graph.from_file(tmp_path / "absent.onnx")


def test_data_files_beside_the_graph_are_not_opened(tmp_path: Path) -> None:
    model = valid()
    external(model.graph.initializer[0], "weights.data")
    (tmp_path / "weights.data").write_bytes(np.ones((3, 2), np.float32).tobytes())
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match="tensor 'w': found external data"):
        Graph.from_file(path)
