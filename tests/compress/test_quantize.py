"""Quantizing from records: the same integers as with the data itself, and every form in two runtimes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from dfmeta.compress import quantize
from dfmeta.compress._bit_budget import spend
from dfmeta.compress._ends import first_and_last
from dfmeta.compress._operators import operators
from dfmeta.compress.quantize import Config, configured, run, widths
from dfmeta.errors import DataError, DfmetaError, ExportError, StepError, UnknownName
from dfmeta.export.matmul_nbits import matmul_nbits_model
from dfmeta.export.qoperator import integer_graph
from dfmeta.export.quantized import quantized_graph
from dfmeta.graph import Graph, OrtGraph, TorchGraph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.records import PublishedRecords

make = helper.make_node
Build = Callable[..., Graph]
Records = Callable[..., PublishedRecords]
GENERATOR = np.random.default_rng(11)


def f(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (GENERATOR.standard_normal(shape) * scale).astype(np.float32)


def pictures(count: int) -> np.ndarray:
    """Smooth ones, so that neighbours say much of each other."""
    x = f(count, 3, 9, 9)
    return (x + np.roll(x, 1, 2) + np.roll(x, 1, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def network(build_graph: Build) -> Graph:
    """Convolutions (one grouped, one strided) with BatchNormalization and a residual addition, and a classifier."""
    statistics = {
        f"{norm}{part}": np.abs(f(8)) + np.float32(0.5) if part in "gv" else f(8, scale=0.2)
        for norm in "no"
        for part in "gsmv"
    }
    nodes = [
        make("Conv", ["x", "w0"], ["c0"], name="stem", pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["c0", "ng", "ns", "nm", "nv"], ["n0"]),
        make("Relu", ["n0"], ["r0"]),
        make("Conv", ["r0", "w1", "b1"], ["c1"], name="inner", pads=[1, 1, 1, 1]),
        make("Relu", ["c1"], ["r1"]),
        make("Conv", ["r1", "w2"], ["c2"], name="grouped", pads=[1, 1, 1, 1], group=2),
        make("BatchNormalization", ["c2", "og", "os", "om", "ov"], ["n2"]),
        make("Add", ["n2", "r0"], ["a"]),
        make("Relu", ["a"], ["r2"]),
        make("GlobalAveragePool", ["r2"], ["g"]),
        make("Flatten", ["g"], ["v"]),
        make("Gemm", ["v", "w3", "b3"], ["h"], name="hidden", transB=1),
        make("Relu", ["h"], ["r3"]),
        make("MatMul", ["r3", "w4"], ["p"], name="head"),
        make("Add", ["p", "b4"], ["y"]),
    ]
    constants = {
        "w0": f(8, 3, 3, 3, scale=0.3),
        "w1": f(8, 8, 3, 3, scale=0.2),
        "b1": f(8),
        "w2": f(8, 4, 3, 3, scale=0.2),
        "w3": f(20, 8),
        "b3": f(20),
        "w4": f(20, 5),
        "b4": f(5),
        **statistics,
    }
    return build_graph(nodes, {"x": ["n", 3, 9, 9]}, {"y": ["n", 5]}, constants)


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return pictures(200)


@pytest.fixture(scope="module")
def records(network: Graph, data: np.ndarray, records_of_graph: Records) -> PublishedRecords:
    return records_of_graph(network, {"x": data})


def outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    [found] = OrtGraph(graph, threads=1).run({"x": x}).values()
    return found


def error(graph: Graph, other: Graph, x: np.ndarray) -> float:
    """As a share of the first one's variance."""
    expected = outputs(graph, x)
    return float(np.square(outputs(other, x) - expected).mean() / expected.var())


def test_eight_bits_change_little(network: Graph, records: PublishedRecords) -> None:
    found = run(network, records, Config("w8a8"))
    assert error(network, found.graph, pictures(50)) < 2e-3
    assert (found.graph.opset, found.graph.ir_version) == (18, 8)
    assert {layer.label: (layer.bits, layer.value_bits) for layer in found.layers} == dict.fromkeys(
        ["stem", "inner", "grouped", "hidden", "head"], (8, 8)
    )


