"""From pydantic's error list to ours: a location, a stable code, what was found, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dfmeta.errors import Problem
from dfmeta.schema.json_strict import join, shown

_CODES = {
    "missing": "missing-member",
    "literal_error": "unknown-value",
    "finite_number": "not-a-number",
    "greater_than": "out-of-range",
    "greater_than_equal": "out-of-range",
    "less_than_equal": "out-of-range",
    "too_short": "wrong-length",
    "too_long": "wrong-length",
    "string_too_short": "wrong-length",
}
# The parts of a pydantic location that name a branch of a union, not a place in the document.
_BRANCHES = {
    *("int", "str", "unknown", "constrained-int", "constrained-str"),
    *("rescale", "resize", "pad", "center_crop", "normalize", "grayscale", "onnx-value", "torch-module"),
}


def problems_of(error: ValidationError, where: str = "") -> list[Problem]:
    """Every error of a failed validation, once for each place.

    Args:
        error: what pydantic raised.
        where: location of the validated value inside the document.
    """
    problems: dict[str, Problem] = {}
    for details in error.errors(include_url=False):
        problem = _problem(details, where)
        known = problems.get(problem.where)
        # A union reports each branch; the branch of the right type knows best what is wrong.
        if known is None or (known.code == "wrong-type" and problem.code != "wrong-type"):
            problems[problem.where] = problem
    return list(problems.values())


def _problem(details: ErrorDetails, where: str) -> Problem:
    place = location(details["loc"], where) or "document"
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return Problem(place, "missing-member", "no such member", "one, as it is required", _misspelt(details))
    # Every closed list is one of strings.
    mistyped = kind.endswith(("_type", "_parsing")) or (kind == "literal_error" and type(details["input"]) is not str)
    code = "wrong-type" if mistyped else _CODES.get(kind, kind)
    return Problem(place, code, str(context.get("found") or shown(details["input"])), _expected(details))


def _expected(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    for bound, words in (("min_length", "at least"), ("max_length", "at most")):
        if bound in context:
            return f"a length of {words} {context[bound]}"
    return str(context.get("expected") or details["msg"].removeprefix("Input should ").removeprefix("be "))


def location(parts: Sequence[int | str], where: str = "") -> str:
    """``records[2].site`` from pydantic's tuple, without the names of union branches."""
    for index, part in enumerate(parts):
        if isinstance(part, int):
            where = f"{where}[{part}]"
        elif part == "[key]" or _is_branch(part, parts[index - 1 : index]):
            continue
        else:
            where = join(where, part)
    return where


def _is_branch(part: str, before: Sequence[int | str]) -> bool:
    return (part in _BRANCHES or "[" in part) and bool(before) and (isinstance(before[0], int) or before[0] == "pixels")


def _misspelt(details: ErrorDetails) -> str:
    members = details["input"]
    # Comparing with each key of a large object would let a hostile manifest buy minutes.
    if not isinstance(members, dict) or len(members) > 64:
        return ""
    near = difflib.get_close_matches(str(details["loc"][-1]), [key for key in members if isinstance(key, str)], n=1)
    return f"Is {shown(near[0])} misspelt?" if near else "Add it."
