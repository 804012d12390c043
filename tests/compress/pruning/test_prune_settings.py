"""What is asked for: settings out of range, records that are missing, and progress."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pruning_case import CONSTANTS, NO_RECORDS

from dfmeta.compress import prune
from dfmeta.compress.prune import Config, run
from dfmeta.errors import DataError, StepError, UnknownName
from dfmeta.graph import Graph
from dfmeta.graph.folding import without_batch_norm
from dfmeta.records import PublishedRecords

NAN = float("nan")
WRONG_SPARSITY = ("0", "1", "1.5", "-0.5", "4:2", "0:4", "4:4", "2:4:8", "half", "nan")


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


def test_progress_is_told(network: Graph, records: PublishedRecords) -> None:
    told: list[tuple[str, int, int]] = []
    run(network, records, Config(channels=0.5), lambda *facts: told.append(facts))
    assert told == [("prune", 1, 2), ("prune", 2, 2), ("repair", 1, 2), ("repair", 2, 2)]
    assert list(itertools.chain(prune.REQUIRES)) == ["second-moment"]
