"""Pruned graphs: against a slow reference that reads the data itself, exact where that is possible, refused by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from dfmeta.compress import prune
from dfmeta.compress._cutting import candidates, uniform
from dfmeta.compress._repairing import repaired
from dfmeta.compress._sources import Sources
from dfmeta.compress.prune import Config, Result, run, sparsity_of
from dfmeta.errors import DataError, StepError, UnknownName
from dfmeta.graph import Graph, OrtGraph, costs
from dfmeta.graph.folding import without_batch_norm
from dfmeta.graph.learning import with_values
from dfmeta.numerics.sparse_gpt import sparsified
from dfmeta.records import PublishedRecords

make = helper.make_node
Build = Callable[..., Graph]
Records = Callable[..., PublishedRecords]
NO_RECORDS = PublishedRecords(())
NAN = float("nan")
WRONG_SPARSITY = ("0", "1", "1.5", "-0.5", "4:2", "0:4", "4:4", "2:4:8", "half", "nan")
PADDED = {"pads": [1] * 4}


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def smooth(seed: int, *shape: int) -> np.ndarray:
    """Maps whose neighbours resemble each other, about means that are not 0; of one distribution for all seeds."""
    x = np.random.default_rng(seed).standard_normal(shape)
    for axis in range(2, len(shape)):
        x = x + 0.7 * np.roll(x, 1, axis)
    means = np.random.default_rng(0).standard_normal((1, shape[1], *[1] * (len(shape) - 2)))
    found: np.ndarray = (x + means).astype(np.float32)
    return found


def output(graph: Graph, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = OrtGraph(graph, threads=1).run({"x": x})[graph.outputs[0].name]
    return found


def error(found: Graph, graph: Graph, x: np.ndarray) -> float:
    """Of the outputs, as a share of their variance."""
    expected = output(graph, x)
    return float(np.square(output(found, x) - expected).mean() / expected.var(0).mean())


def by_group(result: Result) -> dict[str, int]:
    return {group.id: group.kept for group in result.groups}


# A convolution with BatchNormalization and ReLU, one that reads it, and a classifier.
CONSTANTS = {
    "first": numbers(0, 8, 3, 3, 3) / 4,
    "scale": numbers(1, 8) / 4 + 1,
    "offset": numbers(2, 8) / 2,
    "mean": numbers(3, 8) / 4,
    "var": np.square(numbers(4, 8)) + 0.5,
    "second": numbers(5, 6, 8, 3, 3) / 6,
    "head": numbers(6, 6, 4),
}


@pytest.fixture(scope="module")
def network(build_graph: Build) -> Graph:
    nodes = [
        make("Conv", ["x", "first"], ["a"], "one", **PADDED),
        make("BatchNormalization", ["a", "scale", "offset", "mean", "var"], ["b"], "norm"),
        make("Relu", ["b"], ["c"]),
        make("Conv", ["c", "second"], ["d"], "two", **PADDED),
        make("Relu", ["d"], ["e"]),
        make("ReduceMean", ["e"], ["f"], axes=[2, 3], keepdims=0),
        make("MatMul", ["f", "head"], ["y"], "three"),
    ]
    return build_graph(nodes, {"x": ["n", 3, 6, 6]}, {"y": ["n", 4]}, CONSTANTS, 17)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return smooth(7, 40, 3, 6, 6)


@pytest.fixture(scope="module")
def records(network: Graph, images: np.ndarray, records_of_graph: Records) -> PublishedRecords:
    return records_of_graph(network, {"x": images})


def patches(graph: Graph, images: np.ndarray, value: str = "c") -> np.ndarray:
    """``[rows, channels * 9]`` float64: what the second convolution multiplies, straight from the data."""
    maps = torch.from_numpy(OrtGraph(graph, (value,), threads=1).run({"x": images})[value].astype(np.float64))
    found: np.ndarray = torch.nn.functional.unfold(maps, 3, padding=1).movedim(1, 2).flatten(0, 1).numpy()
    return found


def fitted(x: np.ndarray, weight: np.ndarray, kept: list[int], damping: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Weight, change of the constant and error of the best affine map of ``x[:, kept]``, with the ridge of the step.

    The ridge pulls each column that stays to itself: so it is a penalty on the *change* of the map, centred inputs in.
    """
    centred = x - x.mean(0)
    ridge = damping * centred.var(0).mean()
    gone = [feature for feature in range(x.shape[1]) if feature not in kept]
    inner = centred[:, kept].T @ centred[:, kept] / len(x) + ridge * np.eye(len(kept))
    change = np.linalg.solve(inner, centred[:, kept].T @ (centred[:, gone] @ weight[:, gone].T) / len(x)).T
    new = weight[:, kept] + change
    left = centred @ weight.T - centred[:, kept] @ new.T
    penalised = np.square(left).sum(1).mean() + ridge * (np.square(change).sum() + np.square(weight[:, gone]).sum())
    return new, weight @ x.mean(0) - new @ x.mean(0)[kept], float(penalised)


