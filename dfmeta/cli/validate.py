"""``dfmeta validate``: is a bundle what it says it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import failures, options, output, progress

if TYPE_CHECKING:
    from dfmeta.bundle import Report

UNSUPPORTED = frozenset({"unsupported-version", "unsupported-feature", "memory-limit", "time-limit"})


def validate(
    bundle: options.BundleFolder,
    strict: Annotated[
        bool, typer.Option("--strict", help="For authors: also refuse what the format does not define.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check a bundle; exit 1 if it is not what it says.

    Exit 3 for one of a version, or with a required feature, that this dfmeta does not know, and for one whose graph
    takes more memory or time than allowed.

    Manifest, every member's bytes, every record's numbers, the graph's safety, and the probe. Example:

        dfmeta validate release --strict
    """
    with progress.shown():
        from dfmeta import pipeline

        report = pipeline.validate(bundle, strict=strict)
    output.warn(report.warnings)
    if as_json:
        # What the conformance vectors ask of every reader: `valid`, and `errors` with a code each.
        facts = output.plain(report)
        errors = facts.pop("problems")
        output.document({"path": str(bundle), "strict": strict, **facts, "errors": errors})
    else:
        _show(bundle, report)
    if not report.valid:
        raise typer.Exit(_exit_code(report))


def _exit_code(report: Report) -> int:
    unsupported = any(problem.code in UNSUPPORTED for problem in report.problems)
    return failures.UNAVAILABLE if unsupported else 1


def _show(bundle: Path, report: Report) -> None:
    from dfmeta.report import facts_table, integer, size

    count = len(report.problems)
    verdict = "valid" if report.valid else f"not valid: {count} problem{'s' if count != 1 else ''}"
    rows = [
        ("bundle", str(bundle)),
        ("verdict", verdict),
        ("identity", report.identity or "unknown"),
        (
            "read",
            f"{integer(report.files)} files, {integer(report.records)} records, {size(report.bytes_hashed)}",
        ),
    ]
    found = [("problem", f"{problem} [{problem.code}]") for problem in report.problems]
    output.result({}, [facts_table([*rows, *found])], as_json=False)
