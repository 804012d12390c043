"""Repaired weights: those that the data itself gives, whatever the record, and never worse than leaving out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_case import (
    CONSTANTS,
    NO_RECORDS,
    Build,
    Records,
    by_group,
    error,
    features_of,
    fitted,
    make,
    numbers,
    output,
    patches,
    smooth,
)

from dfmeta.compress._cutting import candidates, uniform
from dfmeta.compress._repairing import repaired
from dfmeta.compress._sources import Sources
from dfmeta.compress.prune import Config, run, sparsity_of
from dfmeta.graph import Graph, OrtGraph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.records import PublishedRecords


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