def features_of(channels: Sequence[int]) -> list[int]:
    return [channel * 9 + tap for channel in sorted(channels) for tap in range(9)]


def reference(graph: Graph, images: np.ndarray, keep: int, ranking: str, damping: float) -> tuple[Any, ...]:
    """Channels to keep, weight and bias of the second convolution, from the data, every candidate tried."""
    x, weight = patches(graph, images), CONSTANTS["second"].astype(np.float64).reshape(6, -1)
    left = list(range(8))
    if ranking == "energy":
        centred = x - x.mean(0)
        alone = [float(np.square(centred[:, features_of([c])] @ weight[:, features_of([c])].T).sum()) for c in left]
        left = sorted(np.argsort(alone)[8 - keep :].tolist())
    while len(left) > keep:
        errors = {c: fitted(x, weight, features_of([k for k in left if k != c]), damping)[2] for c in left}
        left.remove(min(errors, key=errors.__getitem__))
    new, shift, _ = fitted(x, weight, features_of(left), damping)
    return left, new.reshape(6, keep, 3, 3), shift


@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("ranking", ["surgeon", "energy"])
def test_it_is_what_the_data_itself_gives(
    network: Graph, images: np.ndarray, records: PublishedRecords, ranking: str, variance: bool
) -> None:
    config = Config(channels=0.5, ranking=ranking, damping=1e-3, variance=variance)  # type: ignore[arg-type]
    result = run(network, records, config)
    kept, weight, bias = reference(network, images, 4, ranking, 1e-3)
    if variance:
        x, old = patches(network, images), CONSTANTS["second"].reshape(6, -1)
        new = weight.reshape(6, -1)
        gain = (x @ old.T).std(0) / (x[:, features_of(kept)] @ new.T).std(0)
        weight, bias = (
            weight * gain[:, None, None, None],
            bias + ((1 - gain) * (x[:, features_of(kept)] @ new.T).mean(0)),
        )
    whole = without_batch_norm(network).initializers["first"]
    np.testing.assert_array_equal(result.graph.initializers["first"], whole[kept])
    found = result.graph.initializers
    rows = rows_left(network, records, config)
    np.testing.assert_allclose(found["second"], weight[rows], rtol=1e-4, atol=1e-5 * np.abs(weight).max())
    node = next(node for node in result.graph.model.graph.node if node.name == "two")
    np.testing.assert_allclose(found[node.input[2]], bias[rows], rtol=1e-4, atol=1e-5)


def rows_left(network: Graph, records: PublishedRecords, config: Config) -> list[int]:
    """Outputs of the second convolution that are left, as what reads them wants it."""
    base = without_batch_norm(network)
    sources = Sources(base, records, config.damping, affine=True)
    free = [group for group, reason in candidates(base, sources, "inner") if not reason]
    found: list[int] = uniform(free, sources, 0.5, config.ranking, lambda *_: None)["second"].tolist()
    return found


