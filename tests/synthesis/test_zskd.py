"""What `zskd` promises beyond the contract."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from dfmeta.compress import distill
from dfmeta.errors import Diverged, StepError
from dfmeta.graph import Graph, TorchGraph
from dfmeta.records import PublishedRecords
from dfmeta.synthesis import build, training
from dfmeta.synthesis.zskd import LEAST_CONCENTRATION, class_weights, concentrations, dirichlet

WEIGHT = np.random.default_rng(0).normal(size=(10, 64)).astype(np.float32)


def task_of(task, nodes, **constants):
    """The task with a teacher of these nodes, ``x [n, 64]`` to ``y``."""
    value = helper.make_tensor_value_info
    inputs, outputs = (
        [value("x", onnx.TensorProto.FLOAT, ["n", 64])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 10])],
    )
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([helper.make_node(*node[:3], **dict(node[3:])) for node in nodes], "g", inputs, outputs)
    graph.initializer.extend(tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    teacher = TorchGraph(Graph.from_bytes(model.SerializeToString(), "made")).eval().requires_grad_(False)
    return dataclasses.replace(task, teacher=teacher, output_name="y")


# --- the last layer's weights


def test_the_weights_are_those_of_the_last_layer(image_task, digits_network):
    torch.testing.assert_close(class_weights(image_task(0)), digits_network[-1].weight.detach())


@pytest.mark.parametrize(
    "nodes",
    [
        [("Gemm", ["x", "w", "b"], ["y"], ("transB", 1))],
        [("Gemm", ["x", "v", "b"], ["y"])],
        [("MatMul", ["x", "v"], ["y"])],
        [("MatMul", ["x", "v"], ["m"]), ("Add", ["b", "m"], ["y"])],
        [("Transpose", ["w"], ["t"]), ("MatMul", ["x", "t"], ["m"]), ("Identity", ["m"], ["y"])],
    ],
    ids=["gemm-transposed", "gemm", "matmul", "matmul-add", "transposed-in-the-graph"],
)
def test_every_way_to_write_a_linear_layer(vector_task, nodes):
    used = {name for node in nodes for name in node[1]}
    constants = {"w": WEIGHT, "v": np.ascontiguousarray(WEIGHT.T), "b": np.ones(10, np.float32)}
    task = task_of(vector_task(0), nodes, **{name: array for name, array in constants.items() if name in used})
    np.testing.assert_array_equal(class_weights(task).numpy(), WEIGHT)


@pytest.mark.parametrize(
    ("nodes", "last"),
    [
        ([("MatMul", ["x", "v"], ["m"]), ("Softmax", ["m"], ["y"])], "Softmax"),
        ([("MatMul", ["x", "v"], ["m"]), ("Mul", ["m", "m"], ["y"])], "Mul"),
        ([("MatMul", ["x", "v"], ["m"]), ("Add", ["m", "m"], ["y"])], "Add"),
        ([("MatMul", ["x", "v"], ["m"]), ("MatMul", ["m", "s"], ["k"]), ("Tanh", ["k"], ["y"])], "Tanh"),
        ([("Transpose", ["x"], ["t"]), ("Gemm", ["w", "t"], ["m"]), ("Transpose", ["m"], ["y"])], "Transpose"),
    ],
)
def test_a_last_operator_that_is_not_linear_is_refused_by_name(vector_task, nodes, last):
    used = {name for node in nodes for name in node[1]}
    constants = {"w": WEIGHT, "v": np.ascontiguousarray(WEIGHT.T), "s": np.eye(10, dtype=np.float32)}
    task = task_of(vector_task(0), nodes, **{name: array for name, array in constants.items() if name in used})
    with pytest.raises(StepError, match=f"zskd, output 'y': found an operator {last} there, expected a Gemm or MatMul"):
        build("zskd", task)


# --- soft targets


def test_concentrations_are_likenesses_of_the_classes():
    found = concentrations(torch.from_numpy(WEIGHT)).numpy()
    for row, one in enumerate(WEIGHT.astype(np.float64)):
        cosines = np.array([one @ other / np.linalg.norm(one) / np.linalg.norm(other) for other in WEIGHT])
        wanted = (cosines - cosines.min()) / (1 - cosines.min())
        np.testing.assert_allclose(found[row], np.maximum(wanted, LEAST_CONCENTRATION), rtol=1e-6, atol=1e-7)
        assert found[row, row] == 1


def test_classes_of_equal_weights_or_none_at_all_have_a_concentration():
    for weights in (torch.ones(4, 3), torch.zeros(4, 3), torch.eye(4)):
        found = concentrations(weights)
        assert torch.isfinite(found).all()
        assert ((found >= LEAST_CONCENTRATION) & (found <= 1)).all()


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_the_targets_have_the_mean_and_the_variance_of_the_dirichlet(scale):
    """A standard error of the mean is below 0.4 %; those of variances are of the same size."""
    alpha = scale * concentrations(torch.from_numpy(WEIGHT))[3]
    found = dirichlet(alpha.expand(20_000, 10), np.random.default_rng(0)).double()
    total = alpha.sum()
    mean = alpha / total
    torch.testing.assert_close(found.mean(0), mean, rtol=0, atol=0.012)
    torch.testing.assert_close(found.var(0), mean * (1 - mean) / (total + 1), rtol=0, atol=0.006)
    torch.testing.assert_close(found.sum(1), torch.ones(20_000, dtype=torch.float64), rtol=0, atol=1e-6)


@given(st.lists(st.floats(1e-5, 5), min_size=2, max_size=8), st.integers(0, 2**32))
def test_any_concentration_gives_shares(alpha, seed):
    """At 1e-5 the plain ratio of gamma variates would be 0 / 0."""
    rows = torch.tensor(alpha, dtype=torch.float64).expand(50, len(alpha))
    found, again = (dirichlet(rows, np.random.default_rng(seed)) for _ in range(2))
    assert torch.isfinite(found).all()
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(50), rtol=0, atol=1e-5)
    assert torch.equal(found, again)


def test_half_of_the_targets_of_each_class_are_peaked(image_task):
    made = build("zskd", image_task(0))
    targets = made._targets(torch.arange(8000))
    by_class = targets.reshape(-1, 2, 10, 10)
    entropy = -(by_class * by_class.clamp(min=1e-30).log()).sum(-1).mean(0)
    assert (entropy[0] > 3 * entropy[1]).all()
    wanted = concentrations(class_weights(image_task(0))).float()
    wanted = wanted / wanted.sum(1, keepdim=True)
    torch.testing.assert_close(by_class.mean((0, 1)), wanted, rtol=0, atol=0.05)


# --- images


def test_images_come_to_meet_their_targets(image_task):
    losses = {}
    for iterations in ("1", "80"):
        settings = {"images": "40", "batch": "40", "iterations": iterations, "lr": "0.03"}
        task = image_task(0)
        made = build("zskd", task, settings)
        losses[iterations] = made.advance()
    inputs, labels = made._inputs[0], made._labels[0]
    assert losses["80"] < 0.9 * losses["1"]
    with torch.no_grad():
        favoured = task.logits(inputs).argmax(1)
    assert (favoured == labels).float().mean() > 0.5
    assert len(set(labels.tolist())) > 5


def test_batches_add_up_to_the_images(image_task):
    made = build("zskd", image_task(0), {"images": "50", "batch": "20", "iterations": "1"})
    assert made.steps == 3
    for _ in range(made.steps):
        made.advance()
    assert [len(part) for part in made._inputs] == [20, 20, 10]


def test_it_needs_no_record(task):
    bare = dataclasses.replace(task(0), records=PublishedRecords(()))
    made = build("zskd", bare, {"images": "10", "batch": "10", "iterations": "2"})
    made.advance()
    assert torch.isfinite(made.sample(5)[0]).all()


@pytest.mark.parametrize("lr", ["1e38", "1e300"])
def test_a_loss_that_is_not_finite_names_the_step(vector_task, lr):
    made = build("zskd", vector_task(0), {"images": "20", "batch": "20", "iterations": "40", "lr": lr})
    with pytest.raises(Diverged, match=r"zskd, batch 1, step \d+: found a loss of (inf|nan)"):
        made.advance()


def test_its_student_is_trained_as_in_the_paper():
    config = dataclasses.replace(distill.Config(), **training("zskd"))
    assert (config.loss, config.temperature, config.lr, config.batch) == ("kl", 20.0, 1e-3, 64)
    assert config.steps * config.batch == 500 * 24_000
