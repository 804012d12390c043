"""Options of publishing, which record and merge share, and what both print of what they wrote."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfmeta.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from dfmeta.pipeline import DifferentialPrivacy, Published, Publishing, ShardWritten


class PersonalData(StrEnum):
    """What a publisher may say of the data set."""

    YES = "yes"
    NO = "no"
    NO_ASSERTION = "no-assertion"


_SHARD_FIX = "a shard is not published: give it to dfmeta merge."


@dataclass(frozen=True, slots=True)
class Options:
    """What is given away, and what is said about it; None and False stand for an option that was left out."""

    budget_bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Choose forms and ranks so that the sidecar takes no more: 500kB, 2MB."),
    ] = None
    min_units: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The smallest class that may be published: 10 unless told.")
    ] = None
    suppress_small: Annotated[
        bool, typer.Option("--suppress-small", help="Withhold smaller classes instead of refusing.")
    ] = False
    dp_rho: Annotated[
        float | None,
        typer.Option("--dp-rho", metavar="RHO", help="Publish noised records only: the zCDP budget of all together."),
    ] = None
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="The model's name.")] = None
    release_version: Annotated[str | None, typer.Option(metavar="TEXT", help="Version of the release.")] = None
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="One line for people.")] = None
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="A paragraph for people.")] = None
    dataset_name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the data set is called; its file name is not published.")
    ] = None
    unit: Annotated[str | None, typer.Option(metavar="TEXT", help="What privacy counts: image, document, person.")] = (
        None
    )
    personal_data: Annotated[PersonalData | None, typer.Option(help="Whether the data set holds personal data.")] = None
    license: Annotated[str | None, typer.Option(metavar="SPDX", help="Licence of model and records.")] = None

    @property
    def budget(self) -> int | None:
        """``--budget-bytes`` as a number.

        Raises:
            DataError: other text.
        """
        from dfmeta.records import parse_bytes

        return parse_bytes(self.budget_bytes) if self.budget_bytes is not None else None

    def publishing(self, privacy: DifferentialPrivacy | None = None) -> Publishing:
        """The same for the functions that publish."""
        from dfmeta import pipeline

        about: dict[str, Any] = {
            "name": self.name,
            "version": self.release_version,
            "title": self.title,
            "description": self.description,
            "dataset": self.dataset_name,
            "unit": self.unit,
            "license": self.license,
            "contains_personal_data": self.personal_data.value if self.personal_data else None,
        }
        release = pipeline.Release(**{key: value for key, value in about.items() if value is not None})
        limits = {} if self.min_units is None else {"min_units": self.min_units}
        return pipeline.Publishing(release, suppress=self.suppress_small, privacy=privacy, **limits)

    def refuse(self) -> None:
        """Refuse all of them, where nothing is published.

        Raises:
            typer.BadParameter: one of them was given.
        """
        for field in fields(self):
            if getattr(self, field.name) not in (None, False):
                raise typer.BadParameter(_SHARD_FIX, param_hint=repr(f"--{field.name.replace('_', '-')}"))


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
