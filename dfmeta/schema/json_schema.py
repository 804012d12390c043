"""The published JSON Schema, derived from the models: one open for readers, one strict for authors."""

from __future__ import annotations

from typing import Any

from dfmeta.schema import v1

_OPEN_ENDED = ("UnknownOp", "UnknownAddress")


def json_schema(strict: bool) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of format 1.0.

    It says what one node may hold. What only a reader can check (references, unique ids, duplicate keys,
    limits of the whole document) is listed in ``spec/dfmeta-1.md``.

    Args:
        strict: also refuse members and operations that the format does not define.
    """
    schema: dict[str, Any] = v1.Manifest.model_json_schema(by_alias=True, mode="validation")
    if strict:
        _close(schema)
    _close_keys(schema)
    _require_tags(schema)
    major = v1.FORMAT_VERSION.split(".")[0]
    schema["properties"]["format_version"]["pattern"] = rf"^{major}\.(0|[1-9][0-9]{{0,4}})$"
    # A manifest must say both: the models' defaults are for those who write one.
    schema["required"] = sorted({*schema["required"], "format", "format_version"})
    _allow_null(schema)
    suffix = ".strict" if strict else ""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:dfmeta:manifest:{v1.FORMAT_VERSION}{suffix}",
    }
    return {**head, **schema, "title": f"dfmeta manifest {v1.FORMAT_VERSION}{' (strict)' if strict else ''}"}


def _close(schema: dict[str, Any]) -> None:
    definitions = schema["$defs"]
    for name in _OPEN_ENDED:
        del definitions[name]
    for node in (schema, *definitions.values()):
        if "properties" in node:
            node["additionalProperties"] = False
    _drop_branches(schema)


def _close_keys(value: Any) -> None:
    """A map whose keys have a grammar has no other keys."""
    if isinstance(value, dict):
        if "patternProperties" in value:
            value["additionalProperties"] = False
        for item in value.values():
            _close_keys(item)


def _require_tags(schema: dict[str, Any]) -> None:
    """What tells operations and addresses apart has a default in the models, and must stand in a manifest."""
    for node in schema["$defs"].values():
        tags = {"op", "scheme"} & node.get("properties", {}).keys()
        if tags:
            node["required"] = sorted({*node.get("required", ()), *tags})


def _allow_null(schema: dict[str, Any]) -> None:
    """Null for a member that may be absent means that it is."""
    for node in (schema, *schema["$defs"].values()):
        for name, member in node.get("properties", {}).items():
            if name not in node.get("required", ()) and {"type": "null"} not in member.get("anyOf", ()):
                about = {key: member.pop(key) for key in ("default", "title") if key in member}
                node["properties"][name] = {"anyOf": [member, {"type": "null"}], **about}


def _drop_branches(value: Any) -> None:
    gone = {f"#/$defs/{name}" for name in _OPEN_ENDED}
    if isinstance(value, dict):
        for key in ("oneOf", "anyOf"):
            if key in value:
                value[key] = [branch for branch in value[key] if branch.get("$ref") not in gone]
        for item in value.values():
            _drop_branches(item)
    elif isinstance(value, list):
        for item in value:
            _drop_branches(item)
