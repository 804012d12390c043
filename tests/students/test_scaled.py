"""``scaled:<fraction>``: the teacher at a fraction of its width, repaired from its records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from torch import Tensor, nn

from dfmeta import students
from dfmeta.bundle import Bundle
from dfmeta.data import from_flags, open_data
from dfmeta.errors import StepError
from dfmeta.graph import Graph, TorchGraph, costs, export_module
from dfmeta.graph.channels import channel_groups
from dfmeta.kinds.second_moment.reading import matrix
from dfmeta.pipeline import record
from dfmeta.records import PublishedRecords
from dfmeta.records.published import Statistic
from dfmeta.students import Origin
from dfmeta.students._scaling import Narrowing, widths

NO_RECORDS = PublishedRecords(())


def build(spec: str, origin: Origin) -> TorchGraph:
    shape = tuple(int(size) for size in origin.graph.inputs[0].shape[1:])
    made = students.build(spec, shape, 10, 0, origin)
    assert isinstance(made, TorchGraph)
    return made


@pytest.fixture(scope="module")
def calibrated(digits_teacher: Graph, tmp_path_factory: pytest.TempPathFactory) -> Origin:
    """The digits' teacher with second moments of every input."""
    out = tmp_path_factory.mktemp("scaled") / "bundle"
    settings: dict[str, Any] = {"presets": ("calibration",), "preprocessing": from_flags(1 / 255), "by_class": False}
    record(digits_teacher, "digits:train", out, **settings)
    return Origin(digits_teacher, PublishedRecords.read(Bundle.open(out)))


@pytest.fixture(scope="module")
def lenet(repository: Path) -> Origin:
    return Origin(Graph.from_file(repository / "examples" / "lenet5-mnist.onnx"), NO_RECORDS)


def narrow(origin: Origin, fraction: float, *, repair: bool = True) -> Graph:
    narrowing = Narrowing.of(origin.graph, origin.records, repair=repair)
    for group, keep in widths(origin.graph, fraction).items():
        narrowing.cut(group, keep)
    return narrowing.finished()


def error(graph: Graph, teacher: Graph, images: Tensor) -> float:
    """Of the logits, as a share of the teacher's variance."""
    with torch.no_grad():
        expected = TorchGraph(teacher)(images)
        return float((TorchGraph(graph)(images) - expected).square().mean() / expected.var())


def unseen() -> Tensor:
    """Digits that no record has seen."""
    batch = next(open_data("digits:test").batches(500))
    return torch.tensor(batch.inputs["x"])[:, None].float() / 255


def test_the_whole_width_is_the_teacher(calibrated: Origin, lenet: Origin) -> None:
    for origin in (calibrated, lenet):
        x = torch.rand(4, *map(int, origin.graph.inputs[0].shape[1:]), generator=torch.Generator().manual_seed(0))
        found = build("scaled:1.0", origin).eval()(x)
        torch.testing.assert_close(found, TorchGraph(origin.graph)(x), rtol=1e-5, atol=1e-5)


def test_half_of_lenet(lenet: Origin) -> None:
    student = build("scaled:0.5", lenet)
    assert costs(student.graph).parameters == 15_738
    assert sum(parameter.numel() for parameter in student.parameters()) == 15_738
    assert student(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("variant", "expected"), [("0.5", (4, 8)), ("0.3", (3, 5)), ("1e-9", (1, 1)), ("1", (8, 16))])
def test_widths_are_rounded_up(calibrated: Origin, variant: str, expected: tuple[int, int]) -> None:
    graph = build(f"scaled:{variant}", calibrated).graph
    assert tuple(graph.initializers[name].shape[0] for name in ("0.weight", "4.weight")) == expected
    assert graph.outputs[0].shape[1] == 10


def test_a_tenth_of_thirty_is_three() -> None:
    """Although 0.1 * 30 is above 3 in floating point."""
    layers = nn.Sequential(nn.Linear(2, 30), nn.ReLU(), nn.Linear(30, 10))
    graph = export_module(layers, (torch.zeros(1, 2),), input_names=["x"], output_names=["y"], dynamic_batch=True)
    assert list(widths(graph, 0.1).values()) == [3]


def test_repair_helps_on_unseen_digits(calibrated: Origin) -> None:
    images = unseen()
    bare = error(narrow(calibrated, 0.5, repair=False), calibrated.graph, images)
    repaired = error(narrow(calibrated, 0.5), calibrated.graph, images)
    blind = error(narrow(Origin(calibrated.graph, NO_RECORDS), 0.5), calibrated.graph, images)
    assert repaired < 0.5 * min(bare, blind)


def test_the_student_of_the_catalogue_is_the_repaired_one(calibrated: Origin) -> None:
    made, expected = build("scaled:0.5", calibrated).to_graph(), narrow(calibrated, 0.5)
    for name, array in expected.initializers.items():
        np.testing.assert_array_equal(made.initializers[name], array)


def test_the_student_learns_and_moves_its_statistics(calibrated: Origin) -> None:
    student = build("scaled:0.5", calibrated).train()
    before = {name: tensor.detach().clone() for name, tensor in student.named_initializers()}
    student(unseen()).square().mean().backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert not torch.equal(dict(student.named_initializers())["1.running_mean"], before["1.running_mean"])


def without(records: PublishedRecords, kind: str) -> PublishedRecords:
    return PublishedRecords(tuple(entry for entry in records if entry.kind != kind))


