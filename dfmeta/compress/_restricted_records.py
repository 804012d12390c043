"""Records of a graph after a step: those that hold, those of which some channels hold, and those that do not.

A value that a step left alone has the records that it had. Of a value that lost channels, the mean and variance of a
channel are still those of the channel, and the second moment of the channels that stay is a part of the whole one, in
every form: rows and columns of ``full`` and of ``kronecker``'s factor of channels, a block of each lag of
``toeplitz``, entries of ``diagonal``. That adds no error to what the record had; ``kronecker``'s factor of taps is
still the one that fitted all channels. A histogram counts all channels together, and an eigenvector has entries in all
of them: those are lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfmeta.compress._unchanged import Part, Whole, origins
from dfmeta.graph import Graph
from dfmeta.numerics.packed import pack, unpack
from dfmeta.records import PublishedRecords
from dfmeta.records.published import Statistic

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """What became of some records.

    Attributes:
        records: those that hold.
        restricted: ids of those of them that speak of fewer channels than before.
        dropped: ids of the others.
    """

    records: PublishedRecords
    restricted: frozenset[str]
    dropped: tuple[str, ...]


def carried(before: Graph, after: Graph, records: PublishedRecords) -> Carried:
    """The records of a graph that still hold after a step.

    Args:
        before: the graph that they are of.
        after: what a step made of it.
        records: as they were.
    """
    known = origins(before, after)
    kept: list[Statistic] = []
    restricted: set[str] = set()
    dropped: list[str] = []
    for statistic in records:
        found = [known.get(value) for value in statistic.values]
        if all(isinstance(origin, Whole) for origin in found):
            kept.append(statistic)
            continue
        part = found[0] if len(found) == 1 else None
        cut = _restricted(statistic, part) if isinstance(part, Part) else None
        if cut is None:
            dropped.append(statistic.record)
        else:
            kept.append(cut)
            restricted.add(statistic.record)
    return Carried(PublishedRecords(tuple(kept), records.skipped), frozenset(restricted), tuple(dropped))


def _restricted(statistic: Statistic, part: Part) -> Statistic | None:
    """One record for the channels that stay; None where that cannot be said."""
    if statistic.kind == "moments":
        places = _places(statistic, part)
        tensors = None if places is None else _taken(statistic, {"mean": places, "var": places})
    elif statistic.kind == "second-moment":
        tensors = _second_moment(statistic, part)
    else:
        return None
    return None if tensors is None else replace(statistic, tensors=tensors)


def _places(statistic: Statistic, part: Part) -> Indices | None:
    """Which features stay."""
    features = statistic.tensors["mean"].shape[-1]
    if features == part.of and (statistic.feature_axis == part.axis or statistic.features == "flattened"):
        return part.kept
    # Flattened features are in the order (channel, position); patches in the order (channel, tap).
    first = part.axis == 1 and statistic.features in ("flattened", "patch")
    return _repeated(part.kept, features // part.of) if first and features % part.of == 0 else None


def _repeated(kept: Indices, each: int) -> Indices:
    found: Indices = (kept[:, None] * each + np.arange(each)).reshape(-1)
    return found


def _taken(statistic: Statistic, places: dict[str, Indices]) -> dict[str, Tensor]:
    found = dict(statistic.tensors)
    for name, chosen in places.items():
        found[name] = found[name][..., torch.from_numpy(chosen)]
    return found


def _second_moment(statistic: Statistic, part: Part) -> dict[str, Tensor] | None:
    places = _places(statistic, part)
    if places is None or int(statistic.configuration.get("groups", 1)) != 1:
        return None
    form = str(statistic.configuration["form"])
    tensors = _taken(statistic, {"mean": places})
    # Name of the matrix, of the diagonal beside its correlations, and which of their rows stay.
    matrix, diagonal, rows = {
        "full": ("matrix", "diagonal", places),
        "diagonal": ("", "diagonal", places),
        "kronecker": ("channels", "channels_diagonal", part.kept),
        "toeplitz": ("lags", "diagonal", part.kept),
    }[form]
    if diagonal in tensors:
        tensors[diagonal] = tensors[diagonal][..., torch.from_numpy(rows)]
    if matrix == "lags":
        chosen = torch.from_numpy(rows)
        tensors[matrix] = tensors[matrix][..., chosen, :][..., chosen]
    elif matrix:
        whole = unpack(tensors[matrix].numpy())
        tensors[matrix] = torch.from_numpy(pack(np.ascontiguousarray(whole[..., rows, :][..., rows])))
    return tensors
