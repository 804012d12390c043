"""Tables and plots of whatever runs of `seeds.py` there are."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLES = ("methods", "metadata")


@dataclass(frozen=True)
class Run:
    """One student; ``error`` where the method refused."""

    facts: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Run:
        """From its file."""
        return cls(json.loads(path.read_text()))

    @property
    def failed(self) -> bool:
        """Whether there is no student."""
        return "error" in self.facts

    def line(self) -> str:
        """For the terminal, as it ends."""
        facts = self.facts
        name = f"{facts['pair']}, {facts['row']}, seed {facts['seed']}"
        if self.failed:
            return f"{name}: {facts['error']}"
        return f"{name}: {facts['accuracy']:.2f} %, agreement {facts['agreement']:.2f} %, {facts['seconds']:.0f} s"

    def seconds_to(self, accuracy: float) -> float | None:
        """When the curve first reached ``accuracy`` percent; None where it never did."""
        return next((point[0] for point in self.facts["curve"] if point[2] >= accuracy), None)


def write_report(folder: Path) -> str:
    """Write ``<table>.json``, ``<table>.md`` and the plots; returns the Markdown."""
    texts = []
    for table in TABLES:
        runs = [Run.read(path) for path in sorted((folder / table).glob("*/*/*.json"))]
        if not runs:
            continue
        (folder / f"{table}.json").write_text(json.dumps([run.facts for run in runs], indent=1) + "\n")
        text = "\n\n".join(_table(pair, group) for pair, group in _grouped(runs, "pair"))
        (folder / f"{table}.md").write_text(text + "\n")
        texts.append(text)
        for pair, group in _grouped(runs, "pair"):
            _plot(pair, group, folder / f"{table}-{pair}.png")
    return "\n\n".join(texts)


def _grouped(runs: Sequence[Run], key: str) -> list[tuple[str, list[Run]]]:
    names = dict.fromkeys(run.facts[key] for run in runs)
    return [(name, [run for run in runs if run.facts[key] == name]) for name in names]


def _table(pair: str, runs: Sequence[Run]) -> str:
    good = [run for run in runs if not run.failed]
    teacher = f"; teacher {good[0].facts['teacher_accuracy']:.2f} %" if good else ""
    lines = [
        f"### {pair}{teacher}",
        "",
        "| inputs from | published | accuracy, mean (min to max) | agreement | seconds | to 97 % | metadata | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(name, group) for name, group in _grouped(runs, "row")]
    return "\n".join(lines)


def _line(name: str, group: Sequence[Run]) -> str:
    good = [run for run in group if not run.failed]
    published = group[0].facts.get("published")
    first = f"| {name} | {'' if published is None else f'{published:.2f}'} |"
    if not good:
        return f"{first} refused: {group[0].facts['error'].splitlines()[0]} | | | | | {len(group)} |"
    accuracy = [run.facts["accuracy"] for run in good]
    reached = [run.seconds_to(97.0) for run in good]
    to_97 = f"{statistics.mean(t for t in reached if t is not None):.0f} s" if None not in reached else ""
    audit = good[0].facts.get("auc")
    return (
        f"{first} {statistics.mean(accuracy):.2f} ({min(accuracy):.2f} to {max(accuracy):.2f}) "
        f"| {statistics.mean(run.facts['agreement'] for run in good):.2f} "
        f"| {statistics.mean(run.facts['seconds'] for run in good):.0f} | {to_97} "
        f"| {_size(good[0].facts['metadata_bytes'])}{f', AUC {audit:.3f}' if audit is not None else ''} | {len(good)} |"
    )


def _size(count: int) -> str:
    return "none" if not count else f"{count / 1000:,.0f} kB"


def _plot(pair: str, runs: Sequence[Run], path: Path) -> None:
    """Accuracy against seconds (curves of the first seed) and against bytes (means)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    colours = pyplot.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for index, (name, group) in enumerate(_grouped([run for run in runs if not run.failed], "row")):
        colour = colours[index % len(colours)]
        curve = group[0].facts["curve"]
        left.plot([point[0] for point in curve], [point[2] for point in curve], color=colour, label=name)
        mean = statistics.mean(run.facts["accuracy"] for run in group)
        right.plot(max(group[0].facts["metadata_bytes"], 100), mean, "o", color=colour)
        right.annotate(name, (max(group[0].facts["metadata_bytes"], 100), mean), fontsize=7)
    left.set(xscale="log", xlabel="seconds, synthesis and training", ylabel="test accuracy, %", title=pair)
    right.set(xscale="log", xlabel="bytes of metadata (100: none)", ylabel="test accuracy at the last step, %")
    left.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
