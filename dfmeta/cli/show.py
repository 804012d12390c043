"""``dfmeta show``: what a bundle says of itself, from its manifest alone."""

from __future__ import annotations

from dfmeta.cli import options, output


def show(bundle: options.BundleFolder, as_json: options.Json = False) -> None:
    """Show what a bundle says of itself.

    Model, files, sites, records, data and privacy, from the manifest and nothing else. Example:

        dfmeta show release
    """
    from dfmeta.bundle import Bundle
    from dfmeta.report.overview import overview, overview_tables

    opened = Bundle.open(bundle)
    output.warn(opened.warnings)
    facts = overview(opened)
    output.result(facts, overview_tables(facts), as_json=as_json)
