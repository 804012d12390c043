"""Every error dfmeta raises.

    DfmetaError                      exit code   what it means
    ├─ SchemaError                   1           a manifest breaks the format; carries every problem
    ├─ BundleError                   1           a bundle's folder or files cannot be used
    │  ├─ IntegrityError             1           bytes differ from what the manifest pins
    │  └─ UnsupportedVersion         3           a later format, or a feature we do not know
    ├─ GraphError                    1           an ONNX graph that is unsafe, broken or does not fit
    │  └─ UnsupportedOperator        3           a valid operator that our executor does not run
    ├─ DataError                     2           a data set of the wrong shape, type, size or labels
    ├─ UnknownName (LookupError)     2           no such kind, preset, method, student, target, ...
    ├─ MergeError                    2           records that may not be merged
    ├─ StepError                     1           a compression or synthesis step could not do its work
    │  ├─ Diverged                   1           training whose loss is no longer finite
    │  └─ MethodInput                2           a method without what it needs, or given what it cannot use
    ├─ ExportError                   1           the exported graph does not agree with its source
    ├─ OutputExists                  2           we never overwrite what is already there
    ├─ LimitExceeded                 3           work that takes more memory or time than it is allowed
    └─ MissingExtra (ImportError)    3           an optional dependency is not installed

Text shape: *where: found X, expected Y. What to do.*
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a manifest or bundle.

    Attributes:
        where: location in the reader's words, such as ``records[2].site`` or a member's path.
        code: stable slug, such as ``duplicate-key``.
        found: what is there.
        expected: what should be there.
        fix: what to do about it.
    """

    where: str
    code: str
    found: str
    expected: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return _sentence(self.where, self.found, self.expected, self.fix)


def _sentence(where: str, found: str, expected: str, fix: str) -> str:
    text = f"{where}: found {found}"
    if expected:
        text += f", expected {expected}"
    text += "."
    return f"{text} {fix}" if fix else text


class DfmetaError(Exception):
    """Root of all our errors.

    Args:
        where: the file, option, node or member concerned.
        found: what was there.
        expected: what should have been there.
        fix: what the reader can do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, where: str, found: str, expected: str = "", fix: str = "") -> None:
        super().__init__(_sentence(where, found, expected, fix))
        self.where, self.found, self.expected, self.fix = where, found, expected, fix

    def as_dict(self) -> dict[str, object]:
        """The same facts for ``--json``, with the code of the rule where there is one."""
        facts: dict[str, object] = {
            "type": type(self).__name__,
            "where": self.where,
            "found": self.found,
            "expected": self.expected,
            "fix": self.fix,
        }
        return facts | {"code": self.code} if hasattr(self, "code") else facts


class SchemaError(DfmetaError):
    """A manifest that breaks the format; ``problems`` lists all of it, not only the first."""

    def __init__(self, where: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  {problem} [{problem.code}]" for problem in self.problems)
        count = len(self.problems)
        super().__init__(where, f"{count} problem{'s' if count != 1 else ''}", "none", f"They are:\n{lines}")

    def as_dict(self) -> dict[str, object]:
        """The same facts for ``--json``, with one entry for each problem."""
        return {**super().as_dict(), "fix": "", "problems": [asdict(problem) for problem in self.problems]}


class BundleError(DfmetaError):
    """A bundle whose folder or files cannot be used."""


class IntegrityError(BundleError):
    """Bytes that differ from what the manifest pins."""


class UnsupportedVersion(BundleError):
    """A later format version, or a required feature we do not know.

    Attributes:
        code: which of the two: ``unsupported-version`` or ``unsupported-feature``.
    """

    exit_code = 3

    def __init__(
        self, where: str, found: str, expected: str = "", fix: str = "", *, code: str = "unsupported-version"
    ) -> None:
        super().__init__(where, found, expected, fix)
        self.code = code


class GraphError(DfmetaError):
    """An ONNX graph that is unsafe, broken, or does not fit what was asked.

    Attributes:
        code: stable slug of the rule that it breaks, of ``spec/error-codes.md``; ``graph`` where no rule has one.
    """

    def __init__(self, where: str, found: str, expected: str = "", fix: str = "", *, code: str = "graph") -> None:
        super().__init__(where, found, expected, fix)
        self.code = code


class UnsupportedOperator(GraphError):
    """A valid operator that our executor does not run; ``where`` names the node."""

    exit_code = 3


class DataError(DfmetaError):
    """A data set of the wrong shape, type, size or labels."""

    exit_code = 2


class UnknownName(DfmetaError, LookupError):
    """A name that is not in a catalogue.

    Args:
        what: the sort of thing, such as ``student``.
        name: what was asked for.
        known: what there is.
    """

    exit_code = 2

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        self.what, self.name, self.known = what, name, tuple(sorted(known))
        near = difflib.get_close_matches(name, self.known, n=1)
        fix = f"Did you mean {near[0]!r}?" if near else ""
        super().__init__(what, repr(name), f"one of {', '.join(self.known) or '(none)'}", fix)


class MergeError(DfmetaError):
    """Records that may not be merged."""

    exit_code = 2


class StepError(DfmetaError):
    """A compression or synthesis step that could not do its work."""


class Diverged(StepError):
    """Training whose loss is no longer finite; the network holds the last weights known to be good.

    Attributes:
        step: the step that failed, from 1; 0 where it is not known.
        kept: after how many steps the weights were kept; 0 when none were.
    """

    step = 0
    kept = 0


class MethodInput(StepError):
    """A synthesis method that is not given the student or the data that it needs, or given what it cannot use."""

    exit_code = 2


class ExportError(DfmetaError):
    """An exported graph that does not agree with its source."""


class OutputExists(DfmetaError):
    """An output path that is already taken: nothing is ever silently overwritten."""

    exit_code = 2

    def __init__(
        self,
        path: object,
        found: str = "something already there",
        fix: str = "Choose another output path, or move the old one away.",
    ) -> None:
        super().__init__(str(path), found, "a path that does not exist yet", fix)


class LimitExceeded(DfmetaError):
    """Work that was not begun, or was stopped, because it takes more memory or time than it is allowed.

    Attributes:
        code: which of the two: ``memory-limit`` or ``time-limit``, of ``spec/error-codes.md``.
    """

    exit_code = 3

    def __init__(
        self, where: str, found: str, expected: str = "", fix: str = "", *, code: str = "memory-limit"
    ) -> None:
        super().__init__(where, found, expected, fix)
        self.code = code


class MissingExtra(DfmetaError, ImportError):
    """An optional dependency that is not installed.

    Args:
        package: the package that is missing, such as ``PIL``.
        extra: the extra of dfmeta that brings it.
        purpose: what it is needed for.
    """

    exit_code = 3

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(
            purpose, f"no package {package!r}", "it to be installed", f"Run: pip install 'dfmeta[{extra}]'"
        )
