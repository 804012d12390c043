"""The publisher's model: a file, or a module of their own with its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dfmeta.errors import DataError, GraphError
from dfmeta.graph import OrtGraph, TorchGraph
from dfmeta.pipeline import load_model

CODE = """from torch import nn


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


ready = network()
"""
MODEL = "dfmeta_test_publisher:network"
EXAMPLE = np.zeros((5, 1, 8, 8), np.float32)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The publisher's module, and weights that are not those it starts with."""
    (tmp_path / "dfmeta_test_publisher.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    import dfmeta_test_publisher

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = dfmeta_test_publisher.network()
    return made.eval()


def test_a_file(digits_teacher, tmp_path):
    (tmp_path / "model.onnx").write_bytes(digits_teacher.raw)
    assert load_model(str(tmp_path / "model.onnx")) == digits_teacher
    (tmp_path / "odd:name.onnx").write_bytes(digits_teacher.raw)
    assert load_model(str(tmp_path / "odd:name.onnx")) == digits_teacher


def test_a_module_with_its_weights(own, tmp_path):
    save_file(own.state_dict(), tmp_path / "weights.safetensors")
    graph = load_model(MODEL, weights=tmp_path / "weights.safetensors", example=EXAMPLE)
    assert [value.shape for value in graph.inputs] == [("batch", 1, 8, 8)]
    inputs = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = own(inputs)
        torch.testing.assert_close(TorchGraph(graph)(inputs), expected, rtol=1e-4, atol=1e-5)
    found = OrtGraph(graph).run({graph.inputs[0].name: inputs.numpy()})
    np.testing.assert_allclose(found[graph.outputs[0].name], expected.numpy(), rtol=1e-4, atol=1e-5)
    assert any(node.op_type == "BatchNormalization" for node in graph.model.graph.node)


def test_an_instance_is_a_model_too(own):
    graph = load_model("dfmeta_test_publisher:ready", example=EXAMPLE)
    assert graph.outputs[0].shape == ("batch", 3)


def test_a_module_needs_an_example(own):
    with pytest.raises(GraphError, match="no example input"):
        load_model(MODEL)


def spoil(state, how):
    state = {name: tensor.clone() for name, tensor in state.items()}
    if how == "missing":
        del state["1.weight"]
    elif how == "extra":
        state["9.weight"] = torch.zeros(2)
    elif how == "shape":
        state["1.weight"] = torch.zeros(6, 63)
    return state


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("missing", r"none for its own \(1\.weight\)"),
        ("extra", r"tensors the module lacks \(9\.weight\)"),
        ("shape", r"shapes that do not fit .*1\.weight"),
    ],
)
def test_weights_of_another_module(own, tmp_path, how, text):
    save_file(spoil(own.state_dict(), how), tmp_path / "weights.safetensors")
    with pytest.raises(GraphError, match=text):
        load_model(MODEL, weights=tmp_path / "weights.safetensors", example=EXAMPLE)


def test_weights_that_cannot_be_read(own, tmp_path):
    (tmp_path / "text.safetensors").write_text("not tensors")
    for name, text in (("nowhere.safetensors", "no such file"), ("text.safetensors", "no safetensors file")):
        with pytest.raises(GraphError, match=text):
            load_model(MODEL, weights=tmp_path / name, example=EXAMPLE)


def test_weights_for_a_file_are_refused(digits_teacher, own, tmp_path):
    """A file holds its weights: those given beside it would be passed over in silence."""
    (tmp_path / "model.onnx").write_bytes(digits_teacher.raw)
    save_file(own.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="weights"):
        load_model(str(tmp_path / "model.onnx"), weights=tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", ["dfmeta_test_nowhere:network", "dfmeta_test_publisher:nobody", "math:pi"])
def test_what_is_no_module(own, name):
    with pytest.raises(DataError, match="--model"):
        load_model(name, example=EXAMPLE)
