"""How wide each group stays: a share of the work, or of all channels."""

from __future__ import annotations

import numpy as np
import pytest
from pruning_case import Build, Records, by_group, residual

from dfmeta.compress.prune import Config, run
from dfmeta.errors import StepError
from dfmeta.graph import Graph, costs
from dfmeta.records import PublishedRecords


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
