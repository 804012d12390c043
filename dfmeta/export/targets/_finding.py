"""What a rule finds, before it is known where the rule is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a rule is broken; the fields are those of :class:`~.violation.Violation`."""

    where: str
    found: str
    expected: str
    fix: str
    advice: bool = False


def listed(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
