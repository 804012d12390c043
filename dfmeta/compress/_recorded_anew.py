"""Records of any graph over inputs in memory, as a bundle would hold them, without a bundle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfmeta._catalog import KINDS
from dfmeta.graph import Graph
from dfmeta.records import DEFAULT_MEMORY_LIMIT, PublishedRecords, Recorder, RecordPlan, make_plan
from dfmeta.records.plan import peak_bytes
from dfmeta.records.publication import Taken
from dfmeta.records.published import Statistic

Watch = Callable[[str, int, int], None]

PRESET = "calibration"
BATCH = 256


def missing(graph: Graph, records: PublishedRecords, kinds: Collection[str]) -> tuple[RecordPlan, ...]:
    """What the preset ``calibration`` would record of a graph and the records do not have.

    Second moments are ``full`` where that fits into the memory that a recorder may take, else ``toeplitz``.

    Args:
        graph: the model.
        records: those that hold of it.
        kinds: of records that are wanted.
    """
    there = {_key(one.value, one.kind, one.configuration) for one in records if not one.by_class}

    def wanted(form: str | None) -> tuple[RecordPlan, ...]:
        plan = make_plan(graph, [PRESET], form=form)
        chosen = (entry for entry in plan if entry.kind in kinds)
        return tuple(one for one in chosen if _key(one.site.value, one.kind, one.configuration) not in there)

    whole = wanted("full")
    return whole if peak_bytes(whole, None) <= DEFAULT_MEMORY_LIMIT else wanted(None)


def _key(value: str, kind: str, configuration: Mapping[str, Any]) -> tuple[object, ...]:
    window = (configuration.get(name) for name in ("kernel", "strides", "dilations", "pads", "groups"))
    return value, kind, *(tuple(np.atleast_1d(one).tolist()) if one is not None else None for one in window)


def recorded(
    graph: Graph, plan: Sequence[RecordPlan], inputs: Tensor, watch: Watch | None = None
) -> tuple[Statistic, ...]:
    """Run a graph and take records.

    Nothing is withheld from them: what synthetic inputs say of anybody, the records that they were made from have said.

    Args:
        graph: the model, with one input.
        plan: of it (:func:`missing`).
        inputs: ``[n, ...]``.
        watch: called with ``record``, inputs done, and inputs in all.
    """
    if not plan:
        return ()
    pieces = [part.cpu().numpy() for part in torch.split(inputs, BATCH)]
    done = 0
    with Recorder(graph, plan, min_units=1, threads=torch.get_num_threads()) as recorder:
        for piece in pieces:
            recorder.update(np.ascontiguousarray(piece))
            done += len(piece)
            if watch is not None:
                watch("record", done, len(inputs))
        taken = recorder.finish().records
    return tuple(_statistic(number, one) for number, one in enumerate(taken))


def _statistic(number: int, taken: Taken) -> Statistic:
    plan = taken.plan
    shared: frozenset[str] = getattr(KINDS.load(plan.kind, "spec"), "SHARED", frozenset())
    tensors = {}
    for name, array in taken.tensors.items():
        tensor = torch.from_numpy(np.array(array))
        tensor = tensor if name in shared else tensor[None]
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    site = plan.site
    # No id of a bundle's record is like this one.
    return Statistic(
        f"anew-{number}-{site.id}",
        site.id,
        site.value,
        plan.kind,
        by_class=False,
        features=plan.features,
        feature_axis=site.feature_axis,
        tensors=tensors,
        configuration=plan.configuration,
    )


def joined(records: PublishedRecords, more: Sequence[Statistic]) -> PublishedRecords:
    """The records and others beside them."""
    return replace(records, statistics=(*records.statistics, *more))
