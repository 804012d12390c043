"""What a later version may bring: what a reader must pass over, and what it must refuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from vectors.drafts import Case, Change, Draft, Json, before, both, put
from vectors.manifests import add, full, member, moments, small

_case = partial(Case, area="future", clause="7", base=small)
_refused = partial(_case, schema="valid")
_compat = partial(_case, code="", folder="compat", verdict="valid")
# Maps from names of their own: what stands in them is no member of the format.
_OPEN = ("extensions", "conventions", "configuration", "differential_privacy")
NEW = {"since": 7, "list": [None, True, "…"], "of": {"deep": [[{}]]}}
"""A member that no version has."""


def future(value: Any) -> None:
    """Put a new member into every object of a manifest."""
    if isinstance(value, list):
        for item in value:
            future(item)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key == "tensors":
            for tensor in item.values():
                tensor["x_later"] = NEW
        elif key not in _OPEN:
            future(item)
    value["x_later"] = NEW


def _later(manifest: Json) -> None:
    """Everything that a later minor version may bring at once."""
    future(manifest)
    manifest["format_version"] = "1.7"
    manifest["sites"][0]["addresses"].append({"scheme": "jax-path", "path": ["relu", 0]})
    manifest["model"]["inputs"][0]["preprocessing"].append({"op": "rotate", "by": 90})


def _notes(draft: Draft) -> None:
    draft.manifest["files"].append(member("notes", "notes", "notes.txt", "text/plain"))
    draft.members["notes.txt"] = b"of old\n"


def _record(**members: Any) -> Callable[[Draft], None]:
    """A second record of something new."""

    def change(draft: Draft) -> None:
        add(draft, "moments", moments())
        draft.manifest["records"][-1] |= members

    return change


def _open(id: str, comment: str, change: Change, *, strict: bool = True, warns: bool = False) -> Case:
    return _compat(id, comment=comment, change=change, strict=strict, warns=warns)


CASES = (
    _refused(
        "later-major",
        code="unsupported-version",
        comment="Version 2.",
        schema="invalid",
        change=put("format_version", "2.0"),
    ),
    _refused(
        "earlier-major",
        code="unsupported-version",
        comment="Version 0.",
        schema="invalid",
        change=put("format_version", "0.9"),
    ),
    _refused(
        "later-major-of-another-shape",
        code="unsupported-version",
        comment="Version 2 may look like anything.",
        schema="invalid",
        change=both(put("format_version", "2.0"), put("files", {"graph": 1})),
    ),
    _refused(
        "required-feature",
        code="unsupported-feature",
        comment="A feature of a later version, which this one must understand.",
        change=put("required_features", ["external-data"]),
    ),
    _refused(
        "required-feature-of-a-later-minor",
        code="unsupported-feature",
        comment="A later minor version asks for it.",
        change=both(put("format_version", "1.9"), put("required_features", ["noised-moments"])),
    ),
    _open("later-minor", "Version 1.7.", put("format_version", "1.7"), warns=True),
    _open("later-minor-of-five-digits", "Version 1.99999.", put("format_version", "1.99999"), warns=True),
    _open(
        "unknown-member",
        "A member that this version does not know.",
        put("model/colour", {"r": None, "g": [1]}),
        strict=False,
    ),
    _open("unknown-member-at-the-top", "The same at the top.", put("signature_hint", "dfmeta.json.sig"), strict=False),
    _compat(
        "unknown-members-everywhere",
        base=full,
        comment="A new member in every object of a later version, a new operation and a new address.",
        change=_later,
        strict=False,
        warns=True,
    ),
    _open(
        "unknown-extension",
        "Anything under a name of one's own.",
        put("extensions", {"com.example.other": [None, True]}),
    ),
    _open(
        "unknown-address",
        "A scheme of a later version.",
        put("sites/0/addresses/1", {"scheme": "tf-op", "op": "relu"}),
        strict=False,
        warns=True,
    ),
    _open(
        "unknown-operation",
        "An operation of a later version.",
        put("model/inputs/0/preprocessing", [{"op": "rotate", "by": 90}]),
        strict=False,
        warns=True,
    ),
    _open(
        "unknown-semantics",
        "Values of open members.",
        both(
            put("model/outputs/0/semantics", "energies"),
            put("datasets/0/unit", "molecule"),
            put("model/inputs/0/modality", "spectra"),
        ),
    ),
    _compat("unknown-role", comment="A file of a later role: its suffix is its own.", draft=_notes, warns=True),
    _compat(
        "unknown-kind",
        comment="A kind of a later version, with numbers that this one cannot judge.",
        draft=_record(kind="entropy", conventions={}, configuration={"of": "bits"}),
        warns=True,
    ),
    _compat(
        "unknown-kind-version",
        comment="A later version of a known kind.",
        draft=_record(kind_version=2, conventions={"centering": "raw"}),
        warns=True,
    ),
    _compat("unknown-group", comment="Another way to group.", draft=_record(group={"by": "colour"}), warns=True),
    _compat("unknown-features", comment="Another sort of features.", draft=_record(features="token"), warns=True),
    _compat(
        "no-required-features",
        comment="A later version that asks for nothing.",
        draft=before(both(put("format_version", "1.1"), put("required_features", []))),
        warns=True,
    ),
)
