"""Checks that one node alone cannot make: ids are unique, references resolve, counts agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from dfmeta.errors import Problem
from dfmeta.schema import json_strict, v1
from dfmeta.schema.json_strict import shown


def check(manifest: v1.Manifest) -> list[Problem]:
    """Every cross-reference problem of a well-typed manifest."""
    parts: tuple[Callable[[v1.Manifest], Iterable[Problem]], ...] = (
        _ids,
        _paths,
        _files,
        _model,
        _sites,
        _records,
        _mergeable,
        _runs,
    )
    return [problem for part in parts for problem in part(manifest)]


def probe_tensor_names(manifest: v1.Manifest) -> list[str]:
    """The tensors that the probe file must hold, in order: inputs, outputs, each site's summaries."""
    names = [f"input.{index}" for index in range(len(manifest.model.inputs))]
    names += [f"output.{index}" for index in range(len(manifest.model.outputs))]
    for site in manifest.sites:
        if site.probe is not None:
            names += [site.probe.mean, site.probe.l2]
    return names


def _repeated(values: Iterable[tuple[str, str]], code: str, expected: str) -> Iterator[Problem]:
    """The places of those (place, value) pairs whose value has been seen before."""
    seen: set[str] = set()
    for place, value in values:
        if value in seen:
            yield Problem(place, code, f"{shown(value)} a second time", expected)
        seen.add(value)


def _ids(manifest: v1.Manifest) -> Iterator[Problem]:
    lists: dict[str, Sequence[v1.File | v1.Site | v1.Record | v1.Run | v1.Dataset | v1.LabelSet]] = {
        "files": manifest.files,
        "sites": manifest.sites,
        "records": manifest.records,
        "runs": manifest.runs,
        "datasets": manifest.datasets,
        "model.label_sets": manifest.model.label_sets,
    }
    for where, items in lists.items():
        pairs = ((f"{where}[{index}].id", item.id) for index, item in enumerate(items))
        yield from _repeated(pairs, "duplicate-id", "each id once")


def _paths(manifest: v1.Manifest) -> Iterator[Problem]:
    # Lower case: two names that differ in case only are one file on macOS and Windows.
    paths = [(f"files[{index}].path", file.path.lower()) for index, file in enumerate(manifest.files)]
    yield from _repeated(paths, "duplicate-path", "each path once, also when case is ignored")
    files = {path for _, path in paths}
    for where, path in paths:
        folders = path.split("/")[:-1]
        if any("/".join(folders[: depth + 1]) in files for depth in range(len(folders))):
            yield Problem(where, "duplicate-path", f"{shown(path)} inside another file", "a folder")


def _files(manifest: v1.Manifest) -> Iterator[Problem]:
    for index, file in enumerate(manifest.files):
        where = f"files[{index}]"
        suffix, media_type = v1.SUFFIXES.get(file.role), v1.MEDIA_TYPES.get(file.role)
        if suffix and not file.path.endswith(suffix):
            yield Problem(f"{where}.path", "wrong-suffix", shown(file.path), f"{suffix} for role {file.role}")
        if media_type and file.media_type != media_type:
            yield Problem(f"{where}.media_type", "wrong-media-type", shown(file.media_type), media_type)
        limit = v1.SIZE_LIMITS.get(file.role, file.size)
        if file.size > limit:
            yield Problem(f"{where}.size", "too-large", f"{file.size} bytes", f"at most {limit}")
        if file.role == "records" and file.header_sha256 is None:
            yield Problem(f"{where}.header_sha256", "missing-member", "no such member", "one, for role records")


def _file_reference(manifest: v1.Manifest, where: str, id: str, role: str) -> Iterator[Problem]:
    file = manifest.file(id)
    if file is None:
        yield _dangling(where, id, "files")
    elif file.role != role:
        yield Problem(where, "wrong-role", f"{shown(id)}, of role {file.role}", f"a file of role {role}")


def _dangling(where: str, id: str, target: str) -> Problem:
    return Problem(where, "dangling-reference", shown(id), f"the id of one of {target}")


def _model(manifest: v1.Manifest) -> Iterator[Problem]:
    model = manifest.model
    if model.graph is None and model.weights is None:
        yield Problem("model", "no-model", "neither graph nor weights", "at least one of them")
    if model.graph is not None:
        yield from _file_reference(manifest, "model.graph.file", model.graph.file, "model.graph")
    for index, id in enumerate(model.weights.files if model.weights else ()):
        yield from _file_reference(manifest, f"model.weights.files[{index}]", id, "model.weights")
    if model.probe is not None:
        yield from _file_reference(manifest, "model.probe.file", model.probe.file, "probe")
    names = {labels.id for labels in model.label_sets}
    for index, output in enumerate(model.outputs):
        if output.labels is not None and output.labels not in names:
            yield _dangling(f"model.outputs[{index}].labels", output.labels, "model.label_sets")
    yield from _values("model.inputs", model.inputs)
    yield from _values("model.outputs", model.outputs)


def _values(where: str, values: Sequence[v1.Input | v1.Output]) -> Iterator[Problem]:
    pairs = ((f"{where}[{index}].name", value.name) for index, value in enumerate(values))
    yield from _repeated(pairs, "duplicate-id", "each name once")
    for index, value in enumerate(values):
        if value.axes is not None and len(value.axes) != len(value.shape):
            expected = f"{len(value.shape)}, as in shape"
            yield Problem(f"{where}[{index}].axes", "wrong-length", f"{len(value.axes)} axes", expected)


