"""What a bundle says of itself, from its manifest alone: no member is opened."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from dfmeta._catalog import KINDS
from dfmeta.bundle import Bundle
from dfmeta.report.tables import columns_table, facts_table
from dfmeta.report.words import LAYOUTS, integer, size
from dfmeta.schema import v1

Facts = dict[str, Any]


def overview(bundle: Bundle) -> Facts:
    """The facts of a bundle as JSON types.

    Args:
        bundle: opened; nothing but its manifest is read.

    Returns:
        ``path``, ``identity``, ``format_version``, ``bundle``, ``model``, ``files``, ``sites``, ``records``
        (each with ``values``, how many numbers it holds, or None where the manifest does not tell: of a kind that
        we do not know, or of a length that the data decided), ``runs``, ``datasets``, ``privacy``, ``licenses`` and
        ``warnings``.
    """
    manifest = bundle.manifest
    return {
        "path": str(bundle.path),
        "identity": bundle.identity,
        "format_version": manifest.format_version,
        "bundle": _plain(manifest.bundle),
        "model": _model(manifest.model),
        "files": [{"path": file.path, "role": file.role, "size": file.size} for file in manifest.files],
        "sites": [_site(site) for site in manifest.sites],
        "records": [_record(record, manifest) for record in manifest.records],
        "runs": [_plain(run) for run in manifest.runs],
        "datasets": [_plain(dataset) for dataset in manifest.datasets],
        "privacy": _plain(manifest.privacy) if manifest.privacy else None,
        "licenses": _plain(manifest.licenses) if manifest.licenses else None,
        "warnings": list(bundle.warnings),
    }


def overview_tables(facts: Facts) -> list[RenderableType]:
    """The same facts for people.

    Args:
        facts: what :func:`overview` gave.
    """
    tables: list[RenderableType] = [facts_table(_about(facts)), _files(facts["files"])]
    if facts["sites"]:
        tables.append(_sites(facts))
    return [*tables, facts_table(_origin(facts))]


def _plain(node: v1.Node) -> Facts:
    return node.model_dump(mode="json", by_alias=True)


def _model(model: v1.Model) -> Facts:
    graph = model.graph
    return {
        "name": model.name,
        "version": model.version,
        "architecture": model.architecture,
        "parameters": model.parameter_count,
        "opset": {entry.domain: entry.version for entry in graph.opset_import} if graph else None,
        "ir_version": graph.ir_version if graph else None,
        "inputs": [_plain(entry) for entry in model.inputs],
        "outputs": [_plain(entry) for entry in model.outputs],
        "label_sets": {labels.id: len(labels.names) for labels in model.label_sets},
        "probe": model.probe is not None,
    }


def _site(site: v1.Site) -> Facts:
    return {"id": site.id, "label": site.label, "value": site.onnx_value(), "shape": site.shape}


def _record(record: v1.Record, manifest: v1.Manifest) -> Facts:
    return {
        "id": record.id,
        "site": record.site,
        "paired_site": record.paired_site,
        "kind": record.kind,
        "kind_version": record.kind_version,
        "group": record.group.by,
        "features": record.features,
        "feature_count": record.feature_count,
        "unit_count": record.unit_count,
        "values": _values(record, manifest),
        "suppressed_groups": record.suppressed_groups,
    }


def _values(record: v1.Record, manifest: v1.Manifest) -> int | None:
    """How many numbers a record holds, by its kind's own layout; None where that leaves it open."""
    labels = manifest.label_set(record.group.label_set) if record.group.label_set else None
    if record.kind not in KINDS.names() or record.group.by not in ("all", "class"):
        return None
    spec = KINDS.load(record.kind, "spec")
    if record.kind_version != spec.VERSION:
        return None
    try:
        layout = spec.layout(record.feature_count, len(labels.names) if labels else None, record.configuration)
    except (KeyError, TypeError, ValueError):
        # A configuration that the kind cannot read: `validate` says so, an overview leaves the number out.
        return None
    return _entries([tensor.shape for tensor in layout.values()])


def _entries(shapes: Sequence[Sequence[int | str]]) -> int | None:
    """How many numbers tensors of these shapes hold; None if the data decided a length of one."""
    found = 0
    for shape in shapes:
        lengths = [length for length in shape if isinstance(length, int)]
        if len(lengths) < len(shape):
            # That length stands in the sidecar, and no member is opened here.
            return None
        found += math.prod(lengths)
    return found