def test_the_error_foretold_is_the_one_that_comes(
    network: Graph, images: np.ndarray, records: PublishedRecords
) -> None:
    config = Config(channels=0.5)
    result, rows = run(network, records, config), rows_left(network, records, config)
    maps = [OrtGraph(graph, ("d",), threads=1).run({"x": images})["d"] for graph in (network, result.graph)]
    before = maps[0][:, rows].swapaxes(0, 1).reshape(3, -1)
    loss = np.square(before - maps[1].swapaxes(0, 1).reshape(3, -1)).mean(1).sum()
    told = {operator.label: operator.error for operator in result.operators}
    np.testing.assert_allclose(told["two"], loss / before.var(1).sum(), rtol=1e-3)
    assert by_group(result) == {"first": 4, "second": 3, "head": 4}


def test_the_whole_width_is_the_teacher(network: Graph, images: np.ndarray, records: PublishedRecords) -> None:
    for config in (Config(channels=1.0), Config(macs=1.0)):
        result = run(network, records, config)
        np.testing.assert_allclose(output(result.graph, images), output(network, images), rtol=1e-4, atol=1e-5)
        assert result.operators == ()


def test_repair_and_bias_help_on_unseen_inputs(network: Graph, records: PublishedRecords) -> None:
    unseen = smooth(8, 40, 3, 6, 6)
    found = [error(run(network, r, c).graph, network, unseen) for r, c in (
        (records, Config(channels=0.75)),
        (records, Config(channels=0.75, affine=False)),
        (NO_RECORDS, Config(channels=0.75, fallback="norms")),
    )]  # fmt: skip
    assert max(found[:2]) < 0.3 * found[2]


@pytest.mark.parametrize("affine", [True, False])
def test_repair_is_never_worse_than_leaving_out(network: Graph, records: PublishedRecords, affine: bool) -> None:
    """In the norm of the recorded moment, whatever goes, with and without a bias that follows."""
    source = Sources(without_batch_norm(network), records, 1e-3, affine=affine).of("second")

    @given(seed=st.integers(0, 50), lost=st.sets(st.integers(0, 7), min_size=1, max_size=7))
    @settings(max_examples=20, deadline=None)
    def law(seed: int, lost: set[int]) -> None:
        columns = np.array([channel * 9 + seed % 9 for channel in sorted(lost)])
        found = repaired(source, columns, np.zeros(0, np.int64), None, 1e-2, variance=False)
        zeroed = source.weight[0].copy()
        zeroed[:, columns] = 0
        change = source.weight[0] - zeroed
        assert found.error <= np.vdot(change @ source.moment[0], change) / source.energy * (1 + 1e-9)
        assert (found.weight[0][:, columns] == 0).all()

    law()


def test_channels_that_others_determine_cost_nothing(build_graph: Build, records_of_graph: Records) -> None:
    """Of six hidden numbers three are sums of the others and of constants: half of them may go."""
    first, second = numbers(9, 5, 6), numbers(10, 6, 4)
    first[:, 3:] = first[:, :3] @ numbers(11, 3, 3)
    nodes = [
        make("Gemm", ["x", "first", "bias"], ["h"], "one"),
        make("Gemm", ["h", "second"], ["y"], "two", alpha=0.5),
    ]
    constants = {"first": first, "bias": numbers(12, 6), "second": second}
    graph = build_graph(nodes, {"x": ["n", 5]}, {"y": ["n", 4]}, constants)
    x = numbers(13, 60, 5) + 1
    moments = records_of_graph(graph, {"x": x})
    result = run(graph, moments, Config(channels=0.5, damping=1e-7))
    assert by_group(result)["first"] == 3
    assert error(result.graph, graph, numbers(14, 60, 5)) < 1e-6
    # Without a bias that follows, the constants are lost.
    assert error(run(graph, moments, Config(channels=0.5, damping=1e-7, affine=False)).graph, graph, x) > 1e-3


