"""The torch executor: what it runs, keeps, returns and refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from dfmeta.errors import GraphError, UnsupportedOperator
from dfmeta.graph import Graph, TorchGraph
from dfmeta.graph.plan import bind, fold, plan

rng = np.random.default_rng(0)
make = helper.make_node


def f(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


Build = Callable[..., Graph]
WEIGHTS = {"w": f(4, 3), "b": f(4), "v": f(2, 4)}
CHAIN = [
    make("Gemm", ["x", "w", "b"], ["h"], transB=1, name="first"),
    make("Relu", ["h"], ["r"], name="act"),
    make("Gemm", ["r", "v"], ["y"], transB=1, name="second"),
]


@pytest.fixture
def chain(build_graph: Build) -> Graph:
    return build_graph(CHAIN, {"x": f(5, 3)}, ["y"], 18, WEIGHTS)


def reference(x: Tensor) -> Tensor:
    w, b, v = (torch.from_numpy(WEIGHTS[name]).to(x.dtype) for name in "wbv")
    return (x @ w.T + b).relu() @ v.T


def test_forward_is_the_first_output(chain: Graph) -> None:
    x = torch.randn(5, 3)
    torch.testing.assert_close(TorchGraph(chain)(x), reference(x))


def test_any_value_by_name(chain: Graph) -> None:
    x = torch.randn(5, 3)
    found = TorchGraph(chain).run({"x": x}, ["r", "x", "w", "y"])
    assert list(found) == ["r", "x", "w", "y"]
    assert found["x"] is x
    torch.testing.assert_close(found["w"], torch.from_numpy(WEIGHTS["w"]))
    torch.testing.assert_close(found["y"], found["r"] @ torch.from_numpy(WEIGHTS["v"]).T)


def test_only_what_is_needed_runs(chain: Graph) -> None:
    steps = bind(chain)
    needed = plan(steps, ["h"], ["w", "b", "v"])
    assert [step.node.op for step in needed.steps] == ["Gemm"]
    assert needed.inputs == ("x",)
    assert plan(steps, ["w"], ["w", "b", "v"]).steps == ()


def test_intermediates_are_dropped_after_their_last_use(chain: Graph) -> None:
    assert plan(bind(chain), ["y"], WEIGHTS).frees == (("x",), ("h",), ("r",))
    assert plan(bind(chain), ["y", "h"], WEIGHTS).frees == (("x",), (), ("r",))


def test_returned_values_survive_the_next_run(chain: Graph) -> None:
    graph = TorchGraph(chain)
    first = graph.run({"x": torch.ones(5, 3)}, ["h", "r"])
    copies = {name: tensor.clone() for name, tensor in first.items()}
    graph.run({"x": torch.zeros(5, 3)}, ["h", "r"])
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, copies[name], rtol=0, atol=0)


def test_trainable_weights_are_parameters_by_initializer_name(chain: Graph) -> None:
    graph = TorchGraph(chain, trainable=True)
    named = dict(graph.named_initializers())
    assert list(named) == ["w", "b", "v"]
    assert all(isinstance(tensor, torch.nn.Parameter) for tensor in named.values())
    graph(torch.randn(5, 3)).sum().backward()
    assert all(tensor.grad is not None for tensor in named.values())
    assert not list(TorchGraph(chain).parameters())


def test_a_step_of_training_changes_the_output(chain: Graph) -> None:
    graph, x = TorchGraph(chain, trainable=True), torch.randn(5, 3)
    before = graph(x).square().mean()
    optimizer = torch.optim.SGD(graph.parameters(), lr=0.05)
    before.backward()
    optimizer.step()
    assert graph(x).square().mean() < before


def test_float64_moves_everything_casts_and_made_tensors_included(build_graph: Build) -> None:
    nodes = [
        make("Constant", [], ["half"], value_float=0.5),
        make("Shape", ["x"], ["sizes"]),
        make("ConstantOfShape", ["sizes"], ["zeros"]),
        make("Cast", ["x"], ["same"], to=TensorProto.FLOAT),
        make("Add", ["same", "zeros"], ["a"]),
        make("Mul", ["a", "half"], ["y"]),
    ]
    graph = TorchGraph(build_graph(nodes, {"x": f(2, 3)}, ["y"], 18)).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    assert graph(x).dtype == torch.float64
    torch.testing.assert_close(graph(x), x / 2, rtol=0, atol=0)


def test_half_precision(chain: Graph) -> None:
    x = torch.randn(5, 3)
    found = TorchGraph(chain).to(torch.bfloat16)(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), reference(x), rtol=0.1, atol=0.1)


def test_what_depends_on_constants_alone_is_computed_once(build_graph: Build) -> None:
    nodes = [
        make("Constant", [], ["c"], value_ints=[1, 2]),
        make("Cast", ["c"], ["d"], to=TensorProto.FLOAT),
        make("Reshape", ["w", "target"], ["e"]),
        make("Mul", ["x", "d"], ["y"]),
        make("Add", ["y", "e"], ["z"]),
    ]
    constants = {"w": f(2), "target": np.array([1, 2])}
    graph = build_graph(nodes, {"x": f(3, 2)}, ["z"], 18, constants)
    fixed = {"target": torch.tensor([1, 2])}
    assert set(fold(bind(graph), fixed, graph)) == {"c", "d"}  # `e` hangs on a weight and stays live


def test_huge_constants_are_not_folded(build_graph: Build) -> None:
    nodes = [make("ConstantOfShape", ["sizes"], ["big"]), make("Add", ["x", "big"], ["y"])]
    graph = build_graph(nodes, {"x": f(1)}, ["y"], 18, {"sizes": np.array([2**25])})
    assert not fold(bind(graph), {"sizes": torch.tensor([2**25])}, graph)


def test_quantized_values_are_returned_in_their_own_type(build_graph: Build) -> None:
    nodes = [make("QuantizeLinear", ["x", "s", "z"], ["q"]), make("DequantizeLinear", ["q", "s", "z"], ["y"])]
    constants = {"s": np.float32(0.5).reshape(()), "z": np.array(3, np.uint8)}
    graph = TorchGraph(build_graph(nodes, {"x": f(4)}, ["y"], 13, constants))
    x = torch.tensor([-9.0, -1.4, 0.3, 2.0], requires_grad=True)
    found = graph.run({"x": x}, ["q", "y"])
    assert found["q"].dtype == torch.uint8
    assert found["q"].tolist() == [0, 0, 4, 7]
    (gradient,) = torch.autograd.grad(found["y"].sum(), x)
    assert gradient.tolist() == [0, 1, 1, 1]  # straight through, and nothing where it saturated


def test_shape_arithmetic_stays_on_the_cpu_and_follows_the_input(build_graph: Build) -> None:
    nodes = [
        make("Shape", ["x"], ["sizes"]),
        make("Gather", ["sizes", "zero"], ["batch"]),
        make("Concat", ["batch", "rest"], ["target"], axis=0),
        make("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "rest": np.array([-1])}
    graph = build_graph(nodes, {"x": f(1, 2, 3)}, ["y"], 18, constants)
    assert all(step.host for step in bind(graph))
    assert TorchGraph(graph)(torch.randn(4, 2, 3)).shape == (4, 6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(chain: Graph) -> None:
    x = torch.randn(5, 3)
    found = TorchGraph(chain).cuda()(x.cuda())
    torch.testing.assert_close(found.cpu(), reference(x), rtol=1e-4, atol=1e-5)


DOUBLE_CASES: list[tuple[str, int, list[np.ndarray | None], dict[str, Any]]] = [
    ("Conv", 18, [f(2, 2, 5, 5), f(3, 2, 3, 3), f(3)], {"strides": [2, 1], "pads": [0, 1, 2, 0]}),
    ("ConvTranspose", 18, [f(1, 2, 3, 3), f(2, 2, 3, 3), f(2)], {"strides": [2, 2], "output_shape": [5, 6]}),
    ("Gemm", 18, [f(3, 2), f(4, 2), f(4)], {"transB": 1, "alpha": 0.5}),
    ("MatMul", 18, [f(2, 3, 4), f(4, 2)], {}),
    ("BatchNormalization", 15, [f(3, 2, 4), f(2), f(2), f(2), f(2) ** 2 + 1], {}),
    ("LayerNormalization", 17, [f(3, 4), f(4), f(4)], {}),
    ("GroupNormalization", 21, [f(2, 4, 3), f(4), f(4)], {"num_groups": 2}),
    ("RMSNormalization", 23, [f(3, 4), f(4)], {}),
    ("LRN", 13, [f(2, 5, 2, 2)], {"size": 3, "alpha": 0.5}),
    ("MaxPool", 18, [f(1, 2, 6, 6)], {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1], "ceil_mode": 1}),
    ("AveragePool", 19, [f(1, 2, 6, 6)], {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "dilations": [2, 1]}),
    ("Softmax", 13, [f(3, 4)], {"axis": 0}),
    ("Gelu", 20, [f(3, 4)], {}),
    ("Softplus", 18, [f(3, 4)], {}),
    ("ReduceL2", 13, [f(3, 4)], {"axes": [1]}),
    ("Attention", 23, [f(1, 2, 3, 4), f(1, 2, 3, 4), f(1, 2, 3, 4)], {"is_causal": 1}),
    ("Resize", 18, [f(1, 1, 4, 4), None, np.array([1, 1, 1.5, 2], np.float32)], {"mode": "cubic"}),
    ("Pad", 18, [f(2, 3), np.array([1, 0, 0, 2])], {"mode": "reflect"}),
]


@pytest.mark.parametrize("case", DOUBLE_CASES, ids=lambda case: case[0])
def test_gradients(case: tuple[Any, ...], build_node: Callable[..., Any]) -> None:
    op, opset, arrays, attributes = case
    graph, given = build_node(op, opset, arrays, attributes, 1)
    module = TorchGraph(graph).double()
    inputs = [torch.from_numpy(array).double().requires_grad_() for array in given.values()]
    assert torch.autograd.gradcheck(module, inputs)


def test_overhead_over_a_plain_module_is_small() -> None:
    """A node costs a few calls of a torch module: nothing beside a layer of any size."""
    nodes = [make("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(200)]
    info = helper.make_tensor_value_info
    proto = helper.make_graph(nodes, "g", [info("v0", TensorProto.FLOAT, [4])], [info("v200", TensorProto.FLOAT, [4])])
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    module, x = TorchGraph(Graph.from_bytes(model.SerializeToString(), "chain.onnx")), torch.randn(4)
    plain = nn.Sequential(*[nn.ReLU() for _ in nodes])

    def took(network: nn.Module) -> float:
        start = time.perf_counter()
        network(x)
        return time.perf_counter() - start

    assert torch.equal(module(x), plain(x))
    pairs = [(took(module), took(plain)) for _ in range(20)]
    assert min(mine for mine, _ in pairs) < 4 * min(theirs for _, theirs in pairs)


REFUSED: list[tuple[dict[str, Tensor], list[str], str]] = [
    ({"x": torch.randn(5, 3)}, ["hh"], r"test.onnx: found no value 'hh'.*Did you mean 'h'\?"),
    ({}, ["y"], r"test.onnx: found no input 'x'"),
    ({"x": torch.randn(5, 7)}, ["y"], r"test.onnx: node 'first' \(Gemm\): found inputs float32\[5, 7\]"),
    (
        {"x": torch.randn(7, 3)},
        ["y"],
        r"found batches of 7, expected one multiple of the graph's fixed batch 5",
    ),
]


@pytest.mark.parametrize(("inputs", "values", "text"), REFUSED, ids=["value", "input", "shape", "batch"])
def test_refused(inputs: dict[str, Tensor], values: list[str], text: str, chain: Graph) -> None:
    with pytest.raises(GraphError, match=text):
        TorchGraph(chain).run(inputs, values)


def test_wrong_number_of_inputs(chain: Graph) -> None:
    with pytest.raises(GraphError, match=r"found 2 inputs, expected 1 \(x\)"):
        TorchGraph(chain)(torch.randn(5, 3), torch.randn(5, 3))


def test_element_types_that_torch_lacks(build_graph: Build) -> None:
    eight = helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, [2], [1.0, 2.0])
    nodes = [make("Constant", [], ["w"], name="tiny", value=eight), make("Cast", ["w"], ["y"], to=1)]
    graph = build_graph(nodes, {"x": f(1)}, ["y"], 19)
    with pytest.raises(UnsupportedOperator, match=r"node 'tiny' \(Constant\): found element type float8_e4m3fn"):
        TorchGraph(graph)


def test_inputs_that_old_files_repeat_among_initializers_need_not_be_given() -> None:
    info = helper.make_tensor_value_info
    inputs = [info("x", TensorProto.FLOAT, [2]), info("w", TensorProto.FLOAT, [2])]
    weight = onnx.numpy_helper.from_array(np.ones(2, np.float32), "w")
    proto = helper.make_graph(
        [make("Add", ["x", "w"], ["y"])], "g", inputs, [info("y", TensorProto.FLOAT, [2])], [weight]
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 9)], ir_version=3)
    graph = Graph.from_bytes(model.SerializeToString(), "old.onnx")
    assert [value.name for value in graph.inputs] == ["x"]
    assert TorchGraph(graph)(torch.zeros(2)).tolist() == [1, 1]
