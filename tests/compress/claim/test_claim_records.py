"""Records taken in shards give what one pass gives, and compact records serve as well as full ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from claim_case import SAME_INTEGERS, SAME_LAYERS, SAME_SCALES, Case, apart, codes_of, equal, matrices

from dfmeta.bundle import Bundle
from dfmeta.compress import factorize, prune, quantize
from dfmeta.pipeline import merge, record_shard
from dfmeta.records import PublishedRecords


@pytest.fixture(scope="module")
def merged(case: Case, tmp_path_factory: pytest.TempPathFactory) -> PublishedRecords:
    """Records of the same images, taken in three shards."""
    folder = tmp_path_factory.mktemp("shards")
    parts = []
    for number, name in enumerate(("east", "north", "south"), 1):
        record_shard(case.graph, case.data, folder / name, name=name, gathering=case.how, part=(number, 3))
        parts.append(folder / name)
    return PublishedRecords.read(Bundle.open(merge(parts, folder / "all").path))


@pytest.mark.parametrize("bits", ["w4a8", "w3", "w2a4"])
def test_shards_give_the_integers_of_one_pass(case: Case, merged: PublishedRecords, bits: str) -> None:
    one, other = (quantize.run(case.graph, records, quantize.Config(bits)) for records in (case.records, merged))
    ours, theirs = codes_of(one), codes_of(other)
    assert equal([codes for codes, _ in ours], [codes for codes, _ in theirs]) >= SAME_INTEGERS
    for (_, found), (_, expected) in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=SAME_SCALES)
    # Histograms are whole numbers, and so are ranges made of them the same.
    assert one.model.values == other.model.values
    assert one.model.outputs == other.model.outputs


def test_shards_give_the_layers_of_one_pass(case: Case, merged: PublishedRecords) -> None:
    for step, config in (
        (prune.run, prune.Config(channels=0.5)),
        (prune.run, prune.Config(sparsity="2:4")),
        (factorize.run, factorize.Config(params=0.5)),
    ):
        one, other = (matrices(step(case.graph, records, config).graph) for records in (case.records, merged))  # type: ignore[operator]
        for (name, weight, bias), (same, expected, best) in zip(one, other, strict=True):
            assert name == same
            assert apart(weight, expected) < SAME_LAYERS
            np.testing.assert_allclose(bias, best, atol=SAME_LAYERS * np.abs(best).max())


def test_a_compact_sidecar_serves_as_well_as_a_full_one(case: Case, tmp_path: Path) -> None:
    """Toeplitz blocks of int8 correlations: at most a point less, on images that neither has seen."""
    compact = case.published(tmp_path / "compact", form="toeplitz", storage="int8")
    for step, config in (
        (quantize.run, quantize.Config("w4")),
        (quantize.run, quantize.Config("w3")),
        (quantize.run, quantize.Config("w2")),
        (prune.run, prune.Config(channels=0.75)),
        (factorize.run, factorize.Config(params=0.75)),
    ):
        full, small = (
            case.accuracy(step(case.graph, records, config).graph)  # type: ignore[operator]
            for records in (case.records, compact)
        )
        assert small >= full - 1.0, (step.__module__, config)
