"""torch -> ONNX: what survives, what is folded, what must never be written, and what is refused."""

from __future__ import annotations

import getpass
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dfmeta.errors import ExportError
from dfmeta.graph import Graph
from dfmeta.graph.export_torch import export_module


class Residual(nn.Module):
    """Two convolutions with batch normalisation, a skip, dropout, identity and a mean over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.same = nn.Identity()
        self.out = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        pooled: torch.Tensor = self.out(self.drop(self.same(x.mean((2, 3)))))
        return pooled


class Encoder(nn.Module):
    """Token ids to logits through one transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.out = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.encoder(self.embed(tokens)).mean(1))
        return logits


class Flattening(nn.Module):
    """What small tools choke on: a pooled map, a learned scale of one element, a flatten, a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.pool = nn.MaxPool2d(2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.scale = nn.Parameter(torch.full((1,), 1.5))
        self.out = nn.Linear(36, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.pool(torch.relu(self.conv(x)))
        return self.out(torch.flatten(x, 1)) * self.scale, self.average(x).flatten(1)


class Adding(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + 2 * right


class Several(nn.Module):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0] - inputs[1]


class Random(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Growing(nn.Module):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x.repeat(self.calls, 1)


class Specialised(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(int(x.shape[0]), -1)


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": x}


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


def warm(module: nn.Module) -> nn.Module:
    """Different statistics in every normalisation, as after training."""
    generator = torch.Generator().manual_seed(3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low in ((part.running_mean, -1.0), (part.running_var, 0.5), (part.weight.data, 0.5)):
                assert tensor is not None
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return module


def exported(module: nn.Module, *shape: int, **options: Any) -> Graph:
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"]} | options
    return export_module(module, (torch.zeros(shape),), **names)


def operators(graph: Graph) -> Counter[str]:
    return Counter(node.op_type for node in graph.model.graph.node)


def texts(message: Any) -> Iterator[str]:
    """Every string in a message, except raw tensor bytes."""
    for descriptor, content in message.ListFields():
        if descriptor.name == "raw_data" or isinstance(content, int | float):
            continue
        for item in [content] if isinstance(content, str | bytes) or hasattr(content, "ListFields") else content:
            if hasattr(item, "ListFields"):
                yield from texts(item)
            elif isinstance(item, str | bytes):
                yield item if isinstance(item, str) else item.decode()


@pytest.fixture(scope="module")
def residual() -> nn.Module:
    torch.manual_seed(0)
    return warm(Residual())


@pytest.fixture(scope="module")
def published(residual: nn.Module) -> Graph:
    return exported(residual, 1, 1, 8, 8, keep_batchnorm=True, dynamic_batch=True)


@pytest.fixture(scope="module")
def student(residual: nn.Module) -> Graph:
    return exported(residual, 1, 1, 8, 8)


def test_publishing_keeps_batch_normalisation_with_its_values(residual: nn.Module, published: Graph) -> None:
    assert operators(published)["BatchNormalization"] == 2
    state = {k: v.numpy() for k, v in residual.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert set(published.initializers) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(published.initializers[name], value)


def test_publishing_is_tidy(published: Graph) -> None:
    assert operators(published) == Counter(
        Conv=2, BatchNormalization=2, Relu=2, Add=1, GlobalAveragePool=1, Flatten=1, Gemm=1
    )
    assert published.inputs[0].shape == ("batch", 1, 8, 8)
    assert published.outputs[0].shape == ("batch", 5)


def test_equal_normalisations_stay_apart() -> None:
    fresh = Residual()
    graph = exported(fresh, 1, 1, 8, 8, keep_batchnorm=True)
    norms = [node for node in graph.model.graph.node if node.op_type == "BatchNormalization"]
    parts = ("weight", "bias", "running_mean", "running_var")
    assert [list(node.input[1:]) for node in norms] == [[f"{bn}.{part}" for part in parts] for bn in ("bn1", "bn2")]
    assert {f"{bn}.{part}" for bn in ("bn1", "bn2") for part in parts} <= set(graph.initializers)


def test_students_have_their_normalisation_folded(residual: nn.Module, student: Graph) -> None:
    assert operators(student) == Counter(Conv=2, Relu=2, Add=1, GlobalAveragePool=1, Flatten=1, Gemm=1)
    state = residual.state_dict()
    scale = state["bn1.weight"] / torch.sqrt(state["bn1.running_var"] + 1e-5)
    expected = (state["conv1.weight"] * scale[:, None, None, None]).numpy()
    np.testing.assert_allclose(student.initializers["conv1.weight"], expected, rtol=1e-5)


def test_nodes_are_named_after_their_modules(student: Graph, published: Graph) -> None:
    for graph in (student, published):
        names = {node.name: node.op_type for node in graph.model.graph.node}
        assert len(names) == len(graph.model.graph.node)
        assert (names["conv1"], names["conv2"], names["out"]) == ("Conv", "Conv", "Gemm")


def test_small_tools_get_what_they_read() -> None:
    graph = exported(Flattening(), 1, 2, 8, 8, output_names=["y", "z"])
    assert operators(graph) == Counter(Conv=1, Relu=1, MaxPool=1, Flatten=2, Gemm=1, Mul=1, GlobalAveragePool=1)
    attributes = {a.name for node in graph.model.graph.node for a in node.attribute}
    assert attributes == {"kernel_shape", "pads", "strides", "axis", "transB"}
    assert graph.initializers["scale"].shape == ()
    assert set(graph.initializers) == {"conv.weight", "conv.bias", "out.weight", "out.bias", "scale"}
    described = {info.name for info in graph.model.graph.value_info}
    produced = {name for node in graph.model.graph.node for name in node.output}
    assert described == produced - {"y", "z"}


def test_publishing_keeps_the_shape_of_a_parameter() -> None:
    module = Flattening()
    graph = exported(module, 1, 2, 8, 8, output_names=["y", "z"], keep_batchnorm=True, dynamic_batch=True)
    assert graph.initializers["scale"].shape == (1,)
    assert operators(graph) == Counter(Conv=1, Relu=1, MaxPool=1, Flatten=2, Gemm=1, Mul=1, GlobalAveragePool=1)
    assert graph.value("z").shape == ("batch", 4)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_static_batch_is_the_example_s(batch: int) -> None:
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    graph = exported(mlp, batch, 3, 4)
    assert (graph.inputs[0].shape, graph.outputs[0].shape) == ((batch, 3, 4), (batch, 3))
    assert [node.op_type for node in graph.model.graph.node] == ["Flatten", "Gemm", "Relu", "Gemm"]


def test_versions_are_what_was_asked_for(student: Graph) -> None:
    model = onnx.load_model_from_string(student.raw)
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


@pytest.mark.parametrize(("dynamic", "keep"), [(False, False), (True, True)])
def test_a_transformer_encoder(dynamic: bool, keep: bool) -> None:
    torch.manual_seed(0)
    module = Encoder()
    example = (torch.tensor([[0, 10, 3, 4, 5]]),)
    graph = export_module(
        module, example, input_names=["t"], output_names=["y"], dynamic_batch=dynamic, keep_batchnorm=keep
    )
    assert graph.inputs[0].dtype == "int64"
    assert graph.outputs[0].shape == ("batch" if dynamic else 1, 3)
    assert not {"Identity", "Dropout", "Constant", "CastLike", "Shape", "Concat"} & set(operators(graph))
    state = module.state_dict()
    transposed = "encoder.layers.0.linear1.weight"
    np.testing.assert_array_equal(graph.initializers[f"{transposed}.T"], state[transposed].numpy().T)
    if keep:
        assert {"encoder.layers.0.norm1.weight", "encoder.layers.0.norm2.weight"} <= set(graph.initializers)
        assert module.training


def test_training_flags_survive_and_dropout_is_off(residual: nn.Module, student: Graph) -> None:
    module = warm(Residual())
    module.load_state_dict(residual.state_dict())
    module.train()
    module.bn1.eval()  # type: ignore[union-attr]
    before = {name: part.training for name, part in module.named_modules()}
    state = {name: value.clone() for name, value in module.state_dict().items()}
    assert exported(module, 1, 1, 8, 8).raw == student.raw
    assert {name: part.training for name, part in module.named_modules()} == before
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_the_same_weights_give_the_same_bytes(residual: nn.Module, published: Graph) -> None:
    assert exported(residual, 1, 1, 8, 8, keep_batchnorm=True, dynamic_batch=True).raw == published.raw


def test_two_inputs_share_the_free_batch() -> None:
    example = (torch.zeros(1, 3), torch.zeros(1, 3))
    for module in (Adding(), Several()):
        graph = export_module(module, example, input_names=["a", "b"], output_names=["y"], dynamic_batch=True)
        assert [value.shape for value in (*graph.inputs, *graph.outputs)] == [("batch", 3)] * 3


def test_nothing_but_the_network_is_written(student: Graph, published: Graph, repository: Path) -> None:
    for graph in (student, published):
        model = graph.model
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert model.producer_name == "dfmeta"
        assert not model.producer_version
        assert not model.metadata_props
        words = list(texts(model))
        assert "conv1.weight" in words
        for word in words:
            assert "/" not in word
            assert "\\" not in word
        for leak in (
            "stack_trace",
            "name_scopes",
            "pkg.",
            ".py",
            "torch",
            repository.name + "/",
            str(Path.home()),
        ):
            assert leak.encode() not in graph.raw
        assert not any(getpass.getuser() == word for word in words)


def test_the_search_for_leaks_finds_them() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(nn.Linear(3, 2).eval(), (torch.zeros(1, 3),), dynamo=True, verbose=False)
    assert program is not None
    assert any("/" in word for word in texts(program.model_proto))


def test_exporting_is_silent_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    levels = {name: logging.getLogger(name).level for name in ("torch", "torch.onnx", "onnxscript")}
    exported(nn.Linear(3, 2), 1, 3)
    with pytest.raises(ExportError):
        exported(Branching(), 1, 3)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert list(tmp_path.iterdir()) == []
    assert {name: logging.getLogger(name).level for name in levels} == levels


def test_a_random_network_is_refused() -> None:
    state = torch.random.get_rng_state()
    with pytest.raises(ExportError) as caught:
        exported(Random(), 1, 3)
    assert "export of Random: found outputs of two calls on the same input that differ by" in str(caught.value)
    assert "expected at most 0.0001" in str(caught.value)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_network_with_a_memory_is_refused() -> None:
    with pytest.raises(ExportError, match="two calls on the same input that differ by inf"):
        exported(Growing(), 1, 3)


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(
        ExportError, match=r"export of Branching: found GuardOnDataDependentSymNode: .*torch.export can trace"
    ):
        exported(Branching(), 1, 3)


def test_a_batch_that_becomes_a_constant_is_refused() -> None:
    with pytest.raises(ExportError, match=r"found inputs of shapes \[\[2, 3\]\], expected a free first axis"):
        exported(Specialised(), 1, 3, dynamic_batch=True)


def test_a_free_batch_needs_an_axis() -> None:
    with pytest.raises(ExportError, match="found an input without axes, expected a batch axis"):
        exported(nn.Identity(), dynamic_batch=True)


def test_outputs_must_be_tensors() -> None:
    with pytest.raises(ExportError, match="export of Named: found TypeError: output of type dict"):
        exported(Named(), 1, 3)


def test_an_example_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ExportError, match=r"export of Linear: found RuntimeError.*on inputs \[\[1, 4\]\]"):
        exported(nn.Linear(3, 2), 1, 4)


def test_an_opset_that_the_exporter_does_not_give_is_refused(residual: nn.Module) -> None:
    with pytest.raises(ExportError, match=r"found operator sets \{'': 18\}, expected opset 13 .*Ask for opset 18"):
        exported(residual, 1, 1, 8, 8, opset=13)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"input_names": ["x", "z"]}, "found 2 input names, expected 1"),
        ({"output_names": ["y", "z"]}, "expected"),
        ({"output_names": []}, r"outputs \['.*'\], expected \[\]"),
    ],
)
def test_names_must_fit(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ExportError, match=text):
        exported(nn.Linear(3, 2), 1, 3, **options)


def test_a_difference_beyond_the_tolerance_is_refused(residual: nn.Module) -> None:
    with pytest.raises(ExportError) as caught:
        exported(residual, 1, 1, 8, 8, atol=1e-12, rtol=0.0)
    assert "found a largest absolute difference of" in str(caught.value)
    assert "expected at most 1e-12 + 0 x |expected|" in str(caught.value)
