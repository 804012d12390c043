"""The methods of the papers and ours, against the same teachers, students and data.

    python tools/bench/seeds.py --shared FOLDER --out FOLDER [--pairs lenet5-half] [--rows noise,dafl] [--seeds 0,1,2]

``--shared`` holds ``data/`` and ``models/``. Every student sees a bundle alone (but for the rows of real or
alternative data), and each figure is that of the last training step, on the test set, with onnxruntime; the curves are
of the test set too, and nothing is chosen by them. Each run is a file in ``--out``: a run that is there is not done
again, so that the benchmark can be stopped at any time and gone on with. Tables and plots are made of what is there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from seeds_report import Run, write_report
from seeds_rows import METADATA, PAIRS, ROWS, Pair, Row
from seeds_teachers import TEACHERS, graph_of, images_of
from torch import Tensor, nn

from dfmeta import pipeline
from dfmeta.bundle import Bundle
from dfmeta.compress.distill import Config, configured
from dfmeta.errors import DfmetaError
from dfmeta.graph import Graph
from dfmeta.pipeline.gathering import Gathering
from dfmeta.pipeline.recording import record_with
from dfmeta.pipeline.release import Publishing
from dfmeta.records import DifferentialPrivacy, make_plan

POINTS = 16
# Natural images are moved further than digits, and mirrored; the clock ends the training.
NATURAL = {"batch": "128", "shift": "0.125", "flip": "true"}
# Root mean square of a unit's elements at a site: from what images in 0..1 and ReLU layers are, not from the data.
CLIP = 1.0


def bundle_of(pair: Pair, row: Row, shared: Path, folder: Path, device: str) -> Path:
    """The bundle that a row is given; recorded once for all rows that ask for the same."""
    teacher = TEACHERS[pair.teacher]
    presets = row.presets or ("top-layer",)
    if pair.cifar:
        # One bundle for all rows, so that a student made from the teacher is the same in each. Eigenpairs of every
        # large map, for each class, take an hour, and no method asks for them.
        image = graph_of(pair.teacher, shared, folder / "teachers", device).inputs[0].name
        presets = ("all-layers", f"spectral@{image}", "calibration")
    parts = [pair.teacher, *presets, f"rank{row.rank}", *(["hidden"] if row.hidden else [])]
    out = folder / "-".join([*parts, *([f"rho{row.rho}"] if row.rho else [])])
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        graph = graph_of(pair.teacher, shared, folder / "teachers", device)
        clip = CLIP if row.rho else None
        gathering = Gathering(
            presets=presets,
            preprocessing=teacher.preprocessing,
            rank=row.rank,
            clip=clip,
            at=hidden_sites(graph, presets) if row.hidden else None,
        )
        privacy = DifferentialPrivacy(row.rho, clip, gathering.batch_size) if row.rho else None
        record_with(graph, f"{shared / teacher.data}:train", out, gathering, Publishing(privacy=privacy))
    return out


def hidden_sites(graph: Graph, presets: tuple[str, ...]) -> list[str]:
    """The sites of the presets but for the graph's input."""
    values = {entry.site.value for entry in make_plan(graph, presets)}
    return sorted(values - {value.name for value in graph.inputs})


class Curve:
    """Accuracy on the test set as training goes on, at some sixteen points; the time that this takes is not counted."""

    def __init__(self, images: Tensor, labels: Tensor, config: Config, device: str) -> None:
        self._images, self._labels = images.to(device), labels.to(device)
        self._config = config
        self._started = time.monotonic()
        self._measuring = 0.0
        self._next = 0.0
        self.points: list[tuple[float, int, float]] = []

    @property
    def seconds(self) -> float:
        """Since the start, without the measuring."""
        return time.monotonic() - self._started - self._measuring

    def __call__(self, step: int, seconds: float, student: nn.Module) -> None:
        """After a training step."""
        share = step / self._config.steps
        if self._config.seconds is not None:
            share = max(share, seconds / self._config.seconds)
        if share < self._next:
            return
        self._next = max(share * 1.15, share + 1 / (4 * POINTS))
        before = time.monotonic()
        spent = self.seconds
        student.eval()
        with torch.no_grad():
            parts = zip(torch.split(self._images, 1000), torch.split(self._labels, 1000), strict=True)
            right = sum(float((student(images).argmax(1) == labels).sum()) for images, labels in parts)
        student.train()
        self.points.append((round(spent, 2), step, 100 * right / len(self._labels)))
        self._measuring += time.monotonic() - before


def membership_auc(bundle: Path, data: Path) -> float:
    """Area under the curve of the strongest membership attack on a bundle; attacked once, and kept beside it."""
    kept = bundle.with_name(f"{bundle.name}.audit.json")
    if not kept.exists():
        found = pipeline.audit(bundle, f"{data}:train", f"{data}:test", limit=2000, non_members_limit=4000)
        kept.write_text(json.dumps({"auc": max(attack.area for attack in found.best), "alarm": found.alarm}) + "\n")
    auc: float = json.loads(kept.read_text())["auc"]
    return auc


