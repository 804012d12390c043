"""JSON with nothing left to interpretation: I-JSON (RFC 7493) with numeric limits.

The standard parser takes the last of two equal keys, accepts NaN and lone surrogates, and recurses as deep as
the input asks. Here each of these is a problem with a location and a code, and all of them are reported.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field

from dfmeta.errors import Problem, SchemaError

LARGEST_INTEGER = 2**53 - 1
# Possessive and with an optional closing quote: linear in the input, whatever the input is.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_STRING = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_MANY_DIGITS = re.compile(rb"[0-9]{16}")
_ONE_BRACKET = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of everything one document may hold.

    Attributes:
        size: bytes of the document.
        depth: levels of lists and objects.
        string_bytes: bytes of one text, as UTF-8.
        array_items: items of one list.
        object_members: members of one object.
        minus_zero: whether ``-0`` is an integer; a float, as in most other languages, where it is not.
    """

    size: int = 4 * 2**20
    depth: int = 32
    string_bytes: int = 64 * 2**10
    array_items: int = 65_536
    object_members: int = 65_536
    minus_zero: bool = True


MANIFEST_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class _Bad:
    """A number that the parser met and that may not stand."""

    code: str
    text: str
    expected: str


@dataclass(slots=True)
class _Pairs:
    """An object as written: its keys may repeat."""

    pairs: list[tuple[str, object]]


class _Irregular(Exception):
    """Something that the quick look does not let pass; the thorough one says what it is, or that it is nothing."""


@dataclass(slots=True)
class _Walk:
    """Turns what the parser saw into plain values, and collects what may not stand."""

    limits: Limits
    problems: list[Problem] = field(default_factory=list)

    def value(self, raw: object, where: str) -> object:
        if isinstance(raw, _Pairs):
            return self.mapping(raw, where)
        if isinstance(raw, list):
            if len(raw) > self.limits.array_items:
                self.report(where, "too-many-items", f"{len(raw)} items", f"at most {self.limits.array_items}")
                return []
            return [self.value(item, f"{where}[{index}]") for index, item in enumerate(raw)]
        if isinstance(raw, str):
            self.text(raw, where)
        if isinstance(raw, _Bad):
            self.report(where, raw.code, raw.text, raw.expected)
            return None
        return raw

    def mapping(self, raw: _Pairs, where: str) -> dict[str, object]:
        if len(raw.pairs) > self.limits.object_members:
            self.report(where, "too-many-items", f"{len(raw.pairs)} members", f"at most {self.limits.object_members}")
            return {}
        members: dict[str, object] = {}
        for key, value in raw.pairs:
            place = join(where, key)
            self.text(key, place)
            if key in members:
                self.report(place, "duplicate-key", "the key more than once", "each key once")
            members[key] = self.value(value, place)
        return members

    def text(self, text: str, where: str) -> None:
        if _SURROGATE.search(text):
            self.report(where, "lone-surrogate", "half of a surrogate pair", "valid Unicode")
        elif len(text.encode()) > self.limits.string_bytes:
            self.report(where, "string-too-long", f"{len(text.encode())} bytes", f"at most {self.limits.string_bytes}")

    def report(self, where: str, code: str, found: str, expected: str) -> None:
        self.problems.append(Problem(where or "document", code, found, expected))


def join(where: str, key: str) -> str:
    """``where.key``, with the key escaped when it is not a plain word and cut when it is long."""
    plain = key if re.fullmatch(r"[A-Za-z0-9_$-]{1,64}", key) else shown(key)
    return f"{where}.{plain}" if where else plain


def shown(value: object, limit: int = 60) -> str:
    """A value as one short printable line, for messages about untrusted input."""
    text = ascii(value) if not isinstance(value, (dict, list)) else f"{type(value).__name__} of {len(value)}"
    return text if len(text) <= limit else f"{text[:limit]}…"


