"""Factorised graphs: the forms compute what they promise, the error foretold is the one that comes, budgets hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from dfmeta.compress import factorize
from dfmeta.compress._factor_forms import FORMS, forms, stages
from dfmeta.compress._factor_inputs import COMPACT_RIDGE, RIDGE, inputs
from dfmeta.compress._factor_nodes import rewritten
from dfmeta.compress._operators import Operator, input_record, operators
from dfmeta.compress.factorize import Config, Result
from dfmeta.errors import DataError, StepError, UnknownName
from dfmeta.graph import Graph, OrtGraph, costs
from dfmeta.records import PublishedRecords

make = helper.make_node
Build = Callable[..., Graph]
Records = Callable[..., PublishedRecords]


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def patches_like(seed: int, *shape: int) -> np.ndarray:
    """Inputs whose channels and positions go together, about a mean that is not 0."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    x = np.tensordot(rng.standard_normal((shape[1], shape[1])), x, (1, 1)).swapaxes(0, 1)
    for axis in range(2, len(shape)):
        x = x + 0.7 * np.roll(x, 1, axis)
    found: np.ndarray = (x + rng.standard_normal((1, shape[1], *[1] * (len(shape) - 2)))).astype(np.float32)
    return found


def outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = OrtGraph(graph, threads=1).run({"x": x})[graph.outputs[0].name]
    return found


def one(
    build_graph: Build,
    op: str,
    constants: Mapping[str, np.ndarray],
    names: Sequence[str],
    x: np.ndarray,
    output: Sequence[Any],
    **settings: Any,
) -> Graph:
    """A graph of one operator ``named`` from ``x`` to ``y``, the batch first."""
    turned = op == "Gemm" and names[0] == "w"
    nodes = [make(op, names, ["t" if turned else "y"], "named", **settings)]
    nodes += [make("Transpose", ["t"], ["y"])] if turned else []
    return build_graph(nodes, {"x": ["n", *x.shape[1:]]}, {"y": output}, constants)


# operator, constants, names of its inputs, input, shape of the output, attributes
Case = tuple[str, Mapping[str, np.ndarray], Sequence[str], np.ndarray, Sequence[Any], Mapping[str, Any]]
CASES: Mapping[str, Case] = {
    "window": (
        "Conv",
        {"w": numbers(0, 6, 5, 3, 3), "b": numbers(1, 6)},
        "xwb",
        patches_like(2, 8, 5, 7, 6),
        ["n", 6, 7, 6],
        {"pads": [1] * 4},
    ),
    "strided, padded, dilated": (
        "Conv",
        {"w": numbers(3, 6, 4, 3, 2)},
        "xw",
        patches_like(4, 8, 4, 9, 8),
        ["n", 6, 4, 8],
        {"strides": [2, 1], "pads": [0, 1, 2, 2], "dilations": [2, 3]},
    ),
    "automatic padding": (
        "Conv",
        {"w": numbers(5, 6, 4, 3, 2), "b": numbers(6, 6)},
        "xwb",
        patches_like(7, 8, 4, 7, 8),
        ["n", 6, 4, 4],
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
    ),
    "one by one": (
        "Conv",
        {"w": numbers(8, 6, 8, 1, 1), "b": numbers(9, 6)},
        "xwb",
        patches_like(10, 8, 8, 7, 6),
        ["n", 6, 4, 3],
        {"strides": [2, 2]},
    ),
    "one axis": (
        "Conv",
        {"w": numbers(11, 6, 5, 3)},
        "xw",
        patches_like(12, 8, 5, 9),
        ["n", 6, 5],
        {"strides": [2], "pads": [1, 1]},
    ),
    "three axes": (
        "Conv",
        {"w": numbers(13, 4, 3, 2, 2, 2)},
        "xw",
        patches_like(14, 6, 3, 4, 5, 4),
        ["n", 4, 3, 4, 3],
        {},
    ),
    "dense": (
        "Gemm",
        {"w": numbers(15, 9, 7), "b": numbers(16, 7)},
        "xwb",
        patches_like(17, 60, 9),
        ["n", 7],
        {"alpha": 0.5, "beta": 2.0},
    ),
    "dense, turned": ("Gemm", {"w": numbers(18, 7, 9)}, "xw", patches_like(19, 60, 9), ["n", 7], {"transB": 1}),
    "dense from the left": (
        "Gemm",
        {"w": numbers(20, 7, 9), "b": numbers(22, 7, 1)},
        "wxb",
        patches_like(21, 60, 9),
        ["n", 7],
        {"transB": 1},
    ),
    "product": ("MatMul", {"w": numbers(23, 9, 7)}, "xw", patches_like(24, 9, 6, 9), ["n", 6, 7], {}),
    "product from the left": ("MatMul", {"w": numbers(25, 1, 7, 9)}, "wx", patches_like(26, 9, 9, 6), ["n", 7, 6], {}),
}


