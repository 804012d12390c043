"""A graph and its records over several steps: where each record comes from, and that it says what it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dfmeta.compress import equalize, finetune, prune, quantize
from dfmeta.compress._chain import State
from dfmeta.compress._recorded_anew import missing, recorded
from dfmeta.graph import Graph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.records import PublishedRecords

KINDS = ("second-moment", "histogram")


@pytest.fixture(scope="module")
def images(digits: Any) -> torch.Tensor:
    found: torch.Tensor = digits[0][:300]
    return found


@pytest.fixture(scope="module")
def records(
    digits_teacher: Graph, images: torch.Tensor, records_of_graph: Callable[..., PublishedRecords]
) -> PublishedRecords:
    return records_of_graph(digits_teacher, {"image": images.numpy()})


def told(state: State) -> dict[tuple[str, str], str]:
    return {(site.value, site.kind): "+".join((site.origin, *site.transformed)) for site in state.sites(KINDS)}


def never() -> torch.Tensor:
    raise AssertionError("no inputs are needed")


def test_records_taken_anew_are_those_of_a_bundle(
    digits_teacher: Graph, images: torch.Tensor, records_of_graph: Callable[..., PublishedRecords]
) -> None:
    graph = without_batch_norm(digits_teacher)
    plan = missing(graph, PublishedRecords(()), KINDS)
    steps: list[int] = []
    found = recorded(graph, plan, images, lambda _, done, __: steps.append(done))
    wanted = records_of_graph(graph, {"image": images.numpy()})
    assert steps == [256, 300]
    assert {one.kind for one in found} == set(KINDS)
    for one in found:
        other = wanted.of(one.value, one.kind, by_class=False)
        assert other is not None
        assert (one.configuration, one.features, one.feature_axis) == (
            other.configuration,
            other.features,
            other.feature_axis,
        )
        for name, tensor in one.tensors.items():
            assert tensor.shape == (other.tensors[name].shape if name != "bins" else tensor.shape)
            np.testing.assert_allclose(tensor.numpy(), other.tensors[name].numpy(), rtol=1e-5, atol=1e-6)
    assert missing(graph, PublishedRecords(tuple(found)), KINDS) == ()
    assert recorded(graph, (), images) == ()


def test_before_any_step_nothing_is_taken_anew(digits_teacher: Graph) -> None:
    state = State(digits_teacher, PublishedRecords(()))
    assert state.renewed(KINDS, never) is state


def test_pruning_then_quantizing(digits_teacher: Graph, records: PublishedRecords, images: torch.Tensor) -> None:
    state = State(digits_teacher, records)
    state = state.after(prune.run(state.graph, state.records, prune.Config(channels=0.5)).graph)
    values = [value for value, _ in told(state)]
    assert told(state)["image", "second-moment"] == told(state)["image", "histogram"] == "recorded"
    assert [origin for origin in told(state).values() if "restricted" in origin] == ["recorded+restricted"]
    assert len(set(values)) == 2, "the third layer reads what nothing is known of"
    full = state.renewed(KINDS, lambda: images)
    origins = list(told(full).values())
    assert sorted(origins) == ["anew", "anew", "anew", "recorded", "recorded", "recorded+restricted"]
    assert all(site.count > 0 for site in full.sites(KINDS))
    assert full.renewed(KINDS, never) is full
    assert quantize.run(full.graph, full.records, quantize.Config("w4a8")).layers


def test_a_second_cut_takes_what_the_first_one_spoiled_anew(
    digits_teacher: Graph, records: PublishedRecords, images: torch.Tensor
) -> None:
    state = State(digits_teacher, records)
    for fraction in (0.75, 0.5):
        state = state.renewed(prune.REQUIRES, lambda: images)
        state = state.after(prune.run(state.graph, state.records, prune.Config(channels=fraction)).graph)
    state = state.renewed(KINDS, lambda: images)
    assert len({one.record for one in state.records}) == len(state.records.statistics)
    assert quantize.run(state.graph, state.records, quantize.Config("w8a8")).layers


def test_equalizing_scales_what_was_recorded(
    digits_teacher: Graph, records: PublishedRecords, images: torch.Tensor
) -> None:
    state = State(digits_teacher, records)
    state = state.equalized(equalize.run(state.graph, state.records))
    assert {origin for (_, kind), origin in told(state).items() if kind == "second-moment"} == {
        "recorded",
        "recorded+scaled",
    }
    assert [value for value, kind in told(state) if kind == "histogram"] == ["image"]
    moments = {one.value: one for one in state.sites(("second-moment",))}
    full = state.renewed(KINDS, lambda: images)
    assert {one.value: one for one in full.sites(("second-moment",))} == moments
    assert sorted(origin for (_, kind), origin in told(full).items() if kind == "histogram") == [
        "anew",
        "anew",
        "recorded",
    ]


def test_after_fine_tuning_only_the_input_is_known(
    digits_teacher: Graph, records: PublishedRecords, images: torch.Tensor
) -> None:
    state = State(without_batch_norm(digits_teacher), records)
    tuned = finetune.run(state.graph, digits_teacher, images, finetune.Config(steps=2, batch=32))
    state = state.after(tuned.graph)
    assert told(state) == {("image", "second-moment"): "recorded", ("image", "histogram"): "recorded"}
    assert sorted(told(state.renewed(KINDS, lambda: images)).values()) == ["anew"] * 4 + ["recorded"] * 2