def test_records_are_better_than_nothing_where_bits_are_few(network: Graph, records: PublishedRecords) -> None:
    x = pictures(50)
    ours = error(network, run(network, records, Config("w3", first_last_bits=0)).graph, x)
    plain = Config("w3", rounding="nearest", bias_correction=False, scales="grid", first_last_bits=0)
    assert ours < 0.5 * error(network, run(network, records, plain).graph, x)


def patches(value: np.ndarray, groups: int) -> np.ndarray:
    """``[g, n, d]`` of a 3x3 convolution with one row of padding, float64."""
    columns = torch.nn.functional.unfold(torch.from_numpy(value.astype(np.float64)), 3, padding=1)
    return columns.reshape(len(value), groups, -1, columns.shape[-1]).permute(1, 0, 3, 2).flatten(1, 2).numpy()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_integers_are_those_that_the_data_itself_gives(
    bits: int, network: Graph, records: PublishedRecords, data: np.ndarray
) -> None:
    """GPTQ by the book from the layer's own inputs, at the scales of the largest weights, in float64."""
    config = Config(f"w{bits}", scales="largest", first_last_bits=0)
    found = run(network, records, config)
    codes = {weight.tensor: weight for weight in found.model.weights}
    folded = without_batch_norm(network)
    values = OrtGraph(folded, ["r0", "r1", "v"], threads=1).run({"x": data})
    given = {"w1": patches(values["r0"], 1), "w2": patches(values["r1"], 2), "w3": values["v"][None].astype(np.float64)}
    for name, rows in given.items():
        weight = folded.initializers[name].astype(np.float64).reshape(len(rows), -1, rows.shape[2])
        expected = np.concatenate([by_the_book(w, x, bits) for w, x in zip(weight, rows, strict=True)])
        assert (codes[name].codes.reshape(expected.shape) == expected).mean() >= 0.9999, name


def by_the_book(weight: np.ndarray, rows: np.ndarray, bits: int) -> np.ndarray:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scales = np.maximum(weight.max(1) / high, weight.min(1) / low).astype(np.float32).astype(np.float64)
    moved = rows - rows.mean(0)
    moment = moved.T @ moved / len(moved)
    order = np.argsort(-np.diagonal(moment), kind="stable")
    moment = moment + 0.01 * np.diagonal(moment).mean() * np.eye(len(moment))
    inverse = np.linalg.inv(moment[np.ix_(order, order)])
    rest, codes = weight[:, order].copy(), np.zeros(weight.shape)
    for column in range(weight.shape[1]):
        codes[:, column] = np.clip(np.rint(rest[:, column] / scales), low, high)
        wrong = (rest[:, column] - scales * codes[:, column]) / inverse[column, column]
        rest[:, column:] -= np.outer(wrong, inverse[column, column:])
        inverse = inverse - np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    found = np.empty_like(codes)
    found[:, order] = codes
    return found


@pytest.mark.parametrize("form", ["toeplitz", "kronecker", "diagonal"])
def test_every_form_of_record_serves(form: str, network: Graph, data: np.ndarray, records_of_graph: Records) -> None:
    found = run(network, records_of_graph(network, {"x": data}, form=form), Config("w4"))
    assert {layer.form for layer in found.layers} <= {form, "full"}
    assert error(network, found.graph, pictures(50)) < 0.05


@pytest.mark.parametrize(("form", "same_as"), [("full", "always"), ("toeplitz", "never")])
def test_only_exact_records_are_centred(
    form: str, same_as: str, network: Graph, data: np.ndarray, records_of_graph: Records
) -> None:
    """A compact record is off by a small share of the moment, which is a large share of the covariance."""
    compact = records_of_graph(network, {"x": data}, form=form)
    codes = {
        centre: run(network, compact, Config("w3", centre=centre, scales="largest")).model.weights[1].codes
        for centre in ("auto", "always", "never")
    }
    np.testing.assert_array_equal(codes["auto"], codes[same_as])
    assert (codes["always"] != codes["never"]).any()


