"""Compression in closed form: nothing known, noise, recorded statistics and real data, beside other programs.

    python tools/bench/closed_form.py --shared FOLDER --out FOLDER [--peers FOLDER] [--only REGEX] [--report]

``--shared`` holds ``data/`` and ``models/``. Records are taken of 5,000 training images, once, unless ``--out`` holds
the bundles already (``<network>/full``, ``toeplitz``, ``noise`` and so on). Nothing is fine-tuned but where a row says
so, then on inputs made from the bundle alone. Every accuracy is of all test images. Each row is a file in ``--out``:
one that is there is not done again, so that the benchmark can be stopped at any time and gone on with. Peers that do
not live beside us are installed below ``--peers``, each in an environment of its own. Times are of the compression
alone and on this machine; the load that it had is in the files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import closed_form_peers
import closed_form_real
import torch
from closed_form_networks import Network, networks
from closed_form_rows import ROWS, SOURCES, Row
from closed_form_speed import measures

from dfmeta.errors import DfmetaError


def row(network: Network, make: Row, source: str) -> dict[str, Any]:
    """One figure, or why there is none."""
    facts: dict[str, Any] = {"load": os.getloadavg()[0], "threads": torch.get_num_threads()}
    if source == "real":
        facts["images"] = (closed_form_peers if make.sources == ("real",) else closed_form_real).IMAGES
    elif source not in ("none", "real"):
        network.bundle(source)
    started, cpu = time.monotonic(), time.process_time()
    try:
        made = make.make(network, source)
    except (DfmetaError, RuntimeError) as error:
        return facts | {"error": str(error)}
    facts["cpu_seconds"] = time.process_time() - cpu
    facts["seconds"] = time.monotonic() - started if made.seconds is None else made.seconds
    try:
        return facts | {"accuracy": network.accuracy(made.graph)}
    except RuntimeError as error:
        return facts | {"error": str(error)}


def once(place: Path, name: str, make: Callable[[], dict[str, Any]]) -> None:
    """Make a file unless it is there; nothing is written where a peer is absent."""
    if place.exists():
        return
    try:
        facts = make()
    except closed_form_peers.Absent as error:
        print(f"{name}: {error}", flush=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{name}: {json.dumps(facts)}", flush=True)


def slug(text: str) -> str:
    """A file name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower().replace("%", "percent")).strip("-")


def run_all(found: dict[str, Network], only: str, out: Path) -> None:
    """Everything that is not there yet, the rows of a network before its times."""
    for network in found.values():
        for name, make in ROWS.items():
            for source in make.sources:
                if re.search(only, f"{network.name}/{name}/{source}"):
                    place = out / network.name / "rows" / slug(name) / f"{source}.json"
                    once(place, f"{network.name}/{name}/{source}", partial(row, network, make, source))
        for name, measure in measures(network).items():
            if re.search(only, f"{network.name}/{name}"):
                once(out / network.name / "times" / f"{slug(name)}.json", f"{network.name}/{name}", measure)


def report(names: list[str], out: Path) -> str:
    """All that is there, as ``closed_form.json``, and as Markdown."""
    document: dict[str, Any] = {}
    lines: list[str] = []
    for network in names:
        rows = {
            name: {
                place.stem: json.loads(place.read_text()) for place in (out / network / "rows" / slug(name)).glob("*")
            }
            for name in ROWS
        }
        times = {place.stem: json.loads(place.read_text()) for place in (out / network / "times").glob("*.json")}
        document[network] = {"rows": {name: each for name, each in rows.items() if each}, "times": times}
        if not document[network]["rows"]:
            continue
        lines += [f"### {network}", "", f"| | {' | '.join(SOURCES)} |", "|---" * (1 + len(SOURCES)) + "|"]
        lines += [
            f"| {name} | {' | '.join(_cell(each.get(source)) for source in SOURCES)} |"
            for name, each in document[network]["rows"].items()
        ]
        lines += ["", *(f"{name}: `{json.dumps(facts)}`  " for name, facts in times.items()), ""]
    (out / "closed_form.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "closed_form.md").write_text("\n".join(lines) + "\n")
    return "\n".join(lines)


def _cell(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return ""
    if "error" in facts:
        return f"refused: {' '.join(facts['error'].split())[:60]}".replace("|", "/")
    return f"{facts['accuracy']:.2f} ({facts['seconds']:.1f} s)"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", required=True, type=Path, help="folder of data/ and models/")
    parser.add_argument("--out", required=True, type=Path, help="folder of bundles, rows and tables")
    parser.add_argument("--peers", type=Path, help="folder for the environments of other programs; none without it")
    parser.add_argument("--only", default="", help="rows whose network/name/source this regular expression finds")
    parser.add_argument("--real-images", type=int, default=5000, help="that the reference with data reads")
    parser.add_argument("--report", action="store_true", help="only the tables of what is there")
    options = parser.parse_args()
    closed_form_peers.ENVIRONMENTS.folder = options.peers
    closed_form_real.IMAGES = options.real_images
    found = networks(options.shared, options.out)
    if not options.report:
        run_all(found, options.only, options.out)
    print(report(list(found), options.out))


if __name__ == "__main__":
    main()
