"""From an exception to one line on stderr, one document for ``--json``, and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import TextIO

import typer

from dfmeta.cli import output
from dfmeta.errors import DfmetaError, LimitExceeded, Problem

WRONG_USE, UNAVAILABLE, OUR_BUG, INTERRUPTED, BROKEN_PIPE = 2, 3, 4, 130, 141
DEBUG = "DFMETA_DEBUG"

# Typer keeps the class that all wrong uses share to itself; its base is public in no version.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def report(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong.

    Args:
        error: whatever a verb raised.
        as_json: also print it as a document on stdout.

    Returns:
        The exit code.
    """
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return BROKEN_PIPE
    code, facts, text = _explain(error)
    if as_json:
        output.document({"error": {**facts, "exit_code": code}})
    output.say(text, "error")
    if code == OUR_BUG and os.environ.get(DEBUG):
        traceback.print_exception(error, file=sys.stderr)
    return code


def ended(error: BaseException, verb: str, *, as_json: bool) -> int:
    """Say why the process that did the work was ended.

    Args:
        error: why.
        verb: what it was doing; ``validate`` answers in the form that it always does.
        as_json: also print it as a document on stdout.

    Returns:
        The exit code.
    """
    if verb != "validate" or not isinstance(error, LimitExceeded):
        return report(error, as_json=as_json)
    if as_json:
        problem = Problem(error.where, error.code, error.found, error.expected, error.fix)
        output.document({"valid": False, "errors": [problem]})
    output.say(str(error), "error")
    return error.exit_code


def _explain(error: BaseException) -> tuple[int, dict[str, object], str]:
    if isinstance(error, DfmetaError):
        return error.exit_code, error.as_dict(), str(error)
    if isinstance(error, _UsageError):
        return WRONG_USE, *_usage(error)
    if isinstance(error, OSError):
        return UNAVAILABLE, *_system(error)
    if isinstance(error, MemoryError):
        facts = _facts(error, "memory", "not enough of it", "room for the work", "Try a smaller --batch-size.")
        return UNAVAILABLE, facts, "memory: found not enough of it. Try a smaller --batch-size."
    found = f"{type(error).__name__}: {error}"
    fix = f"Please report it, with what {DEBUG}=1 in the environment adds to this line."
    return OUR_BUG, _facts(error, "dfmeta", found, "", fix), f"This is a bug in dfmeta ({found}). {fix}"


def _usage(error: Exception) -> tuple[dict[str, object], str]:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "dfmeta"
    message = str(error.format_message())  # type: ignore[attr-defined]
    fix = f"See: {path} --help"
    return {**_facts(error, path, message, "", fix), "type": "UsageError"}, f"{message} {fix}"


def _system(error: OSError) -> tuple[dict[str, object], str]:
    where = str(error.filename or "the system")
    found = (error.strerror or type(error).__name__).lower()
    fix = "Check the path, its permissions and the room on the disk."
    return _facts(error, where, found, "", fix), f"{where}: {found}. {fix}"


def _facts(error: BaseException, where: str, found: str, expected: str, fix: str) -> dict[str, object]:
    return {"type": type(error).__name__, "where": where, "found": found, "expected": expected, "fix": fix}


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A Python warning as one line, without the source code that raised it."""
    del category, filename, lineno, file, line
    output.say(str(message), "warning")
