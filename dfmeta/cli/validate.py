"""``dfmeta validate``: is a bundle what it says it is."""

from __future__ import annotations

from typing import Annotated

import typer

from dfmeta.cli import options, output, progress


def validate(
    bundle: options.BundleFolder,
    strict: Annotated[
        bool, typer.Option("--strict", help="For authors: also refuse what the format does not define.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check a bundle; exit 1 if it is not what it says.

    Manifest, every member's bytes, every record's numbers, the graph's safety, and the probe. Example:

        dfmeta validate release --strict
    """
    with progress.shown():
        from dfmeta import pipeline
        from dfmeta.report import facts_table, integer, size

        report = pipeline.validate(bundle, strict=strict)
    output.warn(report.warnings)
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
    facts = {"path": str(bundle), "strict": strict, **output.plain(report)}
    output.result(facts, [facts_table([*rows, *found])], as_json=as_json)
    if not report.valid:
        raise typer.Exit(1)