def parse(raw: bytes, where: str, limits: Limits = MANIFEST_LIMITS) -> object:
    """Parse one JSON document.

    Args:
        raw: the document's bytes.
        where: what to call it in messages.
        limits: how large it may be.

    Returns:
        Plain Python values: dict, list, str, int, float, bool, None.

    Raises:
        SchemaError: with every problem found, each with its location and code.
    """
    if len(raw) <= limits.size:
        try:
            return _plain(raw, limits)
        except (_Irregular, ValueError):
            # Whatever it was, the thorough way finds it again, and says where.
            pass
    problem = _before_parsing(raw, limits)
    if problem:
        raise SchemaError(where, [problem])
    try:
        document = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_Pairs,
            parse_int=_integer if limits.minus_zero else _integer_or_float,
            parse_float=_float,
            parse_constant=lambda text: _Bad("not-a-number", text, "a finite number"),
        )
    except UnicodeDecodeError as error:
        problem = Problem(f"byte {error.start}", "not-utf8", "bytes that are not UTF-8", "UTF-8")
        raise SchemaError(where, [problem]) from None
    except json.JSONDecodeError as error:
        problem = Problem(f"line {error.lineno} column {error.colno}", "not-json", error.msg, "one JSON document")
        raise SchemaError(where, [problem]) from None
    walk = _Walk(limits)
    value = walk.value(document, "")
    if walk.problems:
        raise SchemaError(where, walk.problems)
    return value


def _plain(raw: bytes, limits: Limits) -> object:
    """The same value, several times faster, for documents that plainly keep every rule.

    Depth, text and digits are bounded on the bytes; no location is made for what nobody will ask about.

    Raises:
        _Irregular, ValueError: the document breaks a rule, or comes too near one.
    """
    pieces = _STRING.split(raw)
    outside = b"".join(pieces[::2]).translate(None, b" \t\r\n")
    # Bytes in quotes, escapes and all, are never fewer than those of the text.
    longest = max(map(len, pieces[1::2]), default=2) - 2
    if longest > limits.string_bytes or _SURROGATE_ESCAPE.search(raw) or not _shallow(outside, limits.depth):
        raise _Irregular
    if not limits.minus_zero and b"-0" in outside:
        raise _Irregular
    # A list that is too long has that many commas: most documents have fewer in all.
    lists_are_short = outside.count(b",") < limits.array_items

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(pairs) > limits.object_members or len(found) != len(pairs):
            raise _Irregular
        if not lists_are_short:
            for value in found.values():
                if type(value) is list:
                    _require_short(value, limits.array_items)
        return found

    document = json.loads(
        raw.decode("utf-8"),
        object_pairs_hook=members,
        # No bound is near where no number has that many digits.
        parse_int=_plain_integer if _MANY_DIGITS.search(outside) else None,
        parse_float=_plain_float,
        parse_constant=_refuse_constant,
    )
    if type(document) is list:
        _require_short(document, limits.array_items)
    return document


def _shallow(outside: bytes, depth: int) -> bool:
    """Whether the brackets of a document, given without its strings, close and nest no deeper."""
    brackets = outside.translate(_ONE_BRACKET, _NOT_BRACKETS)
    for _ in range(depth):
        if not brackets:
            break
        # Each round takes the innermost level away.
        brackets = brackets.replace(b"[]", b"")
    return not brackets


def _require_short(items: list[object], limit: int) -> None:
    if len(items) > limit:
        raise _Irregular
    for item in items:
        if type(item) is list:
            _require_short(item, limit)


def _plain_integer(text: str) -> int:
    value = _integer(text)
    if isinstance(value, _Bad):
        raise _Irregular
    return value


def _plain_float(text: str) -> float:
    value = _float(text)
    if isinstance(value, _Bad):
        raise _Irregular
    return value


def _refuse_constant(text: str) -> object:
    raise _Irregular


def _before_parsing(raw: bytes, limits: Limits) -> Problem | None:
    if len(raw) > limits.size:
        return Problem("document", "too-large", f"{len(raw)} bytes", f"at most {limits.size}")
    if raw.startswith(b"\xef\xbb\xbf"):
        return Problem("document", "byte-order-mark", "a byte order mark", "plain UTF-8", "Save it without one.")
    depth = 0
    for token in _TOKEN.finditer(raw):
        mark = token[0]
        depth += (mark in b"[{") - (mark in b"]}") if len(mark) == 1 else 0
        if depth > limits.depth:
            return Problem(f"byte {token.start()}", "too-deep", f"{depth} levels", f"at most {limits.depth}")
    return None


def _integer(text: str) -> int | _Bad:
    # The length first: converting a million digits is itself an attack.
    if len(text) > 17 or abs(int(text)) > LARGEST_INTEGER:
        return _Bad("number-out-of-range", shown(text), "an integer within ±(2^53 - 1)")
    return int(text)


def _integer_or_float(text: str) -> int | float | _Bad:
    return -0.0 if text == "-0" else _integer(text)


def _float(text: str) -> float | _Bad:
    value = float(text)
    return value if math.isfinite(value) else _Bad("number-out-of-range", shown(text), "a binary64 number")
