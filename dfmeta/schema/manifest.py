"""Reading and writing a manifest, and preprocessing lists that stand in files of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NoReturn

from pydantic import ValidationError

from dfmeta.errors import SchemaError
from dfmeta.schema import json_strict, references, v1
from dfmeta.schema.problems import problems_of
from dfmeta.schema.strict import unknown_members, unknown_values
from dfmeta.schema.versions import gate


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest that keeps the format's rules.

    Attributes:
        manifest: what it says.
        warnings: what a reader passes over: a later minor version, values it does not know.
    """

    manifest: v1.Manifest
    warnings: tuple[str, ...]


def load_manifest(raw: bytes, where: str = "dfmeta.json", strict: bool = False) -> Loaded:
    """Read a manifest.

    Args:
        raw: the bytes of ``dfmeta.json``.
        where: what to call it in messages.
        strict: for authors: members and values that the format does not define are problems too.

    Raises:
        SchemaError: with every problem of the first stage that has any (JSON, types, references).
        UnsupportedVersion: a later major version, or a required feature that we do not know.
    """
    document, warnings = gate(json_strict.parse(raw, where), where)
    try:
        manifest = v1.Manifest.model_validate(document)
    except ValidationError as error:
        _refuse(where, error)
    problems = references.check(manifest)
    unknown = unknown_values(manifest)
    if strict:
        problems += [*unknown_members(manifest), *unknown]
    if problems:
        raise SchemaError(where, problems)
    return Loaded(manifest, (*warnings, *(f"{where}: {problem}" for problem in unknown)))


def dump_manifest(manifest: v1.Manifest) -> bytes:
    """The canonical bytes of a manifest: UTF-8, sorted keys, 2-space indent, one newline at the end.

    Equal manifests give equal bytes; members that a later version added are kept.
    """
    document = manifest.model_dump(mode="json", by_alias=True)
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def load_preprocessing(raw: bytes, where: str) -> list[v1.Op]:
    """Read a JSON list of preprocessing operations.

    Args:
        raw: the bytes of the file.
        where: what to call it in messages.

    Raises:
        SchemaError: with every problem found.
    """
    document = json_strict.parse(raw, where)
    try:
        return v1.PREPROCESSING.validate_python(document)
    except ValidationError as error:
        _refuse(where, error)


def _refuse(where: str, error: ValidationError) -> NoReturn:
    raise SchemaError(where, problems_of(error)) from None
