"""Options of publishing, which record and merge share, and what both print of what they wrote."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfmeta.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from dfmeta.pipeline import Published, Publishing, ShardWritten


class PersonalData(StrEnum):
    """What a publisher may say of the data set."""

    YES = "yes"
    NO = "no"
    NO_ASSERTION = "no-assertion"


MinUnits = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="The smallest class that may be published: 10 unless told.")
]
SuppressSmall = Annotated[bool, typer.Option("--suppress-small", help="Withhold smaller classes instead of refusing.")]
Name = Annotated[str | None, typer.Option(metavar="TEXT", help="The model's name.")]
ReleaseVersion = Annotated[str | None, typer.Option(metavar="TEXT", help="Version of the release.")]
Title = Annotated[str | None, typer.Option(metavar="TEXT", help="One line for people.")]
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="A paragraph for people.")]
DatasetName = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What the data set is called; its file name is not published.")
]
Unit = Annotated[str | None, typer.Option(metavar="TEXT", help="What privacy counts: image, document, person.")]
Personal = Annotated[PersonalData | None, typer.Option(help="Whether the data set holds personal data.")]
License = Annotated[str | None, typer.Option(metavar="SPDX", help="Licence of model and records.")]
DpRho = Annotated[
    float | None,
    typer.Option("--dp-rho", metavar="RHO", help="Publish noised records only: the zCDP budget of all together."),
]
BudgetBytes = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Choose forms and ranks so that the sidecar takes no more: 500kB, 2MB."),
]

_PUBLISHING = {
    "name": "--name",
    "version": "--release-version",
    "title": "--title",
    "description": "--description",
    "dataset": "--dataset-name",
    "unit": "--unit",
    "license": "--license",
    "contains_personal_data": "--personal-data",
    "min_units": "--min-units",
    "suppress": "--suppress-small",
    "dp_rho": "--dp-rho",
    "budget_bytes": "--budget-bytes",
}


def publishing(given: dict[str, Any]) -> Publishing:
    """What is given away and what is said about it, from the options that were given; None stands for one left out.

    Args:
        given: values by field of :class:`~dfmeta.pipeline.Release` or :class:`~dfmeta.pipeline.Publishing`.
    """
    from dfmeta import pipeline

    said = {key: value for key, value in given.items() if value is not None}
    limits = {key: said.pop(key) for key in ("min_units", "suppress", "privacy") if key in said}
    return pipeline.Publishing(pipeline.Release(**said), **limits)


def written(done: Published | ShardWritten, *further: tuple[str, str]) -> Table:
    """The table of a bundle or a shard that was written."""
    from dfmeta import pipeline
    from dfmeta.report import facts_table, integer, size

    if isinstance(done, pipeline.ShardWritten):
        rows = [
            ("shard", f"{done.path} (private: never publish it)"),
            ("name", done.name),
            ("parts", integer(done.parts)),
            ("units", integer(done.units)),
            ("records", integer(done.records)),
            ("size", size(done.bytes)),
        ]
    else:
        rows = [
            ("bundle", str(done.path)),
            ("identity", done.identity),
            ("units", integer(done.units)),
            ("records", f"{integer(done.records)} at {integer(done.sites)} sites"),
            ("model", size(done.graph_bytes)),
            ("sidecar", size(done.record_bytes)),
            *(("left out", f"{name}: nothing noises it") for name in done.left_out),
            *_privacy(done),
        ]
    return facts_table([*rows, *further])


def _privacy(done: Published) -> list[tuple[str, str]]:
    if done.privacy is None:
        return []
    first = done.privacy["approximate_dp"][0]
    epsilon = f"epsilon {first['epsilon']:.3g} at delta {first['delta']:g}"
    return [("privacy", f"rho {done.privacy['rho']:g}: {epsilon}, of the records and not of the model")]


def clip_of(given: list[str] | None) -> float | dict[str, float] | None:
    """``--dp-clip`` as one number, or as one for each site.

    Raises:
        typer.BadParameter: no number, or a site given twice.
    """
    option = "--dp-clip"
    if not given:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return options.numbers(option, given[0], 1)[0]
    by_site = options.settings(given, option)
    return {site: options.numbers(option, norm, 1)[0] for site, norm in by_site.items()}


def refuse_publishing(given: dict[str, Any]) -> None:
    """Refuse options of publishing where nothing is published.

    Raises:
        typer.BadParameter: one of them was given.
    """
    for key, value in given.items():
        if value not in (None, False):
            fix = "a shard is not published: give it to dfmeta merge."
            raise typer.BadParameter(fix, param_hint=repr(_PUBLISHING[key]))