def case(build_graph: Build, name: str) -> tuple[Graph, np.ndarray, Operator]:
    op, constants, names, x, output, settings = CASES[name]
    graph = one(build_graph, op, constants, list(names), x, output, **settings)
    return graph, x, operators(graph)[0]


def recorded(build_graph: Build, records_of_graph: Records, graph: Graph, x: np.ndarray) -> PublishedRecords:
    """Of an operator with its weight on the left, from another one of the same input: its own output has no batch."""
    if graph.model.graph.node[-1].op_type == "Transpose":
        graph = one(build_graph, "Gemm", {"w": numbers(0, 9, 2)}, ["x", "w"], x, ["n", 2])
    return records_of_graph(graph, {"x": x})


@pytest.mark.parametrize("name", CASES)
def test_every_form_computes_the_product_of_its_factors(
    build_graph: Build, records_of_graph: Records, name: str
) -> None:
    graph, x, operator = case(build_graph, name)
    moment = input_record(recorded(build_graph, records_of_graph, graph, x), operator).moment
    assert moment is not None
    found = forms(graph, operator, moment[0], FORMS, 1)
    for form_name in {form.name for form in found} - {"whole"}:
        some = [form for form in found if form.name == form_name]
        for form in (some[0], some[len(some) // 2], some[-1]):
            chain, product = stages(operator, moment[0], form)
            made = rewritten(graph, [(operator, chain)])
            bias = {} if operator.bias is None else {operator.bias: graph.initializers[operator.bias]}
            whole = operator.restored(product[None])
            settings = {a.name: helper.get_attribute_value(a) for a in graph.model.graph.node[0].attribute}
            inputs = list(graph.model.graph.node[0].input)
            expected = one(build_graph, operator.entry.op, {"w": whole, **bias}, inputs, x, CASES[name][4], **settings)
            scale = np.abs(outputs(expected, x)).max()
            np.testing.assert_allclose(outputs(made, x), outputs(expected, x), atol=2e-5 * scale)
            ours, theirs = costs(made), costs(graph)
            assert ours.parameters - theirs.parameters == form.parameters - operator.weight.size
            assert ours.macs == form.macs
            assert theirs.macs == found[0].macs
    assert {form.name for form in found} == {
        "window": {"whole", *FORMS},
        "strided, padded, dilated": {"whole", *FORMS},
        "automatic padding": {"whole", *FORMS},
        "one axis": {"whole", "svd", "tucker"},
        "three axes": {"whole", "svd", "tucker"},
    }.get(name, {"whole", "svd"})


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("affine", [True, False])
def test_the_error_that_is_foretold_comes(
    build_graph: Build, records_of_graph: Records, name: str, affine: bool
) -> None:
    """On the inputs that were recorded, to float32, as a share of the variance of the output."""
    graph, x, _ = case(build_graph, name)
    records = recorded(build_graph, records_of_graph, graph, x)
    found = factorize.run(graph, records, Config(params=0.7, affine=affine))
    (report,) = found.operators
    assert report.form != "whole"
    assert report.parameters <= 0.7 * report.parameters_before
    axis = 2 if name == "product" else 1
    others = tuple(number for number in range(len(CASES[name][4])) if number != axis)
    before, after = outputs(graph, x).astype(np.float64), outputs(found.graph, x).astype(np.float64)
    energy = np.square(before - before.mean(others, keepdims=True)).sum()
    assert np.square(after - before).sum() / energy == pytest.approx(report.error, rel=1e-3, abs=1e-7)


def slow_patches(operator: Operator, x: np.ndarray) -> np.ndarray:
    """``[rows, d]`` what an operator multiplies with its weight: a convolution's patches, one by one."""
    window = operator.entry.window
    if window is None:
        return x.astype(np.float64)
    margins = [(0, 0), (0, 0), *zip(window.before, window.after, strict=True)]
    padded = np.pad(x.astype(np.float64), margins)
    sizes = [
        (size - extent) // step + 1
        for size, extent, step in zip(padded.shape[2:], window.extent, window.strides, strict=True)
    ]
    rows = []
    for unit in padded:
        for place in np.ndindex(*sizes):
            cut = tuple(
                slice(at * step, at * step + extent, apart)
                for at, step, extent, apart in zip(place, window.strides, window.extent, window.dilations, strict=True)
            )
            rows.append(unit[(slice(None), *cut)].reshape(-1))
    return np.array(rows)


@pytest.mark.parametrize("name", ["window", "strided, padded, dilated", "automatic padding", "dense, turned"])
def test_the_layer_is_the_one_that_the_data_itself_would_give(
    build_graph: Build, records_of_graph: Records, name: str
) -> None:
    """Against a decomposition of the layer's outputs on every single patch, in float64, without any record."""
    graph, x, operator = case(build_graph, name)
    found = factorize.run(graph, records_of_graph(graph, {"x": x}), Config(params=0.7, forms=("svd",)))
    (report,) = found.operators
    made = operators(found.graph)
    product = made[1].weight[0] @ made[0].weight[0]
    patches = slow_patches(operator, x)
    weight = operator.weight[0]
    # The ridge is one more sample for each feature, of that feature alone.
    around = patches - patches.mean(0)
    ridge = np.diag(np.sqrt(RIDGE * np.square(around).sum(0)))
    results = np.vstack([around, ridge]) @ weight.T
    leading = np.linalg.svd(results, full_matrices=False)[2][: report.ranks[0]]
    expected = leading.T @ leading @ weight
    assert np.linalg.norm(product - expected) < 1e-4 * np.linalg.norm(expected)
    shift = patches.mean(0) @ (weight - expected).T
    bias = graph.initializers[operator.bias] if operator.bias is not None else 0.0
    np.testing.assert_allclose(
        found.graph.initializers[str(made[1].bias)], bias + shift, atol=1e-4 * np.abs(results).max()
    )


def network(build_graph: Build) -> tuple[Graph, np.ndarray]:
    """Two convolutions with normalisation, a depthwise and a transposed one, a shared weight, and a dense layer."""
    constants = {
        "a": numbers(30, 8, 3, 3, 3),
        "b": numbers(31, 12, 8, 3, 3) / 8,
        "d": numbers(32, 12, 1, 3, 3) / 3,
        "t": numbers(33, 12, 6, 2, 2) / 4,
        "s": numbers(34, 6, 6) / 2,
        "f": numbers(35, 6, 10),
        "bias": numbers(36, 10),
        **{name: np.abs(numbers(37 + n, 8)) + 0.5 for n, name in enumerate(("gain", "shift", "mean", "var"))},
    }
    nodes = [
        make("Conv", ["x", "a"], ["h"], "first", pads=[1] * 4),
        make("BatchNormalization", ["h", "gain", "shift", "mean", "var"], ["n"]),
        make("Relu", ["n"], ["r"]),
        make("Conv", ["r", "b"], ["c"], "second", pads=[1] * 4, strides=[2, 2]),
        make("Conv", ["c", "d"], ["e"], "depthwise", group=12, pads=[1] * 4),
        make("ConvTranspose", ["e", "t"], ["u"], "transposed"),
        make("GlobalAveragePool", ["u"], ["g"]),
        make("Flatten", ["g"], ["z"]),
        make("MatMul", ["z", "s"], ["p"], "once"),
        make("MatMul", ["p", "s"], ["q"], "again"),
        make("Gemm", ["q", "f", "bias"], ["y"], "dense"),
    ]
    x = patches_like(40, 40, 3, 8, 8)
    return build_graph(nodes, {"x": ["batch", 3, 8, 8]}, {"y": ["batch", 10]}, constants), x


@pytest.fixture(scope="module")
def whole(build_graph: Build) -> tuple[Graph, np.ndarray]:
    return network(build_graph)


@pytest.fixture(scope="module")
def records(whole: tuple[Graph, np.ndarray], records_of_graph: Records) -> PublishedRecords:
    return records_of_graph(whole[0], {"x": whole[1]})


def by_label(result: Result) -> dict[str, Any]:
    return {operator.label: operator for operator in result.operators}


def test_a_network_within_its_budget(whole: tuple[Graph, np.ndarray], records: PublishedRecords) -> None:
    graph, x = whole
    found = factorize.run(graph, records, Config(params=0.6))
    told = by_label(found)
    assert found.parameters <= 0.6 * found.parameters_before
    assert found.parameters > 0.57 * found.parameters_before
    kept = {
        "depthwise": "12 groups or matrices, each with inputs of its own",
        "transposed": "a transposed convolution",
        "once": "its weight is also that of again",
        "again": "its weight is also that of once",
    }
    assert {label: told[label].reason for label in kept} == kept
    assert all(told[label].form == "whole" and not told[label].error for label in kept)
    assert told["second"].form != "whole"
    assert (found.graph.inputs, found.graph.outputs) == (graph.inputs, graph.outputs)
    assert "BatchNormalization" not in {node.op_type for node in found.graph.model.graph.node}
    # What an operator reads keeps its name, and new names tell where they come from.
    assert {"r", "c", "e"} <= set(found.graph.values)
    new = {node.name for node in found.graph.model.graph.node if node.name.startswith("second")}
    assert new >= {"second.in"}
    assert all(array.dtype == np.float32 for array in found.graph.initializers.values())
    expected = outputs(graph, x)
    assert np.square(outputs(found.graph, x) - expected).mean() < 0.5 * expected.var()


def test_less_budget_means_more_error_and_macs_are_a_budget_too(
    whole: tuple[Graph, np.ndarray], records: PublishedRecords
) -> None:
    graph, _ = whole
    errors = []
    for share in (0.9, 0.7, 0.55):
        found = factorize.run(graph, records, Config(params=share))
        errors.append(sum(operator.error for operator in found.operators))
    assert errors == sorted(errors)
    found = factorize.run(graph, records, Config(params=None, macs=0.6))
    assert costs(found.graph).macs <= 0.6 * costs(graph).macs
    assert sum(one.macs for one in found.operators) == costs(found.graph).macs


def test_the_same_bytes_again(whole: tuple[Graph, np.ndarray], records: PublishedRecords) -> None:
    first, second = (factorize.run(whole[0], records, Config(params=0.6)).graph.raw for _ in range(2))
    assert first == second


def test_better_than_without_records(whole: tuple[Graph, np.ndarray], records: PublishedRecords) -> None:
    graph, x = whole
    expected = outputs(graph, x)
    recorded, plain = (
        np.square(outputs(factorize.run(graph, given, Config(params=0.6, fallback="plain")).graph, x) - expected).mean()
        for given in (records, PublishedRecords(()))
    )
    assert recorded < 0.7 * plain


def test_what_is_kept_stays_as_it_is(whole: tuple[Graph, np.ndarray], records: PublishedRecords) -> None:
    found = factorize.run(whole[0], records, Config(params=0.75, keep=("first", "dense"), forms=("svd",)))
    told = by_label(found)
    assert told["first"].reason == told["dense"].reason == "kept, as asked"
    assert {told[label].form for label in ("second",)} == {"svd"}
    assert {"first", "dense", "second.in", "second.out"} <= {node.name for node in found.graph.model.graph.node}


def test_a_least_rank(whole: tuple[Graph, np.ndarray], records: PublishedRecords) -> None:
    found = factorize.run(whole[0], records, Config(params=0.6, least_rank=3))
    assert all(min(operator.ranks, default=3) >= 3 for operator in found.operators)


def test_other_operators_with_the_same_bias_keep_it(build_graph: Build, records_of_graph: Records) -> None:
    constants = {"w": numbers(50, 8, 8), "v": numbers(51, 8, 8), "b": numbers(52, 8)}
    nodes = [make("Gemm", ["x", "w", "b"], ["h"], "one"), make("Gemm", ["h", "v", "b"], ["y"], "two")]
    graph = build_graph(nodes, {"x": ["n", 8]}, {"y": ["n", 8]}, constants)
    found = factorize.run(
        graph, records_of_graph(graph, {"x": patches_like(53, 50, 8)}), Config(params=0.8, keep=("two",))
    )
    two = next(node for node in found.graph.model.graph.node if node.name == "two")
    np.testing.assert_array_equal(found.graph.initializers[two.input[2]], constants["b"])


def test_progress_is_told(whole: tuple[Graph, np.ndarray], records: PublishedRecords) -> None:
    seen: list[tuple[str, int, int]] = []
    factorize.run(whole[0], records, Config(params=0.8), lambda *facts: seen.append(facts))
    assert seen == [(stage, number, 3) for stage in ("decompose", "factorize") for number in range(3)]


@pytest.mark.parametrize("form", ["toeplitz", "kronecker", "diagonal"])
def test_compact_records_serve_as_well(
    whole: tuple[Graph, np.ndarray], records_of_graph: Records, records: PublishedRecords, form: str
) -> None:
    graph, x = whole
    found = factorize.run(graph, records_of_graph(graph, {"x": x}, form=form), Config(params=0.7))
    told = by_label(found)
    assert told["second"].record == form
    expected = outputs(graph, x)
    plain = factorize.run(graph, PublishedRecords(()), Config(params=0.7, fallback="plain")).graph
    assert np.square(outputs(found.graph, x) - expected).mean() < np.square(outputs(plain, x) - expected).mean()


@pytest.mark.parametrize(
    ("form", "storage", "ridge"),
    [("full", "float32", RIDGE), ("full", "int8", COMPACT_RIDGE), ("kronecker", "float32", COMPACT_RIDGE)],
)
def test_the_ridge_goes_by_the_record(
    build_graph: Build, records_of_graph: Records, form: str, storage: str, ridge: float
) -> None:
    graph, x, operator = case(build_graph, "window")
    records = records_of_graph(graph, {"x": x}, form=form, storage=storage)
    bare, by_default = (inputs(records, operator, share, affine=True).fit for share in (1e-12, None))
    np.testing.assert_allclose(np.diagonal(by_default) / np.diagonal(bare), 1 + ridge, rtol=1e-4)
    np.testing.assert_array_equal(inputs(records, operator, ridge, affine=True).fit, by_default)


def test_records_that_are_missing_are_named(whole: tuple[Graph, np.ndarray], records: PublishedRecords) -> None:
    graph, _ = whole
    with pytest.raises(StepError, match="no second moment of the input of first, second, dense, expected one for each"):
        factorize.run(graph, PublishedRecords(()), Config())
    some = PublishedRecords(tuple(one for one in records if one.value != "r"))
    with pytest.raises(StepError, match=r"input of second, expected .*'calibration'"):
        factorize.run(graph, some, Config())
    assert by_label(factorize.run(graph, some, Config(fallback="plain")))["second"].record == ""
    assert by_label(factorize.run(graph, some, Config(params=0.9, keep=("second",))))["second"].form == "whole"


def test_a_moment_that_was_not_observed_is_missing(whole: tuple[Graph, np.ndarray], records: PublishedRecords) -> None:
    unseen = [
        replace(one, tensors={name: tensor * 0 for name, tensor in one.tensors.items()}) if one.value == "r" else one
        for one in records
    ]
    with pytest.raises(StepError, match="input of second,"):
        factorize.run(whole[0], PublishedRecords(tuple(unseen)), Config())


def test_a_moment_of_low_rank_is_damped_and_told(build_graph: Build, records_of_graph: Records) -> None:
    graph, x, _ = case(build_graph, "dense")
    few = records_of_graph(graph, {"x": x[:3]})
    (report,) = factorize.run(graph, few, Config(params=0.7)).operators
    assert (report.damping, report.further_damping) == (0.01, 1e-6)
    assert report.error == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("form", "damping", "told"), [("full", None, 0.01), ("toeplitz", None, 0.1), ("full", 0.2, 0.2)]
)
def test_the_ridge_that_was_used_is_told(
    form: str, damping: float | None, told: float, whole: tuple[Graph, np.ndarray], records_of_graph: Records
) -> None:
    graph, x = whole
    found = factorize.run(graph, records_of_graph(graph, {"x": x}, form=form), Config(damping=damping)).operators
    assert {one.damping for one in found if one.record == form} == {told}
    plain = factorize.run(graph, PublishedRecords(()), Config(fallback="plain", damping=damping)).operators
    assert {(one.damping, one.further_damping) for one in plain} == {(0.0, 0.0)}


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"params": 0.0}, DataError, "params: found 0, expected a share above 0 and below 1"),
        ({"params": 1.0}, DataError, "params: found 1, expected a share"),
        ({"params": -2.0}, DataError, "params: found -2, expected a share"),
        ({"params": float("nan")}, DataError, "params: found nan, expected a share"),
        ({"params": None, "macs": 1.5}, DataError, "macs: found 1.5, expected a share"),
        ({"params": None}, DataError, "found 0 budgets, expected either params or macs"),
        ({"macs": 0.5}, DataError, "found 2 budgets, expected either"),
        ({"least_rank": 0}, DataError, "least_rank: found 0, expected 1 or more"),
        ({"damping": 0.0}, DataError, "damping: found 0, expected a share above 0 and below 1"),
        ({"power": 0.0}, DataError, "power: found 0, expected a finite number above 0"),
        ({"forms": ("svd", "tuckr")}, UnknownName, "Did you mean 'tucker'"),
        ({"forms": ()}, DataError, "no form, expected one or more"),
        ({"fallback": "nearest"}, UnknownName, "expected one of none, plain"),
        ({"keep": ("frist",)}, UnknownName, "Did you mean 'first'"),
        ({"params": 0.05}, StepError, "found 0.05, expected 0.316 or more, which the smallest"),
    ],
)
def test_settings_out_of_range(
    whole: tuple[Graph, np.ndarray],
    records: PublishedRecords,
    settings: dict[str, Any],
    kind: type[Exception],
    text: str,
) -> None:
    with pytest.raises(kind, match=text):
        factorize.run(whole[0], records, Config(**settings))


def test_onnx_accepts_it(whole: tuple[Graph, np.ndarray], records: PublishedRecords) -> None:
    onnx.checker.check_model(factorize.run(whole[0], records, Config(params=0.6)).graph.model, full_check=True)
