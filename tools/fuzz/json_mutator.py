"""Changes to a JSON document that leave most of it standing, so that what comes after the parser is reached too.

A document is held as written: objects as lists of pairs, so that keys may repeat, and numbers that no parser would
return (NaN, 1e999, 2^53) as their text.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

Bytes = Callable[[bytes, int], bytes]
"""A mutator of plain bytes: the bytes, and how many there may be."""


class Members(list[Any]):
    """An object, as pairs of key and value."""


@dataclass(frozen=True, slots=True)
class Written:
    """A value as text that goes into the document unchanged."""

    text: str


_SCALARS = tuple(
    Written(text)
    for text in (
        *("null", "true", "false", "0", "1", "-1", "2", "7", "8", "9", "255", "256", "65535", "65536", "1000001"),
        *("2147483647", "2147483648", "9007199254740991", "9007199254740992", "-9007199254740992"),
        *("18446744073709551616", "1" * 400, "-0", "-0.0", "0.5", "1.0", "1e1", "1e-400", "1e308", "1e999", "-1e999"),
        *("NaN", "Infinity", "-Infinity", "[]", "{}", '""', '" "', '"a"', '"."', '".."', '"/"', '"batch"', '"?"'),
        *('"\\ud800"', '"\\udc00\\ud800"', '"\\ufffe"', '"\\u0000"', '"\u0130"', '"e\u0301"', '"\U0001f600"'),
        *('"../up"', '"a/../b"', '"/etc/hostname"', '"a//b"', '"con.json"', '"a\\\\b"', '"2.0"', '"1.1"', '"1.0"'),
        *('"2026-02-30T00:00:00Z"', '"urn:uuid:00000000-0000-0000-0000-000000000000"', f'"{"0" * 64}"'),
    )
)
_LETTERS = "aZ09_.-/\\\"' \n\0é\u0130\u200b\ufeff\U0001f600{}[]:,"


@dataclass
class Vocabulary:
    """What good documents hold: values by the key they stand under, and every scalar."""

    values: dict[str, list[Any]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, documents: Iterable[bytes], most: int = 40) -> Vocabulary:
        """Learn from documents; those that are no JSON teach nothing."""
        found = cls()
        for raw in documents:
            document = parsed(raw)
            for place, key in _places(document) if document is not None else ():
                if isinstance(place, Members):
                    name, value = place[key]
                    seen = found.values.setdefault(name, [])
                    if len(seen) < most and value not in seen:
                        seen.append(value)
        found.keys = sorted(found.values)
        return found


def parsed(raw: bytes) -> Any:
    """A document as written; None where it is no JSON."""
    try:
        return json.loads(
            raw, object_pairs_hook=Members, parse_constant=Written, parse_int=Written, parse_float=Written
        )
    except (ValueError, RecursionError):
        return None


def written(value: Any) -> str:
    """The text of a document."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, Members):
        return "{" + ",".join(f"{json.dumps(key)}:{written(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def encoded(value: Any) -> bytes:
    """Its bytes; half of a surrogate pair becomes bytes that are not UTF-8."""
    return written(value).encode("utf-8", "surrogatepass")


def mutate(raw: bytes, limit: int, random: Random, vocabulary: Vocabulary, plain: Bytes) -> bytes:
    """Another document, at most ``limit`` bytes: mostly JSON still, at times not."""
    document = parsed(raw) if random.random() < 0.92 else None
    if document is None:
        return plain(raw, limit)
    document = [document]
    for _ in range(min(1 + int(random.expovariate(0.8)), 8)):
        change(document, random, vocabulary)
    out = encoded(document[0]) if document else b""
    return out if len(out) <= limit else plain(raw, limit)


def change(document: list[Any], random: Random, vocabulary: Vocabulary) -> None:
    """One change in place.

    Args:
        document: the document, alone in a list, so that it can be replaced as a whole.
        random: decides.
        vocabulary: of good documents.
    """
    places = _places(document)
    if not places:
        return
    holder, index = random.choice(places)
    random.choice(_CHANGES)(holder, index, random, vocabulary, places)


def _places(document: Any) -> list[tuple[Any, int]]:
    """Every value below a document, as what holds it and where."""
    found: list[tuple[Any, int]] = []
    stack = [document]
    while stack:
        holder = stack.pop()
        for index, item in enumerate(holder):
            found.append((holder, index))
            value = item[1] if isinstance(holder, Members) else item
            if isinstance(value, list):
                stack.append(value)
    return found


def _get(holder: Any, index: int) -> Any:
    return holder[index][1] if isinstance(holder, Members) else holder[index]


def _set(holder: Any, index: int, value: Any) -> None:
    holder[index] = (holder[index][0], value) if isinstance(holder, Members) else value


Places = list[tuple[Any, int]]


def _scalar(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    _set(holder, index, random.choice(_SCALARS))


def _elsewhere(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    _set(holder, index, copy.deepcopy(_get(*random.choice(places))))


def _drop(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    del holder[index]


def _again(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    for _ in range(1 if random.random() < 0.9 else random.choice((8, 9, 64, 70))):
        holder.insert(random.randint(0, len(holder)), copy.deepcopy(holder[index]))


def _swap(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    other, at = random.choice(places)
    mine, theirs = copy.deepcopy(_get(holder, index)), copy.deepcopy(_get(other, at))
    _set(holder, index, theirs)
    _set(other, at, mine)


def _known(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    """A value that a good document has under this key."""
    if isinstance(holder, Members) and holder[index][0] in vocabulary.values:
        _set(holder, index, copy.deepcopy(random.choice(vocabulary.values[holder[index][0]])))


def _member(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    """A member that some good document has, perhaps not here."""
    if vocabulary.keys:
        key = random.choice(vocabulary.keys)
        value = copy.deepcopy(random.choice(vocabulary.values[key]))
        holder.insert(index, (key, value)) if isinstance(holder, Members) else holder.insert(index, value)


def _rename(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    if isinstance(holder, Members):
        key = random.choice(vocabulary.keys) if random.random() < 0.5 and vocabulary.keys else holder[index][0] + "x"
        holder[index] = (key, holder[index][1])


def _number(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    value = _get(holder, index)
    if isinstance(value, Written):
        try:
            number = int(value.text)
        except ValueError:
            return
        forms = (number + 1, number - 1, -number, number * 2, number // 2, f"{number}.0", f"{number}e0", 2**53 - number)
        _set(holder, index, Written(str(random.choice(forms))))


def _text(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    value = _get(holder, index)
    if not isinstance(value, str):
        return
    at = random.randint(0, len(value))
    letter = random.choice(_LETTERS)
    forms = (value[:at] + letter + value[at:], value[:at] + value[at + 1 :], value[:at] + letter + value[at + 1 :])
    _set(holder, index, random.choice((*forms, value.upper(), value * 2, value[:at], value + "/" + value)))


def _nest(holder: Any, index: int, random: Random, vocabulary: Vocabulary, places: Places) -> None:
    value = _get(holder, index)
    for _ in range(random.choice((1, 1, 2, 8, 30, 40))):
        value = [value] if random.random() < 0.5 else Members([("k", value)])
    _set(holder, index, value)


_CHANGES = (_scalar, _elsewhere, _drop, _again, _swap, _known, _known, _known, _member, _rename, _number, _text, _nest)
