"""Whole networks: every value as in onnxruntime, and gradients as in the torch module they came from."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from dfmeta.graph import Graph, OrtGraph, TorchGraph, costs, weight_sites

SIZE = 12


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = self.pool(y + self.block(y))
        return torch.as_tensor(self.head(y))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.place = nn.Parameter(torch.randn(7, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 24, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        y = self.layers(self.embed(tokens) + self.place)
        return torch.as_tensor(self.head(y.mean(1)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.LayerNorm(9), nn.Linear(9, 9), nn.GELU(), nn.Linear(9, 4))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "cnn": (Residual, lambda n: torch.randn(n, 3, SIZE, SIZE)),
    "mlp": (mlp, lambda n: torch.randn(n, 6)),
    "transformer": (Transformer, lambda n: torch.randint(0, 11, (n, 7))),
}


@functools.cache
def exported(name: str, opset: int, optimize: bool) -> tuple[nn.Module, Graph]:
    """The network, initialised with running statistics that are not trivial, and its graph at batch 1."""
    torch.manual_seed(7)
    make, draw = NETWORKS[name]
    module = make()
    for parameter in module.parameters():  # layers that start alike would be merged by the exporter
        nn.init.normal_(parameter, std=0.3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    module.eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module, (draw(1),), dynamo=True, opset_version=opset, optimize=optimize, verbose=False
        )
    assert program is not None
    return module, Graph.from_bytes(program.model_proto.SerializeToString(), f"{name}.onnx")


FORMS = [
    ("cnn", 18, True),
    ("cnn", 20, False),
    ("mlp", 18, False),
    ("mlp", 20, True),
    ("transformer", 18, True),
    ("transformer", 18, False),
    ("transformer", 20, True),
    ("transformer", 23, True),
]
each_form = pytest.mark.parametrize(("name", "opset", "optimize"), FORMS)


def intermediates(graph: Graph) -> list[str]:
    return [name for name in graph.values if name not in graph.initializer_names]


@each_form
def test_every_value_is_onnxruntime_s(
    name: str, opset: int, optimize: bool, compare_with_onnxruntime: Callable[..., None]
) -> None:
    _, graph = exported(name, opset, optimize)
    assert graph.opset == opset
    given = {graph.inputs[0].name: NETWORKS[name][1](1).numpy()}
    compare_with_onnxruntime(graph, given, intermediates(graph))


@each_form
def test_nothing_is_left_on_the_cpu(name: str, opset: int, optimize: bool) -> None:
    _, graph = exported(name, opset, optimize)
    output = TorchGraph(graph).to("meta")(NETWORKS[name][1](1).to("meta"))
    assert output.device.type == "meta"


@each_form
def test_any_batch_gives_the_module_s_own_outputs(name: str, opset: int, optimize: bool) -> None:
    module, graph = exported(name, opset, optimize)
    inputs = NETWORKS[name][1](5)
    expected = module(inputs).detach()
    torch.testing.assert_close(TorchGraph(graph)(inputs), expected, rtol=1e-4, atol=1e-5)
    ort = OrtGraph(graph, dynamic_batch=True).run({graph.inputs[0].name: inputs.numpy()})
    np.testing.assert_allclose(ort[graph.outputs[0].name], expected.numpy(), 1e-4, 1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_and_inputs_have_the_module_s_own_gradients(name: str) -> None:
    module, graph = exported(name, 18, False)
    ours = TorchGraph(graph, trainable=True).double()
    theirs = module.double()
    inputs = NETWORKS[name][1](3)
    inputs = inputs.double().requires_grad_() if inputs.is_floating_point() else inputs
    found, expected = ours(inputs), theirs(inputs)
    assert found.dtype == torch.float64
    weights = dict(theirs.named_parameters())
    named = dict(ours.named_initializers())
    shared = sorted(weights.keys() & named.keys())
    assert len(shared) >= len(weights) - 8  # packed attention weights are cut up by the exporter
    leaves = [inputs] if inputs.requires_grad else []
    left = torch.autograd.grad(found.square().sum(), [*leaves, *(named[n] for n in shared)])
    right = torch.autograd.grad(expected.square().sum(), [*leaves, *(weights[n] for n in shared)])
    for ours_, theirs_ in zip(left, right, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-6, atol=1e-8)
    module.float()


def test_all_parameters_of_a_transformer_can_be_trained() -> None:
    module, graph = exported("transformer", 18, True)
    count = sum(parameter.numel() for parameter in module.parameters())
    ours = TorchGraph(graph, trainable=True)
    assert graph.parameter_count == count == sum(p.numel() for p in ours.parameters())
    ours(NETWORKS["transformer"][1](2)).sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())


class Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, count: int) -> None:
        self.left = [{name: torch.randn(1, 3, SIZE, SIZE).numpy()} for _ in range(count)]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=str)
def test_quantized_graphs(form: QuantFormat, tmp_path: Path) -> None:
    _, graph = exported("cnn", 18, True)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(node for node in graph.model.graph.node if node.op_type != "Gemm")
    model.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info(graph.model.graph.node[-1].input[0], onnx.TensorProto.FLOAT, [1, 8])
    )
    target = tmp_path / "int8.onnx"
    logging.disable(logging.WARNING)
    quantize_static(
        onnx.load_model_from_string(model.SerializeToString()),
        target,
        Samples(graph.inputs[0].name, 8),
        quant_format=form,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "MaxPool"],
    )
    logging.disable(logging.NOTSET)
    quantized = Graph.from_file(target)
    operators = {node.op_type for node in quantized.model.graph.node}
    assert ("QLinearConv" if form == QuantFormat.QOperator else "DequantizeLinear") in operators
    inputs = torch.randn(1, 3, SIZE, SIZE)
    name, output = quantized.inputs[0].name, quantized.outputs[0].name
    expected = OrtGraph(quantized, threads=1).run({name: inputs.numpy()})[output]
    ours = TorchGraph(quantized)
    # A sum that rounds to the other side of a tie moves one quantized step; a few of them may.
    np.testing.assert_allclose(ours(inputs).numpy(), expected, rtol=0, atol=0.02 * np.abs(expected).max())
    inputs.requires_grad_()
    (gradient,) = torch.autograd.grad(ours(inputs).sum(), inputs)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@pytest.fixture(scope="module")
def resnet(shared: Path) -> Graph:
    return Graph.from_file(shared / "models" / "resnet20-cifar10.onnx")


def test_resnet20_values(resnet: Graph, compare_with_onnxruntime: Callable[..., None]) -> None:
    images = torch.randn(3, 3, 32, 32).numpy()
    sites = [site.value for site in weight_sites(resnet)]
    compare_with_onnxruntime(resnet, {"image": images}, sites)


def test_resnet20_on_another_device(resnet: Graph) -> None:
    assert TorchGraph(resnet).to("meta")(torch.empty(3, 3, 32, 32, device="meta")).shape == (3, 10)


def test_resnet20_costs(resnet: Graph) -> None:
    # He et al. (2015), table 6: 0.27 M parameters; 40.55 M multiply-accumulates follow from its layer table.
    assert costs(resnet).parameters == resnet.parameter_count == 269_722
    assert costs(resnet).macs == 40_551_040
    assert len(weight_sites(resnet)) == 20


def test_resnet20_input_gradient(resnet: Graph) -> None:
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    logits = TorchGraph(resnet)(images)
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), images)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax((1, 2, 3)) > 0).all()
