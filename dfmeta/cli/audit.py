"""``dfmeta audit``: can the records tell which units went into them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfmeta.cli import options, output, progress

if TYPE_CHECKING:
    from dfmeta.pipeline import Audit


def audit(
    bundle: options.BundleFolder,
    members: Annotated[
        str, typer.Option(metavar="PATH[:SPLIT]", help="Units that went into the records; as --data elsewhere.")
    ],
    non_members: Annotated[
        str, typer.Option(metavar="PATH[:SPLIT]", help="Units of the same population that did not.")
    ],
    record: Annotated[
        list[str] | None,
        typer.Option("--record", metavar="NAME", help="Examine only this record, by id or kind; repeatable."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use that many members, drawn with --seed as record does.")
    ] = None,
    non_members_limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use that many non-members, drawn with --seed.")
    ] = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 256,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the ROC curve of each kind's strongest attack.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Try to tell from the records which units went into them.

    Membership inference; the exit code is 1 if it succeeds. Half of the non-members is the attacker's reference, the
    other half is what members are told from. A quiet result is no proof: it says what these attacks found with this
    much reference. Example:

        dfmeta audit release --members images.npz:train --non-members images.npz:test
    """
    if plot is not None:
        options.require_new(plot, ".png", "--plot")
    with progress.shown() as report:
        from dfmeta import pipeline

        found = pipeline.audit(
            bundle,
            members,
            non_members,
            records=record,
            limit=limit,
            non_members_limit=non_members_limit,
            seed=seed,
            batch_size=batch_size,
            progress=report,
        )
        if plot is not None:
            from dfmeta.report.audit import save_roc_picture

            save_roc_picture(plot, found.best, found.curves)
    _print(found, plot, as_json=as_json)
    if found.alarm:
        raise typer.Exit(1)


def _print(found: Audit, plot: Path | None, *, as_json: bool) -> None:
    from dfmeta.report import facts_table, integer
    from dfmeta.report.audit import attacks_table

    alarms = [attack for attack in found.attacks if attack.alarm and attack not in found.best]
    verdict = "alarm: the records give members away" if found.alarm else "no alarm"
    rows = [
        ("bundle", found.bundle),
        ("verdict", verdict),
        ("units", f"{integer(found.members)} members, {integer(found.others)} others"),
        ("reference", f"{integer(found.reference)} further non-members"),
        ("attacks", integer(len(found.attacks))),
        ("rule", found.rule),
    ]
    rows += [("not examined", name) for name in found.skipped]
    rows += [("plot", str(plot))] if plot is not None else []
    tables = [facts_table(rows), attacks_table(found.best, "Strongest attack of each kind")]
    if alarms:
        tables.append(attacks_table(sorted(alarms, key=lambda attack: -attack.area), "Further alarms"))
    facts = {name: value for name, value in output.plain(found).items() if name != "curves"}
    output.result({**facts, "plot": plot}, tables, as_json=as_json)