def test_the_predicted_error_is_that_of_the_data(network: Graph, records: PublishedRecords, data: np.ndarray) -> None:
    found = run(network, records, Config("w3", first_last_bits=0))
    layer = next(one for one in found.layers if one.label == "inner")
    value = OrtGraph(without_batch_norm(network), ["r0"], threads=1).run({"x": data})["r0"]
    [rows] = patches(value, 1)
    before = without_batch_norm(network).initializers["w1"].astype(np.float64).reshape(8, -1)
    after = found.model.graph.initializers["w1"].astype(np.float64).reshape(8, -1)
    change = rows @ (before - after).T
    expected = np.square(change - change.mean(0)).sum(1).mean() / np.square(rows @ before.T).sum(1).mean()
    assert layer.error == pytest.approx(expected, rel=1e-3)


def test_biases_take_up_the_mean_error(network: Graph, records: PublishedRecords, data: np.ndarray) -> None:
    """On the data of the records, the mean of each first layer's output is the teacher's."""
    found = run(network, records, Config("w2", first_last_bits=0))
    first, folded = "n0", without_batch_norm(network)
    ours, theirs = (OrtGraph(g, [first], threads=1).run({"x": data})[first] for g in (found.model.graph, folded))
    np.testing.assert_allclose(ours.mean((0, 2, 3)), theirs.mean((0, 2, 3)), atol=1e-4)


BITS = ["w8a8", "w8", "w4a8", "w4", "w3", "w2", "w4a4", "w5a8"]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("signed", [False, True])
def test_two_runtimes_agree(bits: str, signed: bool, network: Graph, records: PublishedRecords) -> None:
    found = run(network, records, Config(bits, values="int8" if signed else "uint8", scales="weighted"))
    x = pictures(20)
    ours = TorchGraph(found.graph)(torch.from_numpy(x)).detach().numpy()
    theirs = outputs(found.graph, x)
    # A number on the border between two integers may fall to either side: that is rare, and of one step, which is
    # large where there are sixteen of them.
    typical = 1e-4 if not bits.endswith("a4") else 1e-2
    assert np.quantile(np.abs(ours - theirs), 0.5) <= typical * np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= 0.2 * np.abs(theirs).max()


