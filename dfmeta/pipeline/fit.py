"""Does a manifest speak of the graph that it ships with: the same inputs, outputs, sites and numbers of features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dfmeta.bundle import usable
from dfmeta.errors import Problem
from dfmeta.graph import Graph, Value
from dfmeta.schema import Manifest, v1

_FIX = "The manifest is not this graph's: ask the publisher for the bundle as it was released."


def fit_problems(manifest: Manifest, graph: Graph) -> list[Problem]:
    """Every place where a manifest contradicts its graph, which digests cannot show.

    Args:
        manifest: a valid one.
        graph: what its ``model.graph`` holds.

    Returns:
        Problems of the codes ``interface-differs``, ``site-differs``, ``wrong-label-count`` and
        ``wrong-feature-count``.
    """
    model = manifest.model
    return [
        *_interface("model.inputs", model.inputs, graph.inputs),
        *_interface("model.outputs", model.outputs, graph.outputs),
        *_labels(manifest, graph),
        *(problem for site in manifest.sites for problem in _site(site, graph)),
        *_records(manifest),
    ]


def _interface(where: str, entries: Sequence[v1.Input | v1.Output], values: Sequence[Value]) -> Iterator[Problem]:
    if len(entries) != len(values):
        yield Problem(where, "interface-differs", f"{len(entries)} of them", f"{len(values)}, as the graph has", _FIX)
        return
    for number, (entry, value) in enumerate(zip(entries, values, strict=True)):
        place = f"{where}[{number}]"
        if entry.name != value.name:
            yield Problem(f"{place}.name", "interface-differs", repr(entry.name), f"{value.name!r}", _FIX)
        yield from _tensor(place, "interface-differs", entry.dtype, entry.shape, value)


def _tensor(where: str, code: str, dtype: str, shape: Sequence[int | str], value: Value) -> Iterator[Problem]:
    if dtype != value.dtype:
        yield Problem(f"{where}.dtype", code, dtype, f"{value.dtype or 'unknown'}, as in the graph", _FIX)
    if len(shape) != len(value.shape) or any(map(_differs, range(len(shape)), shape, value.shape)):
        yield Problem(f"{where}.shape", code, f"{list(shape)}", f"{list(value.shape)}, as in the graph", _FIX)


def _differs(axis: int, said: int | str, size: int | str) -> bool:
    """A graph exported for one batch size runs at others, so that a free axis 0 contradicts nothing."""
    if isinstance(size, str) or (axis == 0 and isinstance(said, str)):
        return False
    return said != size


def _labels(manifest: Manifest, graph: Graph) -> Iterator[Problem]:
    named = [(f"model.outputs[{n}].labels", out.labels, n) for n, out in enumerate(manifest.model.outputs)]
    # A row for each class of the classifier, which is the first output: consumers look rows up by what it names.
    named += [
        (f"record {record.id}.group", record.group.label_set, 0)
        for record in manifest.records
        if usable(record) and record.group.by == "class"
    ]
    for where, id, output in named:
        labels = manifest.label_set(id) if id is not None else None
        classes = _class_sizes(graph.outputs[output]) if output < len(graph.outputs) else ()
        if labels is not None and classes and len(labels.names) not in classes:
            expected = f"{' or '.join(map(str, classes))}, as output {graph.outputs[output].name!r} has"
            yield Problem(where, "wrong-label-count", f"{len(labels.names)} classes", expected, _FIX)


def _class_sizes(output: Value) -> tuple[int, ...]:
    """The sizes that may be the number of classes, one for ``[batch, classes]``; none where a free one may be."""
    sizes = tuple(size for size in output.shape[1:] if isinstance(size, int))
    return sizes if len(sizes) == len(output.shape) - 1 else ()


def _site(site: v1.Site, graph: Graph) -> Iterator[Problem]:
    name = site.onnx_value()
    if name is None:
        return
    if name not in graph.values:
        yield Problem(f"site {site.id}", "site-differs", f"no value {name!r} in the graph", "one of its values", _FIX)
        return
    yield from _tensor(f"site {site.id}", "site-differs", site.dtype, site.shape, graph.value(name))


def _records(manifest: Manifest) -> Iterator[Problem]:
    sites = {site.id: site for site in manifest.sites}
    for record in manifest.records:
        if not usable(record):
            continue
        sizes = _feature_sizes(record, sites[record.site])
        fixed = [size for size in sizes if isinstance(size, int)]
        if len(fixed) < len(sizes) or math.prod(fixed) != record.feature_count:
            expected = f"the {record.features} features of a site of shape {sites[record.site].shape}"
            place = f"record {record.id}.feature_count"
            yield Problem(place, "wrong-feature-count", str(record.feature_count), expected, _FIX)


def _feature_sizes(record: v1.Record, site: v1.Site) -> Sequence[int | str]:
    if record.features == "flattened" or site.feature_axis is None:
        return site.shape[1:]
    channels = site.shape[site.feature_axis]
    if record.features == "channel" or not isinstance(channels, int):
        return [channels]
    groups, kernel = record.configuration.get("groups"), record.configuration.get("kernel")
    if type(groups) is not int or groups < 1 or channels % groups or not isinstance(kernel, list):
        return ["?"]  # no size, and so reported
    return [channels // groups, *(size if type(size) is int else "?" for size in kernel)]