def diagonal(records: PublishedRecords) -> PublishedRecords:
    """The same second moments with nothing but their diagonals."""

    def plain(entry: Statistic) -> Statistic:
        if entry.kind != "second-moment":
            return entry
        features = entry.tensors["mean"].shape[-1]
        whole = matrix({n: t.numpy() for n, t in entry.tensors.items()}, features, entry.configuration)
        values = np.diagonal(whole, axis1=-2, axis2=-1).reshape(entry.tensors["mean"].shape).astype(np.float32)
        tensors = {"count": entry.tensors["count"], "mean": entry.tensors["mean"], "diagonal": torch.from_numpy(values)}
        configuration = {**entry.configuration, "form": "diagonal", "storage": "float32"}
        return Statistic(
            **{name: getattr(entry, name) for name in ("record", "site", "value", "kind", "by_class", "features")},
            feature_axis=entry.feature_axis,
            tensors=tensors,
            configuration=configuration,
        )

    return PublishedRecords(tuple(map(plain, records)))


def by_channel(head: np.ndarray) -> np.ndarray:
    """``[channels, 10, 4]``: what the last layer does with each channel of the last picture."""
    return head.reshape(10, -1, 4).transpose(1, 0, 2).copy()


def test_diagonal_records_choose_but_do_not_repair(calibrated: Origin) -> None:
    origin = Origin(calibrated.graph, diagonal(calibrated.records))
    found, source = narrow(origin, 0.5), calibrated.graph
    rows = {row.tobytes() for row in by_channel(source.initializers["9.weight"])}
    assert len(rows) == 16
    assert all(row.tobytes() in rows for row in by_channel(found.initializers["9.weight"]))


def test_without_second_moments_norms_choose(calibrated: Origin) -> None:
    """By the energy of what reads each channel, as one can see in the weights alone."""
    origin = Origin(calibrated.graph, without(calibrated.records, "second-moment"))
    found, weights = narrow(origin, 0.5), calibrated.graph.initializers
    energy = np.square(weights["4.weight"]).sum((0, 2, 3))
    stay = np.sort(np.argsort(energy)[4:])
    np.testing.assert_array_equal(found.initializers["0.weight"], weights["0.weight"][stay])


@given(fraction=st.floats(0.05, 1.0))
@settings(max_examples=10, deadline=None)
def test_any_fraction_gives_a_student(lenet: Origin, fraction: float) -> None:
    kept = list(widths(lenet.graph, fraction).values())
    assert [max(1, round(fraction * size + 0.4999)) for size in (6, 16, 120, 84)] == pytest.approx(kept, abs=1)
    assert narrow(lenet, fraction).outputs == lenet.graph.outputs


@pytest.mark.parametrize("variant", ["0", "1.5", "-0.5", "half", "nan", "inf", "", "3/2", "1/0", "1/"])
def test_a_wrong_fraction_is_refused(lenet: Origin, variant: str) -> None:
    with pytest.raises(StepError, match=r"above 0 and up to 1, such as scaled:0\.5"):
        students.build(f"scaled:{variant}", (1, 32, 32), 10, 0, lenet)


def test_a_fraction_may_be_written_as_one(lenet: Origin) -> None:
    found, reference = (
        students.build(f"scaled:{variant}", (1, 32, 32), 10, 0, lenet) for variant in ("2/3", str(2 / 3))
    )
    assert [one.shape for one in found.parameters()] == [one.shape for one in reference.parameters()]


def test_a_teacher_with_nothing_to_narrow_says_why() -> None:
    graph = export_module(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 10)),
        (torch.zeros(1, 1, 2, 2),),
        input_names=["x"],
        output_names=["y"],
        dynamic_batch=True,
    )
    with pytest.raises(StepError, match=r"nothing to narrow \(1.weight: graph output 'y'\)"):
        students.build("scaled:0.5", (1, 2, 2), 10, 0, Origin(graph, NO_RECORDS))


def test_a_teacher_tied_by_an_operator_names_it() -> None:
    sizes = {"x": 4, "y": 10}
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size]) for name, size in sizes.items()]
    arrays = {"a": np.ones((4, 6), np.float32), "b": np.ones((6, 10), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Softmax", ["h"], ["p"], name="gate", axis=1),
        helper.make_node("MatMul", ["p", "b"], ["y"]),
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    proto = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    graph = Graph.from_bytes(model.SerializeToString(), "tied.onnx")
    with pytest.raises(StepError, match=r"a: node 'gate' \(Softmax\).*b: graph output 'y'"):
        students.build("scaled:0.5", (4,), 10, 0, Origin(graph, NO_RECORDS))


def test_a_pre_trained_residual_network(shared: Path, tmp_path: Path) -> None:
    """From the records of a few images; the error is measured on others."""
    teacher = Graph.from_file(shared / "models" / "resnet20-cifar10.onnx")
    steps = from_flags(1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    data = str(shared / "data" / "cifar10-jpeg.zip") + ":train"
    record(teacher, data, tmp_path / "b", presets=("calibration",), preprocessing=steps, by_class=False, limit=48)
    origin = Origin(teacher, PublishedRecords.read(Bundle.open(tmp_path / "b")))
    student = build("scaled:0.5", origin)
    assert (costs(student.graph).parameters, costs(student.graph).macs) == (68_050, 10_248_512)
    assert len(channel_groups(student.graph)) == len(channel_groups(teacher))
    x = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert error(student.graph, teacher, x) < error(narrow(origin, 0.5, repair=False), teacher, x)
