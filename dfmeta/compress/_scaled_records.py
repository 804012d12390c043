"""Records of values whose channels were divided by known numbers.

With ``x'_i = x_i / s_i``: a mean is divided by s_i and a variance by s_i^2; an entry of a second moment by s_i s_j, in
every form (``toeplitz``: each lag's block of channels; ``kronecker``: the factor of channels, as the taps of a channel
are scaled alike); correlations stay, and the diagonal beside them is divided by s_i^2. All of that is exact. A
histogram counts all channels together and does not tell which was where: it is dropped, as are spectra, whose
eigenvectors another scaling turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfmeta.graph import Graph
from dfmeta.numerics.packed import pack, unpack
from dfmeta.records import PublishedRecords
from dfmeta.records.published import Statistic

Array = NDArray[np.float64]


def scaled_records(
    graph: Graph, records: PublishedRecords, scales: Mapping[str, Array]
) -> tuple[PublishedRecords, tuple[str, ...]]:
    """The records of a graph after some of its values' channels were divided.

    Args:
        graph: as it is now.
        records: of the graph as it was.
        scales: value to ``[c]`` by what its channels were divided, each above 0.

    Returns:
        The records that hold, and the ids of those that do not and were left out.
    """
    kept: list[Statistic] = []
    dropped: list[str] = []
    for statistic in records:
        if any(value not in graph.values for value in statistic.values):
            dropped.append(statistic.record)
        elif scales.keys().isdisjoint(statistic.values):
            kept.append(statistic)
        else:
            found = _scaled(statistic, scales[statistic.value]) if statistic.value in scales else None
            if found is None:
                dropped.append(statistic.record)
            else:
                kept.append(found)
    return PublishedRecords(tuple(kept), records.skipped), tuple(dropped)


def _scaled(statistic: Statistic, scale: Array) -> Statistic | None:
    """One record; None where it cannot be said."""
    if statistic.kind == "moments":
        tensors = _moments(statistic.tensors, scale)
    elif statistic.kind == "second-moment":
        tensors = _second_moment(statistic, scale)
    else:
        return None
    return replace(statistic, tensors=tensors) if tensors is not None else None


def _moments(tensors: Mapping[str, Tensor], scale: Array) -> dict[str, Tensor] | None:
    features = tensors["mean"].shape[-1]
    if features % len(scale):
        return None
    # Flattened features are in the order (channel, position).
    by = np.repeat(scale, features // len(scale))
    return {**tensors, "mean": _divided(tensors["mean"], by), "var": _divided(tensors["var"], by**2)}


def _divided(tensor: Tensor, by: Array) -> Tensor:
    return torch.from_numpy((tensor.numpy().astype(np.float64) / by).astype(np.float32))


def _second_moment(statistic: Statistic, scale: Array) -> dict[str, Tensor] | None:
    """All tensors of a record; those of a convolution have an axis of its groups after that of the units' groups."""
    tensors, form = statistic.tensors, str(statistic.configuration["form"])
    features = tensors["mean"].shape[-1]
    groups = int(statistic.configuration.get("groups", 1))
    if (groups * features) % len(scale):
        return None
    # [g, d], or [d] where there is no window.
    lead = (groups,) if "kernel" in statistic.configuration else ()
    by = np.repeat(scale, groups * features // len(scale)).reshape(*lead, features)
    channels = by[..., :: _taps(statistic)]
    found = {**tensors, "mean": _divided(tensors["mean"], by)}
    if form == "diagonal":
        return {**found, "diagonal": _divided(tensors["diagonal"], by**2)}
    of = {"full": ("matrix", "diagonal", by), "kronecker": ("channels", "channels_diagonal", channels)}
    name, diagonal, each = of.get(form, ("lags", "diagonal", channels))
    if diagonal in tensors:
        return {**found, diagonal: _divided(tensors[diagonal], each**2)}
    outer = each[..., :, None] * each[..., None, :]
    if name == "lags":
        return {**found, name: _divided(tensors[name], outer[..., None, :, :])}
    whole = unpack(tensors[name].numpy().astype(np.float64)) / outer
    return {**found, name: torch.from_numpy(pack(whole).astype(np.float32))}


def _taps(statistic: Statistic) -> int:
    return int(np.prod(statistic.configuration.get("kernel", [1])))
