"""The manifest's bytes: what is JSON, and which JSON."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vectors.drafts import cases_of, put
from vectors.manifests import small

_case, _valid = cases_of("json", clause="3.1", base=small)
_invalid = partial(_case, schema="unparsed")


def swap(old: str, new: str) -> Callable[[str], bytes]:
    """The text with its one ``old`` replaced."""

    def change(text: str) -> bytes:
        if text.count(old) != 1:
            raise ValueError(f"{old!r} is there {text.count(old)} times")
        return text.replace(old, new).encode()

    return change


def titled(value: str) -> Callable[[str], bytes]:
    """The text with a title that is written just so."""
    return swap('"version": "1.0.0",', f'"version": "1.0.0", "title": {value},')


def extended(value: str) -> Callable[[str], bytes]:
    """The text with an extension whose value is written just so."""
    return swap('"format": "dfmeta",', f'"format": "dfmeta", "extensions": {{"org.example.x": {value}}},')


def _count(value: str) -> Callable[[str], bytes]:
    return swap('"seed": 0', f'"seed": {value}')


CASES = (
    _invalid("empty", code="not-json", comment="The manifest has no bytes.", text=lambda text: b""),
    _invalid(
        "trailing-text", code="not-json", comment="Two documents in one.", text=lambda text: f"{text}{{}}".encode()
    ),
    _invalid("trailing-comma", code="not-json", comment="A comma too many.", text=extended("[1, 2,]")),
    _invalid("line-comment", code="not-json", comment="JSON has no comments.", text=extended("0 // none")),
    _invalid("single-quotes", code="not-json", comment="JSON has no single quotes.", text=titled("'Two'")),
    _invalid("leading-zero", code="not-json", comment="A number does not begin with 0.", text=_count("012")),
    _invalid("hexadecimal", code="not-json", comment="JSON has no hexadecimal numbers.", text=_count("0x10")),
    _invalid("plus-sign", code="not-json", comment="A number has no plus sign.", text=_count("+1")),
    _invalid("control-character", code="not-json", comment="A line break inside a string.", text=titled('"a\nb"')),
    _invalid(
        "cut-short", code="not-json", comment="The last bracket is missing.", text=lambda text: text[:-3].encode()
    ),
    _invalid(
        "not-utf8",
        code="not-utf8",
        comment="A byte of Latin-1.",
        text=lambda text: titled('"caf\x7f"')(text).replace(b"\x7f", b"\xe9"),
    ),
    _invalid(
        "utf-16",
        code="not-utf8",
        comment="UTF-16 with a mark.",
        text=lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    ),
    _invalid(
        "overlong-utf8",
        code="not-utf8",
        comment="A slash in two bytes.",
        text=lambda text: titled('"\x7f"')(text).replace(b"\x7f", b"\xc0\xaf"),
    ),
    _invalid(
        "byte-order-mark",
        code="byte-order-mark",
        comment="UTF-8 with a mark.",
        text=lambda text: b"\xef\xbb\xbf" + text.encode(),
    ),
    _invalid(
        "duplicate-key",
        code="duplicate-key",
        comment="A key twice, with equal values.",
        text=swap('"seed": 0', '"seed": 0, "seed": 0'),
    ),
    _invalid(
        "duplicate-key-escaped",
        code="duplicate-key",
        comment="A key twice, once escaped.",
        text=swap('"seed": 0', '"seed": 0, "\\u0073eed": 0'),
    ),
    _invalid(
        "duplicate-key-in-extension",
        code="duplicate-key",
        comment="A key twice where anything may stand.",
        text=extended('{"a": 1, "a": 2}'),
    ),
    _invalid("nan", code="not-a-number", comment="JSON has no NaN.", text=extended("NaN")),
    _invalid("infinity", code="not-a-number", comment="JSON has no infinity.", text=extended("-Infinity")),
    _invalid(
        "beyond-binary64",
        code="number-out-of-range",
        comment="A number that binary64 has as infinite.",
        text=extended("1e999"),
    ),
    _invalid("large-integer", code="number-out-of-range", comment="2^53.", text=_count("9007199254740992")),
    _invalid(
        "large-negative-integer", code="number-out-of-range", comment="-2^53.", text=extended("-9007199254740992")
    ),
    _invalid(
        "integer-of-many-digits",
        code="number-out-of-range",
        comment="An integer of 400 digits.",
        text=extended("9" * 400),
    ),
    _invalid("lone-surrogate", code="lone-surrogate", comment="The first half of a pair.", text=titled('"\\ud800"')),
    _invalid(
        "lone-low-surrogate",
        code="lone-surrogate",
        comment="The second half of a pair, in a key.",
        text=extended('{"\\udc00": 1}'),
    ),
    _invalid("too-deep", code="too-deep", comment="33 levels.", text=extended("[" * 31 + "]" * 31)),
    _invalid(
        "too-deep-objects",
        code="too-deep",
        comment="33 levels of objects.",
        text=extended('{"a":' * 31 + "0" + "}" * 31),
    ),
    _invalid("string-too-long", code="string-too-long", comment="65,537 bytes.", text=titled('"' + "a" * 65_537 + '"')),
    _invalid(
        "string-too-long-in-bytes",
        code="string-too-long",
        comment="32,769 characters of two bytes.",
        text=titled('"' + "é" * 32_769 + '"'),
    ),
    _invalid(
        "too-many-items", code="too-many-items", comment="65,537 items.", text=extended("[" + "0," * 65_536 + "0]")
    ),
    _invalid(
        "not-an-object",
        code="wrong-type",
        comment="A list is no manifest.",
        clause="4.1",
        schema="invalid",
        text=lambda text: f"[{text}]".encode(),
    ),
    _invalid(
        "only-null",
        code="wrong-type",
        comment="Nothing is no manifest.",
        clause="4.1",
        schema="invalid",
        text=lambda text: b"null\n",
    ),
    _invalid(
        "integer-with-fraction",
        code="wrong-type",
        comment="64.0 where an integer is asked for.",
        schema="valid",
        text=_count("64.0"),
    ),
    _invalid(
        "integer-with-exponent",
        code="wrong-type",
        comment="1e1 where an integer is asked for.",
        schema="valid",
        text=_count("1e1"),
    ),
    _valid("depth-at-the-limit", comment="32 levels.", text=extended("[" * 30 + "]" * 30)),
    _valid("largest-integer", comment="2^53 - 1.", text=_count("9007199254740991")),
    _valid("string-at-the-limit", comment="65,536 bytes.", text=titled('"' + "a" * 65_536 + '"')),
    _valid("surrogate-pair", comment="An escaped pair is one character.", text=titled('"\\ud83d\\ude00"')),
    _valid("brackets-in-strings", comment="Brackets in a string do not nest.", text=titled('"' + "[{" * 40 + '\\""')),
    _valid(
        "white-space",
        comment="White space between tokens carries no meaning.",
        text=lambda text: text.replace("\n", "\r\n\t").encode(),
    ),
    _valid("one-line", comment="No white space at all is needed.", text=lambda text: text.replace("\n", "").encode()),
    _valid("escaped-keys", comment="An escaped key is the key.", text=swap('"seed": 0', '"\\u0073eed": 0')),
    _valid(
        "forms-of-numbers",
        comment="A number that need not be an integer may be written in any way.",
        text=extended("[1E-5, -0, 0.0, 1e2, -1.5e+3]"),
    ),
    _valid(
        "null-is-absence", comment="Null for an optional member is as if it were absent.", change=put("licenses", None)
    ),
    _valid(
        "null-is-absence-of-a-list",
        comment="The same of a member with a value for its absence.",
        change=put("datasets/0/license", None),
    ),
    _case(
        "noncharacter",
        code="noncharacter",
        folder="valid",
        verdict="acceptable",
        comment="U+FFFE, which RFC 7493 excludes: writers leave it out, readers may mind.",
        text=titled('"\\ufffe"'),
    ),
    _case(
        "underflow",
        code="number-out-of-range",
        folder="valid",
        verdict="acceptable",
        comment="A number that binary64 has as 0.",
        text=extended("1e-400"),
    ),
)