def measure(
    pair_name: str, row: Row, seed: int, shared: Path, folder: Path, budget: float, device: str, place: Path
) -> dict[str, Any]:
    """One student: made, exported, and looked at with onnxruntime."""
    pair = PAIRS[pair_name]
    student = row.student.get(pair_name, pair.student)
    teacher = TEACHERS[pair.teacher]
    bundle = bundle_of(pair, row, shared, folder / "bundles", device)
    data = {"train": f"{shared / teacher.data}:train", "other": f"{shared / (teacher.other or '')}:train", None: None}
    given = dict(row.train)
    if pair.cifar:
        given = NATURAL | given | {"seconds": str(budget), "steps": "1000000"}
    method = pipeline.method_name(bundle, row.method or None)
    config = configured(pipeline.training_config(method), given)
    images, labels = images_of(teacher, shared, "test")
    # Natural images have large networks: the curve is drawn with fewer of them, and the figures with all.
    shown = slice(None, None, 5 if pair.cifar else 1)
    curve = Curve(images[shown], labels[shown], config, device)
    out = place.with_suffix(".onnx")
    out.unlink(missing_ok=True)
    done = pipeline.distill(
        bundle,
        out,
        student=student,
        method=method,
        data=data[row.data],
        seed=seed,
        config=config,
        settings=row.settings,
        device=device,
        watch=curve,
    )
    seconds = curve.seconds
    found = pipeline.evaluate(out, f"{shared / teacher.data}:test", bundle=bundle)
    read = row.presets or ":" in student
    sizes = [file.size for file in Bundle.open(bundle).manifest.files if file.role == "records" and read]
    return {
        "accuracy": found.accuracy,
        "agreement": found.agreement,
        "teacher_accuracy": found.teacher_accuracy,
        "seconds": seconds,
        "steps": done.steps,
        "loss": done.loss,
        "parameters": done.costs.parameters,
        "metadata_bytes": sum(sizes),
        "curve": curve.points,
        "method": method,
        "student": student,
        "config": asdict(config),
        "settings": dict(row.settings),
        "device": device,
    }


def run_all(options: argparse.Namespace, rows: Mapping[str, Row], table: str) -> None:
    """Every run of a table that is not there yet."""
    for pair_name in options.pairs:
        pair = PAIRS[pair_name]
        if pair.gpu and options.device == "cpu":
            print(f"{pair_name}: skipped, it needs a GPU (--device cuda)")
            continue
        for seed in options.seeds:
            for name, row in rows.items():
                if (row.only and pair_name not in row.only) or (options.rows and name not in options.rows):
                    continue
                if row.data == "other" and TEACHERS[pair.teacher].other is None:
                    continue
                place = options.out / table / pair_name / name.replace(":", "-") / f"{seed}.json"
                if not place.exists():
                    one(options, table, pair_name, name, row, seed, place)


def one(options: argparse.Namespace, table: str, pair_name: str, name: str, row: Row, seed: int, place: Path) -> None:
    """One run, kept as a file; a method that refuses is kept as what it said."""
    place.parent.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"pair": pair_name, "row": name, "seed": seed, "published": row.published.get(pair_name)}
    try:
        facts |= measure(pair_name, row, seed, options.shared, options.out, options.budget, options.device, place)
        if table == "metadata":
            data = options.shared / TEACHERS[PAIRS[pair_name].teacher].data
            facts["auc"] = membership_auc(
                bundle_of(PAIRS[pair_name], row, options.shared, options.out / "bundles", options.device), data
            )
    except DfmetaError as error:
        facts |= {"error": str(error)}
    place.write_text(json.dumps(facts, indent=1) + "\n")
    print(Run.read(place).line(), flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed: Callable[[str], list[str]] = lambda text: text.split(",")  # noqa: E731 - an argparse type
    parser.add_argument("--shared", required=True, type=Path, help="folder of data/ and models/")
    parser.add_argument("--out", required=True, type=Path, help="folder of runs, tables and plots")
    parser.add_argument("--pairs", type=listed, default=list(PAIRS))
    parser.add_argument("--rows", type=listed, default=[])
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2])
    parser.add_argument(
        "--budget", type=float, default=1200.0, help="seconds for each CIFAR student, its inputs included"
    )
    parser.add_argument(
        "--metadata", action="store_true", help="the second table: the default method, given more and more"
    )
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    unknown = sorted(set(options.pairs) - set(PAIRS)) + sorted(set(options.rows) - set(ROWS) - set(METADATA))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    run_all(options, METADATA if options.metadata else ROWS, "metadata" if options.metadata else "methods")
    print(write_report(options.out))


if __name__ == "__main__":
    main()
