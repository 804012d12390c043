"""Zeros: a fraction of them, or a pattern that hardware knows."""

from __future__ import annotations

import numpy as np
import pytest
from pruning_case import CONSTANTS, error, smooth

from dfmeta.compress.prune import Config, run, sparsity_of
from dfmeta.graph import Graph, OrtGraph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.graph.learning import with_values
from dfmeta.numerics.sparse_gpt import sparsified
from dfmeta.records import PublishedRecords


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
