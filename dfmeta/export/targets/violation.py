"""One thing about a graph that a target does not take."""

from __future__ import annotations

from dataclasses import dataclass

from dfmeta.export.targets.profile import Source


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule broken at one place.

    Attributes:
        rule: its name, as in the profile; ``ram`` and ``flash`` for a budget.
        where: the node, value or model.
        found: what is there.
        expected: what the target takes.
        fix: what to do.
        source: where the rule is written; None for a budget that the user gave.
        advice: whether it costs speed or safety only.
    """

    rule: str
    where: str
    found: str
    expected: str
    fix: str
    source: Source | None = None
    advice: bool = False

    def __str__(self) -> str:
        text = f"{self.where}: found {self.found}, expected {self.expected}."
        return f"{text} {self.fix}" if self.fix else text

    def as_dict(self) -> dict[str, object]:
        """The same in JSON types."""
        source = None if self.source is None else self.source.model_dump(mode="json")
        facts = {name: getattr(self, name) for name in ("rule", "where", "found", "expected", "fix", "advice")}
        return {**facts, "source": source}
