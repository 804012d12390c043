"""What ``show`` says of the bundles of every preset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from dfmeta.bundle import Bundle
from dfmeta.data import from_flags
from dfmeta.pipeline import record
from dfmeta.records import PRESETS
from dfmeta.report import overview

Command = Callable[..., Any]
SINGLE = tuple(PRESETS)


@pytest.fixture(scope="module")
def bundle_of(digits_teacher: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``bundle_of(preset, ...)``: the digits' bundle with the records of these presets."""
    folder = tmp_path_factory.mktemp("presets")

    def make(*presets: str) -> Path:
        out = folder / "-and-".join(presets)
        if not out.exists():
            ops = from_flags(scale=1 / 255)
            record(digits_teacher, "digits:train", out, presets=presets, preprocessing=ops, rank=4, limit=600)
        return out

    return make


@pytest.mark.parametrize("presets", [*((name,) for name in SINGLE), SINGLE], ids="-and-".join)
def test_show_of_every_preset(command: Command, bundle_of: Callable[..., Path], presets: tuple[str, ...]) -> None:
    bundle = bundle_of(*presets)
    facts = command("show", bundle, "--json").json
    sidecar = load_file(bundle / "dfmeta" / "records.safetensors")
    open_ones = {entry["id"] for entry in facts["records"] if entry["values"] is None}
    assert open_ones == {entry["id"] for entry in facts["records"] if entry["kind"] == "histogram"}
    sizes = [values.size for name, values in sidecar.items() if name.split(".")[0] not in open_ones]
    assert sum(entry["values"] or 0 for entry in facts["records"]) == sum(sizes)
    assert facts == {**overview(Bundle.open(bundle)), "path": str(bundle)}

    shown = command("show", bundle)
    assert (shown.code, shown.err) == (0, "")
    for site in facts["sites"]:
        (line,) = [line for line in shown.out.splitlines() if line.startswith(f"{site['id']} ")]
        mine = [entry for entry in facts["records"] if entry["site"] == site["id"]]
        known = sum(entry["values"] or 0 for entry in mine)
        about = "over " if any(entry["values"] is None for entry in mine) else ""
        assert line.endswith(f" {about}{known:,}")
        assert site["label"] in line


def test_what_a_record_is_of_and_with_which_site(command: Command, bundle_of: Callable[..., Path]) -> None:
    shown = command("show", bundle_of("calibration")).out
    assert "second-moment of patches (all), histogram (all)" in shown
    assert "moments of channels (all)" in shown
    bundle = bundle_of("spectral-pairs")
    labels = {site["id"]: site["label"] for site in command("show", bundle, "--json").json["sites"]}
    pairs = [(entry.site, entry.paired_site) for entry in Bundle.open(bundle).manifest.records if entry.paired_site]
    assert pairs
    lines = {line.split()[0]: line for line in command("show", bundle).out.splitlines() if line.strip()}
    for site, paired in pairs:
        assert f"cross-spectrum with {labels[paired]} (all, class)" in lines[site]
