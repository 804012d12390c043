"""What is read before anything else: is this dfmeta, and a version of it that we understand?"""

from __future__ import annotations

import re

from dfmeta.errors import Problem, SchemaError, UnsupportedVersion
from dfmeta.schema import v1
from dfmeta.schema.json_strict import shown

_MAJOR, _MINOR = (int(part) for part in v1.FORMAT_VERSION.split("."))


def gate(document: object, where: str) -> tuple[dict[str, object], tuple[str, ...]]:
    """Refuse what is not a manifest of a supported version.

    Args:
        document: the parsed manifest.
        where: what to call it in messages.

    Returns:
        The document, which is an object, and the warnings.

    Raises:
        SchemaError: not a dfmeta manifest.
        UnsupportedVersion: a later major version, or a required feature that we do not know.
    """
    if not isinstance(document, dict):
        problem = Problem("document", "wrong-type", shown(document), "an object")
        raise SchemaError(where, [problem])
    version = document.get("format_version")
    problems = []
    if document.get("format") != "dfmeta":
        problems.append(_head("format", "wrong-format", document.get("format"), "'dfmeta'"))
    parts = re.fullmatch(r"(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})", version) if isinstance(version, str) else None
    if parts is None:
        problems.append(_head("format_version", "bad-version", version, "MAJOR.MINOR, such as '1.0'"))
    if problems or parts is None:
        raise SchemaError(where, problems)
    _major(where, int(parts[1]), str(version))
    _features(where, document.get("required_features"))
    if int(parts[2]) > _MINOR:
        return document, (
            f"{where}: format version {version} is later than {v1.FORMAT_VERSION}: what it adds is ignored.",
        )
    return document, ()


def _head(member: str, code: str, found: object, expected: str) -> Problem:
    return Problem(member, code, "nothing" if found is None else shown(found), expected)


def _major(where: str, major: int, version: str) -> None:
    if major != _MAJOR:
        raise UnsupportedVersion(
            f"{where}: format_version",
            version,
            f"{_MAJOR}.x",
            "Read it with a dfmeta that supports that version.",
        )


def _features(where: str, features: object) -> None:
    if not isinstance(features, list):
        return
    unknown = [feature for feature in features if isinstance(feature, str) and feature not in v1.FEATURES]
    if unknown:
        raise UnsupportedVersion(
            f"{where}: required_features",
            ", ".join(shown(feature) for feature in unknown[:8]),
            "only features that this version of dfmeta knows",
            "Update dfmeta.",
            code="unsupported-feature",
        )