@pytest.mark.parametrize("bits", ["w4", "w3", "w2"])
def test_few_bits_are_stored_in_int4_of_opset_21(bits: str, network: Graph, records: PublishedRecords) -> None:
    found = run(network, records, Config(bits))
    assert (found.graph.opset, found.graph.ir_version) == (21, 10)
    half = 2 ** (int(bits[1]) - 1)
    for weight in found.model.weights:
        stored = found.graph.initializers[f"{weight.tensor}_codes"]
        assert found.graph.dtype(f"{weight.tensor}_codes") == ("int4" if weight.bits <= 4 else "int8")
        if weight.bits <= 4:
            assert -half <= stored.astype(np.int8).min()
            assert stored.astype(np.int8).max() < half
    layer = next(one for one in found.layers if one.label == "inner")
    assert (layer.bytes, layer.nominal_bytes) == (576 // 2 + 32, 576 * int(bits[1]) // 8 + 32)


def test_a_target_without_int4_gets_the_codes_in_int8(network: Graph, records: PublishedRecords) -> None:
    narrow, wide = (run(network, records, Config("w4", int4=int4)) for int4 in (True, False))
    assert (wide.graph.opset, wide.graph.ir_version) == (18, 8)
    assert wide.graph.dtype("w1_codes") == "int8"
    x = pictures(5)
    np.testing.assert_allclose(outputs(narrow.graph, x), outputs(wide.graph, x), atol=1e-4)
    layers = [{one.label: one.bytes for one in found.layers} for found in (narrow, wide)]
    assert layers[1]["inner"] == 576 + 32 > layers[0]["inner"]


def test_first_and_last_layers_keep_their_bits(network: Graph, records: PublishedRecords) -> None:
    plain = without_batch_norm(network)
    assert first_and_last(plain, operators(plain)) == {"stem", "head"}
    bits = {one.label: (one.bits, one.value_bits) for one in run(network, records, Config("w4a4")).layers}
    assert bits["stem"] == bits["head"] == (8, 8)
    assert bits["inner"] == bits["hidden"] == (4, 4)
    bits = {one.label: one.bits for one in run(network, records, Config("w4", first_last_bits=0)).layers}
    assert set(bits.values()) == {4}


def test_integer_operators_compute_the_same(network: Graph, records: PublishedRecords) -> None:
    found = run(network, records, Config("w8a8"))
    graph = integer_graph(found.model)
    names = [node.op_type for node in graph.model.graph.node]
    assert names.count("QLinearMatMul") == 1
    # Three convolutions, the addition, the mean and the matrix product with a bias.
    assert names.count("QLinearConv") == 6
    assert {"Conv", "Gemm", "MatMul", "Relu", "GlobalAveragePool"}.isdisjoint(names)
    x = pictures(50)
    assert error(network, graph, x) < 1e-2
    ours = TorchGraph(graph)(torch.from_numpy(x)).detach().numpy()
    assert np.abs(ours - outputs(graph, x)).max() <= 0.1 * np.abs(ours).max()


def test_a_rectifier_between_integer_operators_disappears(network: Graph, records: PublishedRecords) -> None:
    """Its result has the same integers as what it reads: cutting off at 0 is what they do."""
    graph = integer_graph(run(network, records, Config("w8a8")).model)
    nodes = {output: node for node in graph.model.graph.node for output in node.output}
    grouped = next(node for node in graph.model.graph.node if node.name == "grouped")
    assert nodes[grouped.input[0]].op_type == "QLinearConv"


@pytest.mark.parametrize("bits", ["w4a8", "w8", "w4a4"])
def test_integer_operators_are_for_eight_bits(bits: str, network: Graph, records: PublishedRecords) -> None:
    with pytest.raises(ExportError, match="8 bits"):
        integer_graph(run(network, records, Config(bits, scales="weighted")).model)


def test_onnxruntimes_own_operator_computes_the_same(network: Graph, records: PublishedRecords) -> None:
    found = run(network, records, Config("w4", first_last_bits=0))
    raw = matmul_nbits_model(found.model, {"dfmeta.tool": "test"})
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    x = pictures(20)
    [ours] = session.run(None, {"x": x})
    np.testing.assert_allclose(ours, outputs(found.graph, x), atol=2e-3 * float(np.abs(ours).max()))
    assert raw.count(b"MatMulNBits") >= 2


def test_onnxruntimes_own_operator_needs_a_product_of_few_bits(network: Graph, records: PublishedRecords) -> None:
    with pytest.raises(ExportError, match="no matrix product"):
        matmul_nbits_model(run(network, records, Config("w8", scales="weighted")).model, {})


def without(records: PublishedRecords, kind: str, value: str) -> PublishedRecords:
    return PublishedRecords(tuple(one for one in records if (one.kind, one.value) != (kind, value)))


def test_missing_records_are_named(network: Graph, records: PublishedRecords) -> None:
    fewer = without(without(records, "second-moment", "r0"), "second-moment", "v")
    with pytest.raises(StepError, match=r"none for inner, hidden.*calibration.*nearest"):
        run(network, fewer, Config("w4"))
    found = run(network, fewer, Config("w4", fallback="nearest"))
    rounding = {layer.label: (layer.rounding, layer.form) for layer in found.layers}
    assert rounding["inner"] == rounding["hidden"] == ("nearest", "")
    assert rounding["grouped"] == ("gptq", "full")


def test_missing_histograms_are_named(network: Graph, records: PublishedRecords) -> None:
    fewer = without(records, "histogram", "r0")
    with pytest.raises(StepError, match="none of what inner read"):
        run(network, fewer, Config("w8a8"))
    found = run(network, fewer, Config("w8a8", fallback="nearest"))
    assert {layer.label: layer.value_bits for layer in found.layers}["inner"] == 32
    assert run(network, fewer, Config("w8")).model.values == ()


def test_an_empty_histogram_is_refused(network: Graph, records: PublishedRecords) -> None:
    changed = []
    for one in records:
        tensors: dict[str, Any] = dict(one.tensors)
        if (one.kind, one.value) == ("histogram", "r0"):
            tensors = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        changed.append(replace(one, tensors=tensors))
    with pytest.raises(StepError, match=r"histogram of 'r0': found no counts"):
        run(network, PublishedRecords(tuple(changed)), Config("w8a8"))


def test_moments_of_low_rank_are_damped_and_said_so(network: Graph, records_of_graph: Records) -> None:
    few = records_of_graph(network, {"x": pictures(2)})
    layers = run(network, few, Config("w4", damping=0.0)).layers
    assert all(0 <= layer.damping <= 1 and np.isfinite(layer.error) for layer in layers)
    assert any(layer.damping > 0 for layer in layers)
    assert {layer.damping for layer in run(network, few, Config("w4")).layers} == {0.01}


def test_an_input_that_never_changes_is_left_to_the_bias(network: Graph, records_of_graph: Records) -> None:
    """One picture: the classifier's inputs have no variance, and none is made up from rounding."""
    one = records_of_graph(network, {"x": pictures(1)})
    layers = {layer.label: layer for layer in run(network, one, Config("w4")).layers}
    assert (layers["hidden"].damping, layers["hidden"].error) == (0.01, 0.0)


@pytest.mark.parametrize("bits", ["w1", "w9a8", "w4a2", "a8", "", "8", "W4", "w4a8 "])
def test_bits_out_of_range_are_refused(bits: str, network: Graph, records: PublishedRecords) -> None:
    with pytest.raises(DataError, match="w2 to w8"):
        run(network, records, Config(bits))


@pytest.mark.parametrize(
    "changes",
    [
        {"first_last_bits": 1},
        {"first_last_bits": 9},
        {"damping": -1.0},
        {"budget_bytes": 0},
        {"percentile": 50.0},
        {"percentile": float("nan")},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], network: Graph, records: PublishedRecords) -> None:
    for bits in ("w8a8", "w4"):
        with pytest.raises(DataError):
            run(network, records, Config(bits, **changes))


def test_a_graph_without_weights_is_refused(build_graph: Build) -> None:
    graph = build_graph([make("Relu", ["x"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 3]}, {})
    with pytest.raises(StepError, match="nothing to do"):
        run(graph, PublishedRecords(()))


@pytest.mark.parametrize("counted", ["stored", "nominal"])
def test_a_budget_is_kept_and_used(counted: str, network: Graph, records: PublishedRecords) -> None:
    layers = run(network, records, Config("w8")).layers
    whole = sum(one.bytes for one in layers)
    budget = int(0.75 * whole)
    found = run(network, records, Config("w2", budget_bytes=budget, budget_of=counted, first_last_bits=0)).layers
    used = sum(one.bytes if counted == "stored" else one.nominal_bytes for one in found)
    assert 0.5 * budget < used <= budget
    assert len({one.bits for one in found}) > 1


@pytest.mark.parametrize(("counted", "fewest"), [("stored", 4), ("nominal", 2)])
def test_a_budget_alone_begins_with_the_fewest_bits(
    counted: str, fewest: int, network: Graph, records: PublishedRecords
) -> None:
    assert widths(Config()) == (8, 8)
    assert widths(Config(budget_bytes=1, budget_of=counted)) == (fewest, 8)  # type: ignore[arg-type]
    assert widths(Config("w6", budget_bytes=1)) == (6, None)
    whole = run(network, records, Config(scales="largest")).layers
    budget = int(0.8 * sum(one.bytes for one in whole))
    mixed = Config(budget_bytes=budget, budget_of=counted, scales="largest")  # type: ignore[arg-type]
    found = run(network, records, mixed).layers
    assert sum(one.bytes if counted == "stored" else one.nominal_bytes for one in found) <= budget
    assert fewest <= min(one.bits for one in found) < max(one.bits for one in found) == 8
    assert {one.value_bits for one in found} == {8}
    with pytest.raises(StepError, match=r"fewest bits that --bits and --first-last-bits allow"):
        run(network, records, replace(mixed, bits="w8a8"))


def test_a_budget_that_is_too_small_says_what_it_would_take(network: Graph, records: PublishedRecords) -> None:
    with pytest.raises(StepError, match=r"budget-bytes: found 100 .*at least [\d,]+"):
        run(network, records, Config("w4", budget_bytes=100))


def test_a_budget_is_spent_where_it_helps_most() -> None:
    costs = {
        "a": {8: (80, 0.0), 4: (40, 1.0), 2: (20, 9.0)},
        "b": {8: (80, 0.0), 4: (40, 0.1), 2: (20, 0.2)},
        "c": {8: (80, 0.5), 4: (40, 0.4)},
    }
    assert spend(costs, 240) == {"a": 8, "b": 8, "c": 4}
    assert spend(costs, 150) == {"a": 8, "b": 2, "c": 4}
    assert spend(costs, 80) == {"a": 2, "b": 2, "c": 4}


def test_a_weight_that_two_operators_share_is_rounded_once(build_graph: Build, records_of_graph: Records) -> None:
    """For both of its inputs together."""
    nodes = [
        make("MatMul", ["x", "w"], ["a"], name="first"),
        make("Relu", ["a"], ["r"]),
        make("MatMul", ["r", "w"], ["y"], name="second"),
    ]
    graph = build_graph(nodes, {"x": ["n", 16]}, {"y": ["n", 16]}, {"w": f(16, 16)})
    x = f(300, 16)
    found = run(graph, records_of_graph(graph, {"x": x}), Config("w4", first_last_bits=0))
    assert [weight.tensor for weight in found.model.weights] == ["w"]
    assert [layer.note for layer in found.layers] == ["shares its weight with second", "shares its weight with first"]
    assert error(graph, found.graph, f(50, 16)) < 0.05
    assert sum(layer.parameters for layer in found.layers) == 256


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution(groups: int, build_graph: Build, records_of_graph: Records) -> None:
    node = make("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=groups)
    graph = build_graph([node], {"x": ["n", 4, 5, 5]}, {"y": ["n", 3 * groups, 11, 11]}, {"w": f(4, 3, 3, 3)})
    x = f(100, 4, 5, 5)
    found = run(graph, records_of_graph(graph, {"x": x}), Config("w4a8", first_last_bits=0))
    assert error(graph, found.graph, f(5, 4, 5, 5)) < 0.02


def test_progress_is_told(network: Graph, records: PublishedRecords) -> None:
    told: list[tuple[str, int, int]] = []
    run(network, records, Config("w8", scales="largest"), lambda *facts: told.append(facts))
    assert told == [("quantize", number, 5) for number in range(1, 6)]


def test_settings_as_text() -> None:
    given = {"bits": "w4", "damping": "0.1", "int4": "false", "budget_bytes": "5", "scales": "grid"}
    assert configured(Config(), given) == Config("w4", damping=0.1, int4=False, budget_bytes=5, scales="grid")


@pytest.mark.parametrize(
    ("given", "error_type"),
    [
        ({"bit": "w4"}, UnknownName),
        ({"scales": "best"}, UnknownName),
        ({"bits": "w4", "ranges": "foo"}, UnknownName),
        ({"fallback": "gptq"}, UnknownName),
        ({"int4": "no"}, DataError),
        ({"damping": "much"}, DataError),
        ({"damping": "-1"}, DataError),
        ({"percentile": "40"}, DataError),
        ({"budget_bytes": "1.5"}, DataError),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, str], error_type: type[DfmetaError]) -> None:
    with pytest.raises(error_type):
        configured(Config(), given)


@pytest.mark.parametrize("name", ["rounding", "scales", "centre", "ranges", "values", "budget_of", "fallback"])
def test_an_unknown_choice_is_refused_whoever_gives_it(name: str, network: Graph, records: PublishedRecords) -> None:
    with pytest.raises(UnknownName, match=f"quantize, {name}: found 'some', expected one of"):
        run(network, records, Config(**{name: "some"}))  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match=f"quantize, {name}: found 'some', expected one of"):
        configured(Config(), {name: "some"})


def test_the_same_records_give_the_same_bytes(network: Graph, records: PublishedRecords) -> None:
    one, other = (run(network, records, Config("w4a8", scales="weighted")) for _ in range(2))
    assert one.graph.raw == other.graph.raw
    assert quantized_graph(one.model).raw == one.graph.raw
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in one.graph.model.graph.initializer}
    assert len(one.model.weights) == 5
    for weight in one.model.weights:
        np.testing.assert_array_equal(stored[f"{weight.tensor}_codes"].astype(np.int8), weight.codes)
        np.testing.assert_array_equal(stored[f"{weight.tensor}_scale"], weight.scales)
    assert quantize.REQUIRES == ("second-moment", "histogram")
