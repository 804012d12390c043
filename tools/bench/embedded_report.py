"""The tables of `embedded.py`, and which of its bounds are missed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Largest share by which stack and flash may differ from what is predicted.
MARGIN = 0.15


def markdown(document: Mapping[str, Any]) -> str:
    """Every student's tables."""
    lines: list[str] = []
    for found in document.values():
        lines += [f"### {found['student']}", "", _head(found), ""]
        lines += ["| | steps off, at most | allowed | other class | of them too close to tell | images |"]
        lines += ["|---|---|---|---|---|---|"]
        for row, one in found["agreement"].items():
            counts = f"{one['differing']} | {one['excused']} | {one['images']}"
            lines += [f"| {row} | {one['steps']:.2f} | {one['allowed']} | {counts} |"]
        lines += [
            "",
            "| | stack | predicted | flash | predicted | instructions (least to most) |",
            "|---|---|---|---|---|---|",
        ]
        for core, one in found["boards"].items():
            stack, flash = (f"{one[key]:,} | {_off(one, key)}" for key in ("stack", "flash"))
            span = f"{one['instructions']:,} ({one['least']:,} to {one['most']:,})"
            lines += [f"| {core} | {stack} | {flash} | {span} |"]
        lines += ["", "| | accuracy | real test images |", "|---|---|---|"]
        lines += [f"| {row} | {one['accuracy']:.2f} | {one['images']:,} |" for row, one in found["accuracy"].items()]
        lines += [""]
    return "\n".join(lines)


def _head(found: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{name} {size:,}" for name, size in found["bytes"].items())
    return f"{found['parameters']:,} parameters, {found['macs']:,} MACs; bytes of the files: {sizes}."


def _off(board: Mapping[str, Any], key: str) -> str:
    return f"{board['predicted'][key]:,} ({_share(board, key):+.1%})"


def _share(board: Mapping[str, Any], key: str) -> float:
    """How much more was measured than predicted."""
    return float(board[key] / board["predicted"][key] - 1)


def misses(document: Mapping[str, Any]) -> list[str]:
    """A sentence for each bound that is missed."""
    said = []
    for name, found in document.items():
        said += [f"{name}: {violation}" for violation in found["violations"]]
        for row, one in found["agreement"].items():
            if not one["holds"]:
                said.append(
                    f"{name}: {row}: {one['steps']:.2f} steps off where {one['allowed']} are allowed, "
                    f"{one['differing'] - one['excused']} other classes"
                )
        for core, one in found["boards"].items():
            off = [key for key in ("stack", "flash") if abs(_share(one, key)) > MARGIN]
            said += [f"{name}: {core}: {key} {one[key]:,}, predicted {_off(one, key)}" for key in off]
            if not one["same_as_host"]:
                said.append(f"{name}: {core}: other numbers than the same C on this machine")
    return said