def chain(build_graph: Build, middle: Sequence[Any], constants: Mapping[str, np.ndarray], wide: int) -> Graph:
    """Convolutions to 8 channels, something in the middle to ``wide`` ones, and a classifier."""
    nodes = [
        make("Conv", ["x", "first", "bias"], ["a"], "one", **PADDED),
        make("Relu", ["a"], ["b"]),
        *middle,
        make("ReduceMean", ["z"], ["f"], axes=[2, 3], keepdims=0),
        make("MatMul", ["f", "head"], ["y"], "head"),
    ]
    given = {"first": numbers(0, 8, 3, 3, 3) / 4, "bias": numbers(1, 8) / 4, "head": numbers(2, wide, 4), **constants}
    return build_graph(nodes, {"x": ["n", 3, 6, 6]}, {"y": ["n", 4]}, given, 17)


MIDDLES: dict[str, tuple[list[Any], dict[str, np.ndarray], int, dict[str, int]]] = {
    "depthwise": (
        [make("Conv", ["b", "d"], ["c"], "deep", group=8, **PADDED), make("Conv", ["c", "p"], ["z"], "point")],
        {"d": numbers(3, 8, 1, 3, 3), "p": numbers(4, 6, 8, 1, 1)},
        6,
        {"first": 4, "p": 3, "head": 4},
    ),
    "grouped": (
        [make("Conv", ["b", "g"], ["z"], "grouped", group=2, **PADDED)],
        {"g": numbers(3, 6, 4, 3, 3)},
        6,
        {"first": 2, "g": 2, "head": 4},
    ),
    "transposed": (
        [make("ConvTranspose", ["b", "t"], ["z"], "turned", strides=[2, 2])],
        {"t": numbers(3, 8, 6, 3, 3)},
        6,
        {"first": 4, "t": 3, "head": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MIDDLES)
def test_other_convolutions_are_cut_too(
    build_graph: Build, records_of_graph: Records, images: np.ndarray, name: str
) -> None:
    middle, constants, wide, expected = MIDDLES[name]
    graph = chain(build_graph, middle, constants, wide)
    moments = records_of_graph(graph, {"x": images})
    result = run(graph, moments, Config(channels=0.5))
    assert by_group(result) == expected
    blind = run(graph, NO_RECORDS, Config(channels=0.5, fallback="norms"))
    assert error(result.graph, graph, images) < 0.7 * error(blind.graph, graph, images)
    assert costs(result.graph).macs < costs(graph).macs


def test_groups_are_repaired_one_by_one(build_graph: Build, records_of_graph: Records, images: np.ndarray) -> None:
    """A convolution in two groups is two convolutions of half the channels."""
    middle, constants, wide, _ = MIDDLES["grouped"]
    graph = chain(build_graph, middle, constants, wide)
    sources = Sources(graph, records_of_graph(graph, {"x": images}), 1e-3, affine=True)
    lost = np.arange(9, 18)
    found = repaired(sources.of("g"), lost, np.zeros(0, np.int64), None, 1e-2, variance=False)
    x = patches(graph, images, "b")
    for group in range(2):
        part = x[:, group * 36 : group * 36 + 36]
        kept = [feature for feature in range(36) if feature not in lost]
        weight = constants["g"].astype(np.float64)[group * 3 : group * 3 + 3].reshape(3, -1)
        new, shift, _ = fitted(part, weight, kept, 1e-3)
        np.testing.assert_allclose(found.weight[group][:, kept], new, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.shifts[0][group * 3 : group * 3 + 3], shift, rtol=1e-4, atol=1e-5)  # type: ignore[index]


def residual(build_graph: Build) -> Graph:
    middle = [
        make("Conv", ["b", "in", "inb"], ["i"], "inner", **PADDED),
        make("Relu", ["i"], ["j"]),
        make("Conv", ["j", "out"], ["k"], "outer", **PADDED),
        make("Add", ["k", "b"], ["l"]),
        make("Relu", ["l"], ["m"]),
        make("Conv", ["m", "left"], ["n1"], "left"),
        make("Conv", ["m", "right"], ["n2"], "right"),
        make("Concat", ["n1", "n2"], ["z"], axis=1),
    ]
    constants = {"in": numbers(3, 6, 8, 3, 3) / 5, "inb": numbers(4, 6), "out": numbers(5, 8, 6, 3, 3) / 5}
    constants |= {"left": numbers(6, 4, 8, 1, 1), "right": numbers(7, 6, 8, 1, 1)}
    return chain(build_graph, middle, constants, 10)


def test_shared_channels_are_cut_only_when_asked(
    build_graph: Build, records_of_graph: Records, images: np.ndarray
) -> None:
    graph = residual(build_graph)
    moments = records_of_graph(graph, {"x": images})
    inner, every = (run(graph, moments, Config(channels=0.5, groups=groups)) for groups in ("inner", "all"))  # type: ignore[arg-type]
    assert by_group(inner) == {"first": 8, "in": 3, "left": 2, "right": 3, "head": 4}
    assert by_group(every) == {"first": 4, "in": 3, "left": 2, "right": 3, "head": 4}
    reasons = {group.id: group.left for group in inner.groups}
    assert reasons["first"] == "2 weights make it and 3 read it, which only 'all' groups allows"
    assert "graph output 'y'" in reasons["head"]
    blind = run(graph, NO_RECORDS, Config(channels=0.5, groups="all", fallback="norms"))
    assert error(every.graph, graph, images) < 0.7 * error(blind.graph, graph, images)


def tied(build_graph: Build, last: Sequence[Any], more: Mapping[str, np.ndarray]) -> Graph:
    """Two layers with one weight, each with a bias of its own."""
    nodes = [
        make("Gemm", ["x", "first"], ["a"], "one"),
        make("Relu", ["a"], ["b"]),
        make("Gemm", ["b", "both", "c1"], ["c"], "left"),
        make("Tanh", ["b"], ["t"]),
        make("Gemm", ["t", "both", "c2"], ["d"], "right"),
        *last,
    ]
    constants = {"first": numbers(0, 5, 8), "both": numbers(1, 8, 6), "c1": numbers(2, 6), "c2": numbers(3, 6)}
    return build_graph(nodes, {"x": ["n", 5]}, {"y": ["n", 6]}, {**constants, **more}, 17)


def test_a_weight_that_two_share_serves_both(build_graph: Build, records_of_graph: Records) -> None:
    """One refit for the inputs of both, and a bias for each."""
    graph, x = tied(build_graph, [make("Add", ["c", "d"], ["y"])], {}), numbers(5, 200, 5)
    result = run(graph, records_of_graph(graph, {"x": x}), Config(channels=0.75, damping=1e-6, variance=False))
    first = graph.initializers["first"].T
    left = [int(np.abs(first - row).sum(1).argmin()) for row in result.graph.initializers["first"].T]
    assert len(left) == 6
    hidden = OrtGraph(graph, ("b", "t"), threads=1).run({"x": x})
    centred = np.concatenate([hidden[name].astype(np.float64) - hidden[name].mean(0) for name in ("b", "t")])
    weight = graph.initializers["both"].astype(np.float64)
    expected = np.linalg.lstsq(centred[:, left], centred @ weight, rcond=None)[0]
    np.testing.assert_allclose(result.graph.initializers["both"], expected, rtol=1e-3, atol=1e-3)
    found = OrtGraph(result.graph, ("c", "d"), threads=1).run({"x": x})
    for name, reference in OrtGraph(graph, ("c", "d"), threads=1).run({"x": x}).items():
        np.testing.assert_allclose(found[name].mean(0), reference.mean(0), rtol=1e-3, atol=1e-4)


def test_a_weight_that_something_else_reads_is_left_alone(build_graph: Build, records_of_graph: Records) -> None:
    """Its channels are also summed over, in another place: the text names that."""
    last = [
        make("Add", ["c", "d"], ["e"]),
        make("ReduceMean", ["x"], ["s"], axes=[1]),
        make("Unsqueeze", ["s", "two"], ["u"]),
        make("Mul", ["u", "both"], ["v"]),
        make("ReduceMean", ["v"], ["w"], "other", axes=[1], keepdims=0),
        make("Add", ["e", "w"], ["y"]),
    ]
    graph = tied(build_graph, last, {"two": np.array([2])})
    with pytest.raises(StepError, match=r"no channels that may be cut \(first: node 'other' \(ReduceMean\)"):
        run(graph, records_of_graph(graph, {"x": numbers(5, 50, 5)}), Config(channels=0.5))


def test_a_graph_with_nothing_to_cut_says_why(build_graph: Build) -> None:
    graph = build_graph([make("MatMul", ["x", "w"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": numbers(0, 4, 3)})
    with pytest.raises(StepError, match=r"no channels that may be cut \(w: graph output 'y'\)"):
        run(graph, NO_RECORDS, Config(channels=0.5))


def test_only_shared_channels_point_to_all(build_graph: Build, records_of_graph: Records, images: np.ndarray) -> None:
    middle = [make("Conv", ["b", "in"], ["i"], "inner", **PADDED), make("Add", ["i", "b"], ["z"])]
    graph = chain(build_graph, middle, {"in": numbers(3, 8, 8, 3, 3)}, 8)
    moments = records_of_graph(graph, {"x": images})
    with pytest.raises(StepError, match=r"first: 2 weights make it and 2 read it.*Prune 'all' groups"):
        run(graph, moments, Config(channels=0.5))
    assert by_group(run(graph, moments, Config(channels=0.5, groups="all"))) == {"first": 4, "head": 4}


@pytest.mark.parametrize("groups", ["inner", "all"])
@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.4])
def test_a_share_of_the_work_is_met(
    build_graph: Build, records_of_graph: Records, images: np.ndarray, groups: str, fraction: float
) -> None:
    graph = residual(build_graph)
    result = run(graph, records_of_graph(graph, {"x": images}), Config(macs=fraction, groups=groups))  # type: ignore[arg-type]
    assert costs(result.graph).macs <= fraction * costs(graph).macs
    # The last channel that went was needed: with the widest group one wider, the work is above the share or nearly.
    assert costs(result.graph).macs > (fraction - 0.16) * costs(graph).macs


def test_widths_by_one_rule_lose_less_than_uniform_ones(
    build_graph: Build, records_of_graph: Records, images: np.ndarray
) -> None:
    """Together, and for no more channels."""
    graph = residual(build_graph)
    moments = records_of_graph(graph, {"x": images})
    uniform, overall = (
        run(graph, moments, Config(channels=0.5, widths=w, variance=False)) for w in ("uniform", "overall")
    )  # type: ignore[arg-type]
    assert sum(by_group(overall).values()) <= sum(by_group(uniform).values())
    assert sum(o.error for o in overall.operators) <= sum(o.error for o in uniform.operators) * 1.001


def test_a_share_that_cannot_be_met_says_what_can(network: Graph, records: PublishedRecords) -> None:
    with pytest.raises(StepError, match=r"a goal of 0.001 of its macs, expected 0.0\d+ or more.*, or let 'all' groups"):
        run(network, records, Config(macs=0.001))
    with pytest.raises(StepError, match=r"one channel is left in each group that may be cut\. Let more stay\.$"):
        run(network, records, Config(macs=0.001, groups="all"))


def test_missing_records_are_all_named(network: Graph, records: PublishedRecords) -> None:
    with pytest.raises(StepError, match=r"inputs of two \(reads 'c'\), three \(reads 'f'\)"):
        run(network, NO_RECORDS, Config(channels=0.5))
    only = PublishedRecords(tuple(entry for entry in records if entry.value != "c"))
    with pytest.raises(StepError, match=r"inputs of two \(reads 'c'\), expected.*calibration"):
        run(network, only, Config(channels=0.5))
    with pytest.raises(StepError, match=r"inputs of one \(reads 'x'\), two"):
        run(network, NO_RECORDS, Config(sparsity="0.5"))


def test_norms_decide_only_where_that_is_asked_for(network: Graph, records: PublishedRecords) -> None:
    only = PublishedRecords(tuple(entry for entry in records if entry.value != "c"))
    result = run(network, only, Config(channels=0.5, fallback="norms"))
    forms = {operator.label: (operator.form, operator.damping) for operator in result.operators}
    assert forms == {"two": ("", 0.0), "three": ("full", 1e-3)}
    norms = np.square(CONSTANTS["second"]).sum((0, 2, 3))
    kept = np.sort(np.argsort(norms)[4:])
    whole = without_batch_norm(network).initializers["first"]
    np.testing.assert_array_equal(result.graph.initializers["first"], whole[kept])


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (Config(), "nothing to do, expected channels, macs or sparsity"),
        (Config(channels=0.5, macs=0.5), "both channels and macs"),
        *((Config(channels=value), "channels: found .*above 0 and up to 1") for value in (0.0, -1.0, 1.5, NAN)),
        *((Config(macs=value), "macs: found .*above 0 and up to 1") for value in (0.0, 2.0)),
        *((Config(sparsity=text), f"'{text}'.*such as 2:4") for text in WRONG_SPARSITY),
        (Config(channels=0.5, damping=0.0), "damping: found 0"),
        (Config(channels=0.5, sparse_damping=float("inf")), "sparse_damping: found inf"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(network: Graph, config: Config, text: str) -> None:
    with pytest.raises(DataError, match=text):
        run(network, NO_RECORDS, config)


@pytest.mark.parametrize("name", ["groups", "widths", "ranking", "fallback"])
def test_an_unknown_choice_names_the_known_ones(network: Graph, name: str) -> None:
    with pytest.raises(UnknownName, match=f"prune, {name}: found 'some', expected one of"):
        run(network, NO_RECORDS, Config(channels=0.5, **{name: "some"}))  # type: ignore[arg-type]


def test_inputs_seen_once_are_damped(network: Graph, images: np.ndarray, records_of_graph: Records) -> None:
    """One image has fewer patches than a patch has entries."""
    result = run(network, records_of_graph(network, {"x": images[:1]}), Config(channels=0.5))
    assert all(np.isfinite(array).all() for array in result.graph.initializers.values())
    assert all(operator.damping >= 1e-3 for operator in result.operators)


def test_an_indefinite_moment_is_damped_and_says_how_much(network: Graph, records: PublishedRecords) -> None:
    """A mean that contradicts the second moment leaves a covariance of no inputs at all."""

    def shifted(entry: Any) -> Any:
        values = {name: getattr(entry, name) for name in type(entry).__dataclass_fields__}
        tensors = dict(entry.tensors)
        if entry.kind == "second-moment":
            tensors["mean"] = tensors["mean"] * 1.05
        return type(entry)(**{**values, "tensors": tensors})

    result = run(network, PublishedRecords(tuple(map(shifted, records))), Config(channels=0.5))
    assert max(operator.damping for operator in result.operators) > 1e-3
    assert all(np.isfinite(array).all() for array in result.graph.initializers.values())


def test_outputs_keep_their_means_and_variances(network: Graph, images: np.ndarray, records: PublishedRecords) -> None:
    """Those of the layer that reads what was cut, given the inputs that were recorded."""
    for config in (Config(channels=0.5), Config(sparsity="0.5"), Config(channels=0.5, sparsity="2:4")):
        sources = Sources(without_batch_norm(network), records, 1e-3, affine=True)
        lost = np.zeros(0, np.int64) if config.channels is None else np.arange(36)
        found = repaired(sources.of("second"), lost, lost[:0], sparsity_of(config.sparsity), 1e-2, variance=True)
        x, old = patches(network, images), CONSTANTS["second"].reshape(6, -1)
        assert found.shifts[0] is not None
        outputs = x @ found.weight[0].T + found.shifts[0]
        np.testing.assert_allclose(outputs.mean(0), (x @ old.T).mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outputs.var(0), (x @ old.T).var(0), rtol=1e-5)


@pytest.mark.parametrize(("form", "limit"), [("full", 1.0), ("toeplitz", 1.6), ("kronecker", 4.0), ("diagonal", 20.0)])
def test_every_form_of_a_record_serves(
    network: Graph, images: np.ndarray, records_of_graph: Records, form: str, limit: float
) -> None:
    best = error(run(network, records_of_graph(network, {"x": images}), Config(channels=0.75)).graph, network, images)
    result = run(network, records_of_graph(network, {"x": images}, form=form), Config(channels=0.75))
    assert {operator.form for operator in result.operators if operator.label == "two"} == {form}
    assert error(result.graph, network, images) <= limit * best * (1 + 1e-6)


def test_a_fraction_of_zeros(network: Graph, images: np.ndarray, records: PublishedRecords) -> None:
    result = run(network, records, Config(sparsity="0.5"))
    assert result.groups == ()
    for operator in result.operators:
        assert operator.zeros == pytest.approx(0.5, abs=0.02)
        size = operator.dense_bytes // 4
        assert operator.sparse_bytes == round((1 - operator.zeros) * size) * 4 + -(-size // 8)
    assert [one.label for one in result.operators] == ["one", "two", "three"]
    assert result.graph.initializers["second"].shape == CONSTANTS["second"].shape
    smallest = {name: np.where(np.abs(w) > np.median(np.abs(w)), w, 0) for name, w in _weights(network).items()}
    unseen = smooth(8, 40, 3, 6, 6)
    plain = with_values(without_batch_norm(network), smallest)
    assert error(result.graph, network, unseen) < 0.5 * error(plain, network, unseen)


def _weights(network: Graph) -> dict[str, np.ndarray]:
    return {name: without_batch_norm(network).initializers[name] for name in ("first", "second", "head")}


def test_zeros_are_those_of_the_rule(network: Graph, images: np.ndarray, records: PublishedRecords) -> None:
    """The weight of a product, straight from the data."""
    result = run(network, records, Config(sparsity="0.5", variance=False))
    x = OrtGraph(network, ("f",), threads=1).run({"x": images})["f"].astype(np.float64)
    expected, _ = sparsified(CONSTANTS["head"].T.astype(np.float64), np.cov(x.T, bias=True), 0.5)
    np.testing.assert_allclose(result.graph.initializers["head"], expected.T, rtol=1e-4, atol=1e-6)


def test_a_pattern_lies_along_channels(network: Graph, records: PublishedRecords) -> None:
    result = run(network, records, Config(sparsity="2:4"))
    weight = result.graph.initializers["second"]
    assert (np.count_nonzero(weight.reshape(6, 2, 4, 9), axis=2) == 2).all()
    told = {operator.label: operator for operator in result.operators}
    assert told["one"].dense == "3 inputs, which 4 does not divide"
    assert told["one"].zeros == 0
    assert told["one"].sparse_bytes == told["one"].dense_bytes
    assert told["three"].dense == "6 inputs, which 4 does not divide"
    assert told["two"].sparse_bytes == 216 * 4 + 54


def test_channels_then_zeros(network: Graph, images: np.ndarray, records: PublishedRecords) -> None:
    result = run(network, records, Config(channels=0.5, sparsity="2:4"))
    weight = result.graph.initializers["second"]
    assert weight.shape == (3, 4, 3, 3)
    assert (np.count_nonzero(weight, axis=1) == 2).all()
    # The bias makes up for zeros too: the outputs' means stay, but for what the first layer's own zeros change.
    channels = run(network, records, Config(channels=0.5))
    two = {operator.label: operator.error for operator in result.operators}["two"]
    assert {operator.label: operator.error for operator in channels.operators}["two"] < two < 1


def test_texts_of_sparsity() -> None:
    assert [sparsity_of(text) for text in ("", "0.5", ".25", "2:4", "1:16")] == [None, 0.5, 0.25, (2, 4), (1, 16)]


def test_progress_is_told(network: Graph, records: PublishedRecords) -> None:
    told: list[tuple[str, int, int]] = []
    run(network, records, Config(channels=0.5), lambda *facts: told.append(facts))
    assert told == [("prune", 1, 2), ("prune", 2, 2), ("repair", 1, 2), ("repair", 2, 2)]
    assert list(itertools.chain(prune.REQUIRES)) == ["second-moment"]