def _sites(manifest: v1.Manifest) -> Iterator[Problem]:
    for index, site in enumerate(manifest.sites):
        where = f"sites[{index}]"
        yield from _addresses(manifest, site, where)
        yield from _axes(site, where)
        if site.probe is not None and manifest.model.probe is None:
            yield Problem(f"{where}.probe", "dangling-reference", "probe tensors", "model.probe, which holds them")
    pairs = (("model.probe", name) for name in probe_tensor_names(manifest))
    yield from _repeated(pairs, "duplicate-tensor", "each probe tensor once")


def _addresses(manifest: v1.Manifest, site: v1.Site, where: str) -> Iterator[Problem]:
    graph = manifest.model.graph
    values = [(i, a) for i, a in enumerate(site.addresses) if isinstance(a, v1.OnnxValue)]
    if graph is not None and len(values) != 1:
        fix = "Give the value's name in the graph."
        yield Problem(f"{where}.addresses", "no-onnx-value", f"{len(values)} onnx-value addresses", "exactly one", fix)
    for index, address in values:
        place = f"{where}.addresses[{index}].file"
        yield from _file_reference(manifest, place, address.file, "model.graph")


def _axes(site: v1.Site, where: str) -> Iterator[Problem]:
    if isinstance(site.shape[0], int):
        yield Problem(f"{where}.shape[0]", "bad-dimension", str(site.shape[0]), "a name, as axis 0 is the batch")
    if site.feature_axis is None:
        return
    if site.feature_axis >= len(site.shape):
        expected = f"less than {len(site.shape)}"
        yield Problem(f"{where}.feature_axis", "out-of-range", str(site.feature_axis), expected)
        return
    extent = site.shape[site.feature_axis]
    if isinstance(extent, int) and site.feature_count not in (None, extent):
        expected = f"{extent}, as in shape"
        yield Problem(f"{where}.feature_count", "wrong-count", str(site.feature_count), expected)


def _records(manifest: v1.Manifest) -> Iterator[Problem]:
    sites, runs = {site.id for site in manifest.sites}, {run.id for run in manifest.runs}
    files = {file.id: file for file in manifest.files}
    names: list[tuple[str, str]] = []
    for index, record in enumerate(manifest.records):
        where = f"records[{index}]"
        for member, id in (("site", record.site), ("paired_site", record.paired_site)):
            if id is not None and id not in sites:
                yield _dangling(f"{where}.{member}", id, "sites")
        if record.run not in runs:
            yield _dangling(f"{where}.run", record.run, "runs")
        if record.file not in files:
            yield _dangling(f"{where}.file", record.file, "files")
        elif files[record.file].role != "records":
            yield from _file_reference(manifest, f"{where}.file", record.file, "records")
        yield from _group(manifest, record, where)
        if record.unit_count > record.position_count:
            expected = f"at most position_count, {record.position_count}"
            yield Problem(f"{where}.unit_count", "wrong-count", str(record.unit_count), expected)
        for statistic, tensor in record.tensors.items():
            names.append((f"{where}.tensors.{statistic}.name", tensor.name))
    yield from _repeated(names, "duplicate-tensor", "each tensor in one place")


def _mergeable(manifest: v1.Manifest) -> Iterator[Problem]:
    withheld = any(record.suppressed_groups for record in manifest.records)
    noised = manifest.privacy is not None and manifest.privacy.differential_privacy is not None
    for index, record in enumerate(manifest.records):
        lacking = record.suppressed_groups or (withheld and record.group.by == "all")
        if record.mergeable and (lacking or noised):
            expected = f"false, as {'groups were suppressed' if lacking else 'the release was noised'}"
            yield Problem(f"records[{index}].mergeable", "not-mergeable", "true", expected)


def _group(manifest: v1.Manifest, record: v1.Record, where: str) -> Iterator[Problem]:
    by, id, suppressed = record.group.by, record.group.label_set, record.suppressed_groups
    if id is None and by == "class":
        yield Problem(f"{where}.group.label_set", "missing-member", "no such member", "one, as by is 'class'")
        return
    labels = None if id is None else manifest.label_set(id)
    if id is not None and labels is None:
        yield _dangling(f"{where}.group.label_set", id, "model.label_sets")
        return
    # How many rows another grouping has, only a later version knows.
    rows = {"all": 0, "class": len(labels.names) if labels else 0}.get(by, json_strict.LARGEST_INTEGER + 1)
    if any(group >= rows for group in suppressed) or sorted(set(suppressed)) != suppressed:
        expected = f"sorted group numbers below {rows}" if rows else "none, as there is one group"
        yield Problem(f"{where}.suppressed_groups", "out-of-range", shown(str(suppressed)), expected)


def _runs(manifest: v1.Manifest) -> Iterator[Problem]:
    datasets = {dataset.id for dataset in manifest.datasets}
    for index, run in enumerate(manifest.runs):
        if run.dataset not in datasets:
            yield _dangling(f"runs[{index}].dataset", run.dataset, "datasets")
