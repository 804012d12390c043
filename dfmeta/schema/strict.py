"""What authors want to know and readers must not mind: members and values that format 1.0 does not define."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import islice

from dfmeta.errors import Problem
from dfmeta.schema import v1
from dfmeta.schema.json_strict import join, shown

_ROLES = tuple(v1.SUFFIXES)
_GROUPS = ("all", "class")


def unknown_members(manifest: v1.Manifest) -> list[Problem]:
    """The first 1,000 members outside ``extensions`` that the format does not define, with near names."""
    return list(islice(_node(manifest, ""), 1000))


def unknown_values(manifest: v1.Manifest) -> list[Problem]:
    """Every open value (role, operation, address scheme, group, features) that we do not know.

    A reader passes over the item; what is in it is kept.
    """
    return [*_files(manifest), *_operations(manifest), *_sites(manifest)]


def _files(manifest: v1.Manifest) -> Iterator[Problem]:
    for index, file in enumerate(manifest.files):
        if file.role not in _ROLES:
            yield _value(f"files[{index}].role", file.role, _ROLES, "Readers never open this file.")


def _operations(manifest: v1.Manifest) -> Iterator[Problem]:
    for i, entry in enumerate(manifest.model.inputs):
        for j, op in enumerate(entry.preprocessing):
            if isinstance(op, v1.UnknownOp):
                where = f"model.inputs[{i}].preprocessing[{j}].op"
                yield _value(where, op.op, v1.KNOWN_OPS, "This input cannot be made from raw data.")


def _sites(manifest: v1.Manifest) -> Iterator[Problem]:
    for i, site in enumerate(manifest.sites):
        for j, address in enumerate(site.addresses):
            if isinstance(address, v1.UnknownAddress):
                where = f"sites[{i}].addresses[{j}].scheme"
                yield _value(where, address.scheme, v1.KNOWN_SCHEMES, "This address is not used.")
    for index, record in enumerate(manifest.records):
        if record.group.by not in _GROUPS:
            yield _value(f"records[{index}].group.by", record.group.by, _GROUPS, "This record is not usable.")
        if record.features not in v1.KNOWN_FEATURES:
            yield _value(f"records[{index}].features", record.features, v1.KNOWN_FEATURES, "This record is not usable.")


def _value(where: str, found: str, known: tuple[str, ...], fix: str) -> Problem:
    return Problem(where, "unknown-value", shown(found), f"one of {', '.join(known)}", fix)


def _node(node: v1.Node, where: str) -> Iterator[Problem]:
    if isinstance(node, (v1.UnknownOp, v1.UnknownAddress)):
        return
    fields = type(node).model_fields
    known = [field.alias or name for name, field in fields.items()]
    for name in node.model_extra or {}:
        near = difflib.get_close_matches(name[:64], known, n=1)
        fix = f"Did you mean {near[0]!r}?" if near else "Put what is your own under 'extensions'."
        yield Problem(join(where, name), "unknown-member", "a member that the format does not define", "", fix)
    for name, field in fields.items():
        yield from _inside(getattr(node, name), join(where, field.alias or name))


def _inside(value: object, where: str) -> Iterator[Problem]:
    if isinstance(value, v1.Node):
        yield from _node(value, where)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _inside(item, f"{where}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, v1.Node):
                yield from _node(item, join(where, key))
