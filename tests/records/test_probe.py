"""The probe knows the graph that was recorded from every other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfmeta.bundle import Bundle
from dfmeta.graph import Graph
from dfmeta.graph.export_torch import export_module
from dfmeta.pipeline import graph_inputs, publish
from dfmeta.pipeline.release import Release
from dfmeta.records import Recorder, check_probe, find_sites, make_plan, take_probe


def changed(graph: Graph, name: str, index: int, by: float) -> Graph:
    model = type(graph.model)()
    model.CopyFrom(graph.model)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = np.frombuffer(tensor.raw_data, np.float32).copy()
    values[index] += by
    tensor.raw_data = values.tobytes()
    return Graph.from_bytes(model.SerializeToString(), "changed.onnx")


def test_a_bundle_passes_its_own_probe(digits_bundle):
    bundle = Bundle.open(digits_bundle)
    graph = Graph.from_bytes(bundle.graph_bytes(), "graph")
    assert check_probe(graph, bundle) == []
    tensors = bundle.probe_tensors()
    assert tensors["input.0"].shape == (4, 1, 8, 8)
    assert 0 <= tensors["input.0"].min() < 0.1 < 0.9 < tensors["input.0"].max() <= 1


def test_the_probe_is_noise_of_its_seed(digits_teacher):
    sites = find_sites(digits_teacher)["all"]
    bounds = {"image": (np.zeros((1, 1, 1)), np.ones((1, 1, 1)))}
    first, again, other = (take_probe(digits_teacher, sites, bounds, seed).tensors for seed in (0, 0, 1))
    assert set(first) == {"input.0", "output.0"} | {f"{s.id}.{name}" for s in sites for name in ("mean", "l2")}
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
    assert not np.array_equal(first["input.0"], other["input.0"])


def test_one_changed_weight_is_found(digits_teacher, digits_bundle):
    bundle = Bundle.open(digits_bundle)
    second = find_sites(digits_teacher)["all"][2]
    problems = check_probe(changed(digits_teacher, "4.weight", 17, 0.5), bundle)
    assert {problem.code for problem in problems} == {"probe-differs"}
    where = [problem.where for problem in problems]
    assert f"probe {second.id}.l2" in where
    assert "probe output.0" in where
    before = find_sites(digits_teacher)["all"][1]
    assert not any(before.id in place for place in where)


def test_folded_batch_normalization_is_found(digits, digits_network, digits_bundle):
    """Same names, same outputs; only the value between convolution and normalization is another."""
    names = {"input_names": ["image"], "output_names": ["logits"]}
    folded = export_module(digits_network, (digits[0][:1],), **names, dynamic_batch=True)
    bundle = Bundle.open(digits_bundle)
    sites = find_sites(Graph.from_bytes(bundle.graph_bytes(), "graph"))["all"]
    model = type(folded.model)()
    model.CopyFrom(folded.model)
    # An exporter that folds keeps the convolution's output name as often as not: here it does.
    outputs = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    renamed = dict(zip(outputs, (site.value for site in sites[1:3]), strict=True))
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    del model.graph.value_info[:]
    problems = check_probe(Graph.from_bytes(model.SerializeToString(), "folded.onnx"), bundle)
    where = {problem.where.removeprefix("probe ").split(".")[0] for problem in problems}
    assert where == {sites[1].id, sites[2].id}


def record(graph, inputs, out, presets=("all-layers",)):
    with Recorder(graph, make_plan(graph, presets), threads=1) as recorder:
        recorder.update(inputs)
    publish(out, graph, recorder.finish(), inputs=graph_inputs(graph), release=Release())
    return Bundle.open(out)


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_integers_are_stored_as_int64_and_given_as_the_graph_wants_them(build, tmp_path, dtype):
    graph = build.tokens(dtype)
    ids = np.random.default_rng(0).integers(0, 30, (60, 5)).astype(dtype)
    bundle = record(graph, ids, tmp_path / "bundle")
    stored = bundle.probe_tensors()["input.0"]
    assert stored.dtype == np.int64
    assert set(np.unique(stored)) <= {0, 1}
    assert bundle.manifest.model.inputs[0].dtype == dtype
    assert check_probe(graph, bundle) == []
    assert check_probe(changed(graph, "w2", 0, 1.0), bundle)


def test_several_inputs_have_a_probe_each(build, tmp_path):
    graph = build.two()
    inputs = {"left": np.ones((20, 3), np.float32), "right": np.zeros((20, 2), np.float32)}
    bundle = record(graph, inputs, tmp_path / "bundle")
    assert bundle.probe_tensors()["input.1"].shape == (4, 2)
    assert check_probe(graph, bundle) == []
    (site,) = {problem.where.split(".")[0] for problem in check_probe(changed(graph, "w1", 0, 1.0), bundle)} - {
        "probe output",
        "probe s0004",
    }
    assert site == "probe s0002"


def test_a_fixed_batch_is_probed_in_its_own_size(digits_network, digits, tmp_path):
    names = {"input_names": ["image"], "output_names": ["logits"]}
    graph = export_module(digits_network, (torch.zeros(1, 1, 8, 8),), **names, keep_batchnorm=True)
    bundle = record(graph, digits[0][:50].numpy(), tmp_path / "bundle")
    assert check_probe(graph, bundle) == []