def _about(facts: Facts) -> list[tuple[str, str]]:
    model, about = facts["model"], facts["bundle"]
    opset = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in (model["opset"] or {}).items())
    rows = [
        ("model", " ".join(filter(None, [model["name"], model["version"]]))),
        ("title", about.get("title")),
        ("description", about.get("description")),
        ("parameters", None if model["parameters"] is None else integer(model["parameters"])),
        ("opset", f"{opset}, IR {model['ir_version']}" if opset else "no graph"),
        *(("input", _signature(entry)) for entry in model["inputs"]),
        *(("preprocessing", _operations(entry["preprocessing"])) for entry in model["inputs"][:1]),
        *(("output", _output(entry, model)) for entry in model["outputs"]),
        ("release", f"{about['version']} of {about['created']}"),
        ("publisher", (about.get("publisher") or {}).get("name")),
        ("format", facts["format_version"]),
        ("identity", facts["identity"]),
    ]
    return [(name, value) for name, value in rows if value]


def _signature(entry: Mapping[str, Any]) -> str:
    return f"{entry['name']}, {entry['dtype']} {_shape(entry['shape'])}"


def _output(entry: Mapping[str, Any], model: Facts) -> str:
    labels = entry.get("labels")
    more = [entry.get("semantics"), f"{model['label_sets'].get(labels)} classes" if labels else None]
    return ", ".join(filter(None, [_signature(entry), *more]))


def _shape(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _operations(ops: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for op in ops:
        settings = ", ".join(f"{name} {_setting(value)}" for name, value in op.items() if name != "op")
        parts.append(f"{op['op']} ({settings})" if settings else str(op["op"]))
    return ", ".join(parts)


def _setting(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_setting, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _files(files: Sequence[Facts]) -> RenderableType:
    rows = [[file["path"], file["role"], size(file["size"])] for file in files]
    return columns_table(["file", "role", "size"], rows, numbers=["size"])


def _sites(facts: Facts) -> RenderableType:
    """One row a site, however many records were taken there."""
    labels = {site["id"]: site["label"] or site["value"] or site["id"] for site in facts["sites"]}
    rows = []
    for site in facts["sites"]:
        records = [record for record in facts["records"] if record["site"] == site["id"]]
        groups: dict[str, list[str]] = {}
        for record in records:
            groups.setdefault(_named(record, labels), []).append(record["group"])
        named = ", ".join(f"{name} ({', '.join(by)})" for name, by in groups.items()) or "none"
        rows.append([site["id"], labels[site["id"]], _shape(site["shape"]), named, _numbers(records)])
    return columns_table(["site", "label", "shape", "records", "numbers"], rows, numbers=["numbers"])


def _named(record: Facts, labels: Mapping[str, str]) -> str:
    """What a record is, of what, and with which other site."""
    of = f" of {LAYOUTS.get(record['features'], record['features'])}" if record["features"] != "flattened" else ""
    paired = record["paired_site"]
    # A manifest is hostile: the other site need not be one of its own.
    return f"{record['kind']}{of}" + (f" with {labels.get(paired, paired)}" if paired else "")


def _numbers(records: Sequence[Facts]) -> str:
    """How many numbers the records of a site hold, as far as the manifest tells."""
    known = [record["values"] for record in records if record["values"] is not None]
    if len(known) == len(records):
        return integer(sum(known))
    return f"over {integer(sum(known))}" if known else "unknown"


def _origin(facts: Facts) -> list[tuple[str, str]]:
    rows = []
    for dataset in facts["datasets"]:
        split = f", {dataset['split']}" if dataset.get("split") else ""
        units = f"{integer(dataset['unit_count'])} units ({dataset['unit']})"
        rows.append(("data", f"{dataset['name']}{split}: {units}"))
        rows.append(("personal data", dataset["contains_personal_data"]))
    for run in facts["runs"]:
        engine = f"{run['engine']['name']} {run['engine']['version']}"
        rows.append(("recorded with", f"{engine}, batch {run['batch_size']}, seed {run['seed']}"))
    rows.append(("privacy", _privacy(facts)))
    for what, licence in (facts["licenses"] or {}).items():
        rows.append((f"licence, {what}", str(licence)))
    return rows


def _privacy(facts: Facts) -> str:
    privacy = facts["privacy"]
    if privacy is None:
        return "nothing declared"
    hidden = {group for record in facts["records"] for group in record["suppressed_groups"]}
    return ", ".join(
        [
            f"at least {privacy['min_unit_count']} units ({privacy['unit']}) in each group",
            f"suppression {privacy['suppression']}" + (f" ({len(hidden)} groups)" if hidden else ""),
            f"extremes {privacy['extremes_policy']}",
            "differential privacy" if privacy.get("differential_privacy") else "no differential privacy",
            privacy["attestation"],
        ]
    )
