"""Small text grammars of the format: ids, names, digests, times and member paths.

Each is a regular expression of the subset that Python, Rust and ECMAScript read alike (no look-around), and
each carries its own problem code, so that the JSON Schema and the reader cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MANIFEST_NAME = "dfmeta.json"
SHARD_NAME = "dfmeta-shard.json"
PATH_BYTES = 255
TENSOR_NAME_BYTES = 128

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}
# What these hold is executed or unpacked by the tools that open it; the bytes are not safe to hand on.
_FORBIDDEN = (
    *(
        ".pkl",
        ".pickle",
        ".joblib",
        ".pt",
        ".pth",
        ".pt2",
        ".bin",
        ".ckpt",
        ".npy",
        ".npz",
        ".h5",
        ".hdf5",
        ".keras",
    ),
    *(
        ".zip",
        ".tar",
        ".tgz",
        ".gz",
        ".bz2",
        ".xz",
        ".zst",
        ".7z",
        ".rar",
        ".py",
        ".pyc",
        ".so",
        ".dll",
        ".sh",
        ".exe",
    ),
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """A text grammar as a pydantic annotation.

    Attributes:
        pattern: what the whole text must match.
        code: slug of the problem when it does not.
        expected: the same in words.
        most: characters at most, where the pattern alone does not say it.
    """

    pattern: str
    code: str
    expected: str
    most: int | None = None

    def _checker(self) -> Callable[[str], str]:
        # Thousands of digests and names in a manifest: the pattern is looked up once, not for each.
        matches, most = re.compile(self.pattern).fullmatch, self.most

        def check(text: str) -> str:
            if matches(text) is None or (most is not None and len(text) > most):
                raise PydanticCustomError(self.code, "{expected}", {"expected": self.expected})
            return text

        return check

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the grammar after pydantic's own type check."""
        return core_schema.no_info_after_validator_function(self._checker(), handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The same pattern, anchored, for the published schema."""
        longest = {} if self.most is None else {"maxLength": self.most}
        return {**handler(schema), "pattern": f"^{self.pattern}$", **longest}


@dataclass(frozen=True, slots=True)
class _MemberPath(Grammar):
    """The path grammar: what a regular expression can say, and what it cannot."""

    def _checker(self) -> Callable[[str], str]:
        def check(text: str) -> str:
            reason = path_fault(text)
            if reason:
                raise PydanticCustomError("unsafe-path", "{expected}", {"expected": self.expected, "found": reason})
            return text

        return check


def path_fault(path: str) -> str:
    """What is wrong with a member path, or the empty string.

    The grammar holds under POSIX and Windows rules at once: 1 to 8 segments of ``[A-Za-z0-9._-]`` joined by
    ``/``, each starting with a letter or digit, none ending in a dot, none a device name, no executable or
    archive suffix, at most 255 bytes, and not the manifest's own name.
    """
    if re.fullmatch(rf"{_SEGMENT}(/{_SEGMENT}){{0,7}}", path) is None or len(path) > PATH_BYTES:
        return "a path outside the grammar"
    segments = path.lower().split("/")
    if any(segment.endswith(".") for segment in segments):
        return "a segment that ends in a dot"
    if any(segment.split(".")[0] in _DEVICES for segment in segments):
        return "a Windows device name"
    if segments == [MANIFEST_NAME]:
        return "the manifest's own name"
    if segments[-1].endswith(_FORBIDDEN):
        return "a file type that never belongs in a bundle"
    return ""


Id = Annotated[str, Grammar(r"[a-z][a-z0-9_]{0,31}", "bad-id", "an id such as 'rec0': [a-z][a-z0-9_]{0,31}")]
Sha256 = Annotated[str, Grammar(r"[0-9a-f]{64}", "bad-sha256", "64 lower-case hexadecimal digits", 64)]
TensorName = Annotated[
    str,
    Grammar(
        r"[a-z0-9_]{1,128}(\.[a-z0-9_]{1,128}){0,63}",
        "bad-tensor-name",
        "a tensor name such as 'r0.mean': lower-case words joined by dots",
        TENSOR_NAME_BYTES,
    ),
]
Name = Annotated[str, Grammar(r"[a-z][a-z0-9._-]{0,63}", "bad-name", "a lower-case name such as 'model.graph'")]
Feature = Annotated[str, Grammar(r"[a-z][a-z0-9-]{0,63}", "bad-name", "a feature name such as 'external-data'")]
Symbol = Annotated[
    str,
    Grammar(r"[ -~]{1,128}", "bad-dimension", "a dimension: a positive integer or a printable ASCII name"),
]
Version = Annotated[
    str,
    Grammar(r"(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})", "bad-version", "MAJOR.MINOR, such as '1.0'"),
]
Uuid = Annotated[
    str,
    Grammar(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "bad-uuid",
        "urn:uuid: and a lower-case UUID",
    ),
]
Time = Annotated[
    str,
    Grammar(
        r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
        r"T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?Z",
        "bad-time",
        "an RFC 3339 time in UTC, such as '2026-01-31T09:00:00Z'",
    ),
]
ReverseDns = Annotated[
    str,
    Grammar(
        r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){1,7}",
        "bad-extension-name",
        "a reverse-DNS name: org.example.thing",
    ),
]
MemberPath = Annotated[
    str,
    _MemberPath(
        rf"{_SEGMENT}(/{_SEGMENT}){{0,7}}",
        "unsafe-path",
        "a relative path of 1 to 8 plain segments, such as 'dfmeta/records.safetensors'",
        PATH_BYTES,
    ),
]
